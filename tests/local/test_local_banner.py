"""The banner's commands, executed exactly as printed."""

import http.server
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from local import banner, folders, gateway, preflight
from local.machine import Machine

MODEL = "org/it's-a-model"


class Endpoint(http.server.BaseHTTPRequestHandler):
    key: ClassVar[str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.headers["Authorization"] == f"Bearer {self.key}" and asked["model"] == MODEL
        message = {"role": "assistant", "content": "It works."}
        answer: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL}
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer if good else {"error": {"message": "no"}}).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def base_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    state = tmp_path / "a folder"
    state.mkdir()
    monkeypatch.setattr(folders, "API_KEY", state / "api-key")
    monkeypatch.setattr(folders, "API_KEYS", state / "api-keys.json")
    monkeypatch.setattr(folders, "CURL_HEADERS", state / "curl-headers")
    Endpoint.key = gateway.make_key()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_the_curl_line_works_as_printed(base_url: str) -> None:
    line = banner.curl_line(base_url, MODEL)
    answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert json.loads(answer)["choices"][0]["message"]["content"] == "It works."


def test_the_sdk_lines_work_as_printed(base_url: str) -> None:
    program = banner.sdk_lines(base_url, MODEL)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert answer == "It works.\n"


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
@pytest.mark.parametrize("before", ["", "internal.example"])
def test_in_a_shell_with_a_proxy_the_lines_work_as_printed(
    base_url: str, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    assert banner.proxy_lines() == []
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{preflight.free_port()}")
    monkeypatch.setenv("no_proxy", before)
    program = shlex.join([sys.executable, "-c", banner.sdk_lines(base_url, MODEL)])
    script = "\n".join([*banner.proxy_lines(), banner.curl_line(base_url, MODEL), program])
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.count("It works.") == 2, done.stderr
    monkeypatch.setenv("no_proxy", f"{before},127.0.0.1,localhost")
    assert banner.proxy_lines() == []


def test_the_key_is_kept_readable_by_its_owner_only_and_in_no_line(base_url: str) -> None:
    key = gateway.make_key()
    assert key == Endpoint.key
    assert [path.stat().st_mode & 0o777 for path in (folders.API_KEY, folders.API_KEYS, folders.CURL_HEADERS)] == [
        0o600
    ] * 3
    machine = Machine("Linux", "x86_64", 2, frozenset(), 8, 4)
    note = banner.stand_in_line(MODEL, "the Hugging Face Hub cannot be reached")
    facts = banner.Shown(base_url, "http://127.0.0.1:9090/metrics", MODEL, "0.32.0", "org/vllm:v0.33.0", note)
    shown = banner.banner(facts, machine, 85.0)
    assert key not in shown
    assert "Ready after 1:25" in shown
    assert "vLLM 0.32.0 on the CPU" in shown
    assert (
        f"STAND-IN: {MODEL} is not available (the Hugging Face Hub cannot be reached). A tiny random model answers under "
        "its name: the text is noise."
    ) in shown
    for line in (base_url, str(folders.API_KEY), "http://127.0.0.1:9090/metrics", "make chat", "Ctrl-C stops."):
        assert line in shown.partition("\nEndpoint")[2], line


@pytest.mark.parametrize(
    ("here", "image", "expected"),
    [
        ("0.32.0", "vllm/vllm-openai:v0.33.0",
         "vLLM 0.32.0 here, but the stack deploys 0.33.0 (vllm/vllm-openai:v0.33.0): arguments, defaults and outputs may "
         "differ between the two."),
        ("0.33.0+cpu", "vllm/vllm-openai:v0.33.0",
         "vLLM 0.33.0+cpu here, the same version as the stack deploys (vllm/vllm-openai:v0.33.0)."),
        ("0.33.0", "registry.example:5000/vllm@sha256:0123",
         "vLLM 0.33.0 here; the stack deploys registry.example:5000/vllm@sha256:0123, whose name contains no version."),
        ("0.33.0", "org/vllm:latest",
         "vLLM 0.33.0 here; the stack deploys org/vllm:latest, whose name contains no version."),
    ],
)  # fmt: skip
def test_both_versions_are_named_and_a_difference_is_said(here: str, image: str, expected: str) -> None:
    assert banner.versions_line(here, image) == expected
