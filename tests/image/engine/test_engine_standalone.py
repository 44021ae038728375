"""Gateway and engine in one container: a real gateway, and a fake vLLM that serves, dies or does not exit."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub
from image.engine import standalone
from image.engine.arguments import EngineError, values
from image.engine.standalone import gateway_environment
from local.preflight import free_port
from tests.image.engine.conftest import MODEL

ROOT = Path(__file__).parents[3]
FAKE_VLLM = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def send(self, body):
        self.send_response(200); self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self): self.send(b"{}")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        open("asked", "w").close()
        while not os.path.exists("answer"): time.sleep(0.01)
        if os.path.exists("die"): os._exit(9)
        self.send(json.dumps({"choices": [], "key": self.headers.get("Authorization", ""), "vllm_key": "VLLM_API_KEY" in os.environ}).encode())

arguments = sys.argv
port = int(arguments[arguments.index("--port") + 1])
assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
def stop(*_):
    open("engine-told", "w").close()
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, stop)
server.serve_forever(0.02)
"""


class Container:
    """The process that a container of the image would run."""

    def __init__(self, folder: Path, hub: FakeHub, **environment: str) -> None:
        self.folder, self.port = folder, free_port()
        module = folder / "site/vllm/entrypoints/openai/api_server.py"
        module.parent.mkdir(parents=True)
        for package in module.parents[:3]:
            (package / "__init__.py").touch()
        module.write_text(FAKE_VLLM)
        ports = f"import image.engine.standalone as s; s.ENGINE_PORT, s.METRICS_PORT = {free_port()}, {free_port()}"
        values = {
            "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'site'}", "PORT": str(self.port),
            "MODEL_NAME": MODEL, "HF_HOME": str(folder / "weights"), "HF_ENDPOINT": hub.address, "ENGINE_DEVICE": "cpu",
            "VLLM_API_KEY": "sk-1", "GATEWAY_DRAIN_DELAY_SECONDS": "0", "GATEWAY_PROBE_SECONDS": "0.05",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{ports}; raise SystemExit(s.main())"],
            env=values | environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def ask(self) -> Any:
        body = json.dumps({"model": MODEL, "prompt": "x"}).encode()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-1"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", "/v1/completions", body, headers)
            with connection.getresponse() as answer:
                return json.load(answer)
        finally:
            connection.close()

    def until(self, what: Callable[[], bool]) -> None:
        while not what():
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.01)

    def reaches_gateway(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            with connection.getresponse() as answer:
                return answer.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def children(self) -> dict[str, int]:
        """gateway and engine -> process id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    line = (folder / "cmdline").read_bytes()
                    found["gateway" if b"image.gateway" in line else "engine"] = int(folder.name)
            except OSError:
                continue
        return found

    def file(self, name: str) -> Path:
        return self.folder / name

    def end(self) -> tuple[int, str]:
        output = self.process.communicate(timeout=20)[0]
        return self.process.returncode, output


@pytest.fixture
def container(tmp_path: Path, hub: FakeHub) -> Iterator[Container]:
    running = Container(tmp_path, hub)
    yield running
    if running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.communicate()


def asking(container: Container) -> tuple[threading.Thread, list[Any]]:
    """A request in the background, once it has reached the engine."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(container.ask())
        except (OSError, http.client.HTTPException) as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    container.until(container.reaches_gateway)
    thread.start()
    container.until(container.file("asked").exists)
    return thread, answers


def test_a_request_is_answered_and_sigterm_drains_the_gateway_before_the_engine(container: Container) -> None:
    thread, answers = asking(container)
    container.process.send_signal(signal.SIGTERM)
    container.until(lambda: not container.is_ready())
    assert not container.file("engine-told").exists(), "the engine was told to stop under a request"
    container.file("answer").touch()
    thread.join(20)
    assert answers == [{"choices": [], "key": answers[0]["key"], "vllm_key": False}]
    code, output = container.end()
    assert code == 0, output
    assert output.rstrip().endswith("engine: stopped")
    assert container.file("engine-told").exists()


def test_an_engine_that_dies_ends_the_container(container: Container) -> None:
    container.file("die").touch()
    container.file("answer").touch()
    thread, _ = asking(container)
    thread.join(20)
    code, output = container.end()
    assert code == 1
    assert "error: vLLM exited with exit code 9; the container exits, and its restart policy" in output


def test_a_gateway_that_dies_ends_the_container_and_the_engine(container: Container) -> None:
    container.until(lambda: len(container.children()) == 2)
    gateway, engine = container.children()["gateway"], container.children()["engine"]
    os.kill(gateway, signal.SIGKILL)
    code, output = container.end()
    assert code == 1
    assert "error: the gateway exited with signal 9" in output
    assert not Path(f"/proc/{engine}").exists()


def test_a_second_sigterm_ends_both_at_once(container: Container) -> None:
    thread, _ = asking(container)
    children = container.children()
    container.process.send_signal(signal.SIGTERM)
    container.until(lambda: not container.is_ready())
    container.process.send_signal(signal.SIGTERM)
    assert container.end()[0] == 0
    thread.join(20)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children.values())


