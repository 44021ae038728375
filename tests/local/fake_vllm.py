"""A fake vLLM for tests of the runner: its log lines, its routes, a child process, and its behaviour on SIGTERM.

Behaviour by FAKE_VLLM: `ok`, `dies` (a traceback like vLLM's while loading), `hangs` (never opens its port).
"""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--model")
parser.add_argument("--served-model-name")
options, _ = parser.parse_known_args()
fake = os.environ.get("FAKE_VLLM", "ok")

# A child in a separate session, which a runner that only kills process groups would leave running.
SLEEPER = "import time; time.sleep(300)"
subprocess.Popen([sys.executable, "-c", SLEEPER, options.model], start_new_session=True)
print("(APIServer pid=1) INFO 11-21 01:57:49 [api_utils.py:286] non-default args: {}", flush=True)
print("(Worker pid=3) INFO 11-21 01:58:10 [cpu_model_runner.py:68] Starting to load model ...", flush=True)
if fake == "dies":
    print("(EngineCore pid=2) ERROR 11-21 01:58:11 [core.py:900] Traceback (most recent call last):")
    print("(EngineCore pid=2) ERROR 11-21 01:58:11 [core.py:900] ValueError: the model's config has no layers")
    print("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    sys.exit(1)
if fake == "hangs":
    time.sleep(300)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({"version": "9.9.9"} if self.path == "/version" else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(asked["max_tokens"]):
            delta = {"role": "assistant", "content": f"word{number} "}
            self.event(
                json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]})
            )
            time.sleep(0.02)
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("INFO:     Application startup complete.", flush=True)
server.serve_forever()
