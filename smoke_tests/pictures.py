"""Images and videos for the vision tests, in two colours that every vision model can tell apart."""

import base64
import functools
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# Two seconds of one colour, 64 x 64 pixels, 4 frames a second, MPEG-4.
MEDIA = Path(__file__).resolve().parent / "media"
RED_VIDEO, BLUE_VIDEO = MEDIA / "red.mp4", MEDIA / "blue.mp4"
RED, BLUE = (255, 0, 0), (0, 0, 255)
QUESTION = "Which colour is this? Answer with one word."


@functools.cache
def png(colour: tuple[int, int, int], width: int = 64, height: int = 64) -> bytes:
    """Return a PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(colour) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def image_part(image: bytes | str) -> dict[str, Any]:
    """Return a content part with a PNG as base64, or with a URL."""
    url = image if isinstance(image, str) else f"data:image/png;base64,{base64.b64encode(image).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def video_part(video: Path | str) -> dict[str, Any]:
    """Return a content part with an MP4 file as base64, or with a URL."""
    if isinstance(video, Path):
        video = f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"
    return {"type": "video_url", "video_url": {"url": video}}


def messages(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of one question about the parts."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": QUESTION}]}]


class _Quiet(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/red.png":
            super().do_GET()
            return
        content = png(RED)
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def served() -> Iterator[str]:
    """Serve the media files on 127.0.0.1 while the block runs; yields the base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(MEDIA))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