def test_what_cannot_work_ends_the_gateway_too(tmp_path: Path, hub: FakeHub) -> None:
    hub.models[MODEL].gated = True
    code, output = Container(tmp_path, hub, MAX_CONCURRENCY="3").end()
    assert code == 2
    assert "engine: error: weights: acme/tiny is gated" in output
    assert output.count("no effect here: MAX_CONCURRENCY") == 1


def test_a_stop_before_vllm_runs_ends_both_at_once(tmp_path: Path, hub: FakeHub) -> None:
    hub.stalled = hub.stall
    container = Container(tmp_path, hub)
    assert hub.asked.wait(20)
    children = container.children()
    began = time.monotonic()
    container.process.send_signal(signal.SIGTERM)
    code, output = container.end()
    assert time.monotonic() - began < 2
    assert code == 128 + signal.SIGTERM, output
    assert output.rstrip().endswith("engine: stopped before vLLM was started")
    assert not any(Path(f"/proc/{pid}").exists() for pid in children.values())


def test_there_is_no_open_endpoint_by_accident() -> None:
    with pytest.raises(
        EngineError, match="VLLM_API_KEY: not set; set it to the key that clients must send, or GATEWAY_KEYS=none"
    ):
        gateway_environment({}, "a/b", 8000)
    assert gateway_environment({"GATEWAY_KEYS": "none"}, "a/b", 8000)["GATEWAY_KEYS"] == "none"
    told = gateway_environment(
        {"API_KEY": "sk-1", "HF_TOKEN": "hf_1", "ENGINE_GATEWAY_PACKAGES": "/p", "PYTHONPATH": "/app"}, "a/b", 80
    )
    assert (told["GATEWAY_KEYS"], told["PYTHONPATH"]) == ("env:API_KEY", "/p:/app")
    assert "HF_TOKEN" not in told


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["a/b", "--served-model-name", "chat", "gpt-4o", "--seed", "1"], ["chat", "gpt-4o"]),
        (["a/b", "--served-model-name=chat", "--seed", "1"], ["chat"]),
        (["a/b", "--served-model-name", "x", "--seed", "1", "--served-model-name", "chat"], ["chat"]),
        (["a/b", "--seed", "1"], []),
    ],
)
def test_each_name_that_vllm_is_given_is_the_gateways_too(arguments: list[str], names: list[str]) -> None:
    assert values(arguments, "--served-model-name") == names
    told = gateway_environment({"API_KEY": "sk-1"}, (names or arguments)[0], 80, names[1:])
    assert told.get("GATEWAY_ALIASES", "") == ",".join(names[1:])


@pytest.mark.parametrize("port", ["8001", "9090"])
def test_ports_of_the_inside_are_not_taken(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "a/b", "--port", port])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert standalone.main() == 2
    assert f"PORT: found {port}, which is taken inside the container; set another" in capsys.readouterr().err
