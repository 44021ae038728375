"""A stack or shell with a proxy: local addresses bypass it, and the Hub is accessed through it."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from clients.chat import Chat
from clients.openai_example import connect
from image.engine import watcher
from image.engine.arguments import EngineError
from image.engine.hub import Hub
from image.engine.patience import HubUnreachableError
from infra.planning.catalog.models import UnknownModelError, fetch_config
from infra.planning.plan import ServingPlan
from infra.planning.proxies import with_direct_addresses
from infra.stack_files import ROOT
from infra.web_address import use_no_proxy_for_this_machine
from local import gateway as local_gateway
from local import supervision
from local.engine import Engine
from local.failures import LocalError
from local.loopback import open_loopback
from local.weights import hub_is_reachable, hub_problem
from smoke_tests.benchmark.deployment import gateway_info, prefix_cache_counters
from smoke_tests.benchmark.stream_client import Endpoint
from smoke_tests.connections import async_client, openai_client, sync_client
from smoke_tests.target import Target
from tests.infra.kubernetes.rendering import render
from tests.infra.planning.plans import plan
from tests.infra.program import run_program

METADATA = ("169.254.169.254", "169.254.170.2")


HOSTS = ("127.0.0.1", "localhost", "::1")


class Server:
    """An HTTP server on a free port of this machine that records its requests."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815 - as the base class names them

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.asked = asked
        kind = type("Kind", (http.server.ThreadingHTTPServer,), {"address_family": family(host)})
        self._server = kind(("127.0.0.1" if host == "localhost" else host, 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A proxy in every variable, without any exceptions."""
    made = Server()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, made.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.stop()


def engine_at(server: Server, folder: Path) -> Engine:
    engine = Engine.__new__(Engine)
    engine.port = server.port
    return engine


def version(engine: Engine) -> None:
    with pytest.raises(KeyError):
        engine.version()


CALLS: dict[str, Callable[[Server, Path], Any]] = {
    "the engine's watcher": lambda server, folder: watcher._answers(f"{server.url}/health"),
    "the local engine's health": lambda server, folder: engine_at(server, folder).is_healthy(),
    "the local engine's version": lambda server, folder: version(engine_at(server, folder)),
    "the local supervisor": lambda server, folder: supervision._info(server.url),
    "anything local": lambda server, folder: open_loopback(server.url, 5).close(),
    "the local gateway's first token": lambda server, folder: local_gateway.first_token(server.url, "m", "k"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_what_is_on_this_machine_is_asked_past_a_proxy(
    proxy: Server, server: Server, tmp_path: Path, call: Callable[[Server, Path], Any]
) -> None:
    with contextlib.suppress(LocalError):  # no text comes of what the server here answers
        call(server, tmp_path)
    assert (len(server.asked), proxy.asked) == (1, [])


async def first_answer(endpoint: str) -> None:
    async with async_client(Target(endpoint), timeout=httpx2.Timeout(5)) as client:
        await client.get("/health")


def chat_info(endpoint: str) -> None:
    with connect(f"{endpoint}/v1", "k") as client:
        Chat(client, "m")


# Each kind of client that takes an address from a person, without the NO_PROXY that programs set when they start.
CLIENTS: dict[str, Callable[[str], Any]] = {
    "conformance tests": lambda url: sync_client(Target(url), timeout=5).get("/health"),
    "conformance tests, OpenAI SDK": lambda url: openai_client(Target(url), timeout=5).models.list(),
    "wait for the first answer": lambda url: asyncio.run(first_answer(url)),
    "benchmark, gateway": lambda url: gateway_info(Target(url)),
    "benchmark, engine counters": lambda url: prefix_cache_counters(Target(url)),
    "example client": lambda url: connect(f"{url}/v1", "k").models.list(),
    "chat": chat_info,
    "plan": lambda url: fetch_config("acme/tiny", ""),
    "make local, Hub": lambda url: hub_is_reachable({"HF_ENDPOINT": url}),
    "make local, model": lambda url: hub_problem("acme/tiny", "", {"HF_ENDPOINT": url}),
    "engine, weights": lambda url: Hub({"HF_ENDPOINT": url}).listing("acme/tiny", "main"),
    "monitoring": lambda url: open_loopback(f"{url}/metrics", 5).close(),
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_asks_this_machine_past_a_proxy(
    client: str, host: str, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        server = Server(host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    try:
        # The server answers {} to everything, which some clients reject.
        with contextlib.suppress(
            EngineError, HubUnreachableError, UnknownModelError, openai.OpenAIError, TypeError, ValueError
        ):
            CLIENTS[client](server.url)
    finally:
        server.stop()
    assert proxy.asked == []
    assert server.asked


def test_the_benchmark_connects_to_this_machine_itself(proxy: Server) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "127.0.0.7", "api.localhost", "127.1"):
        assert Endpoint(f"http://{host}:8000", None).proxy == "", host
    assert Endpoint("http://llm.example", None).proxy == proxy.url


# The files that send requests. What a new one asks of this machine must be a client above.
SENDERS = {
    "clients/chat.py", "clients/openai_example.py", "image/engine/hub.py", "image/engine/watcher.py", "infra/containers.py",
    "infra/web_address.py", "local/banner.py", "local/loopback.py", "smoke_tests/connections.py",
}  # fmt: skip
SENDS = re.compile(
    r"\b(?:urlopen|build_opener|(?:httpx2?|aiohttp)\.(?:get|post|request|stream|\w*Client|\w*Session)|"
    r"(?:Async)?OpenAI|DefaultHttpxClient)\("
)


def test_every_file_that_sends_requests_is_known() -> None:
    folders = ("smoke_tests", "clients", "infra", "local", "image")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if SENDS.search(path.read_text())} == SENDERS


def command_of(name: str, server: Server) -> list[str]:
    """The health check of a container, as the task definition has it, at another port."""
    program = run_program("dev", engineEnvironment=[f"HTTP_PROXY={server.url}"])
    container = program.one("TaskDefinition", name).container()
    kind, *command = container["healthCheck"]["command"]
    assert kind == "CMD"
    port = {"engine": 8000, "gateway": 8080}[name]
    return [sys.executable if word == "python3" else word.replace(f":{port}/", f":{server.port}/") for word in command]


@pytest.mark.parametrize("name", ["engine", "gateway"])
def test_a_containers_health_check_is_not_asked_of_a_proxy(proxy: Server, server: Server, name: str) -> None:
    command = command_of(name, server)
    assert subprocess.run(command, timeout=30).returncode == 0
    assert (server.asked, proxy.asked) == (["/health"], [])
    server.stop()
    assert subprocess.run(command, timeout=30, capture_output=True).returncode != 0
    assert proxy.asked == []


def engine_environments(**values: Any) -> dict[str, dict[str, str]]:
    """The engine's environment in each place where it is rendered, and that of the task that fetches the weights."""
    config = {f"vllm-endpoint:{key}": value for key, value in values.items()}
    program = run_program("dev", **config)
    tasks = {task.name: task.environment() for task in program.all("TaskDefinition") if "gateway" not in task.name}
    planned: ServingPlan = plan(**values)
    return {"plan": dict(planned.engine.environment), "kubernetes": render(**values).environment("engine"), **tasks}


def test_no_proxy_is_set_where_a_stack_names_a_proxy() -> None:
    for variable in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        given = [f"{variable}=http://proxy.example:3128", "NO_PROXY=mirror.example,127.0.0.1"]
        found = engine_environments(engineEnvironment=given)
        assert len(found) >= 3
        for place, environment in found.items():
            assert environment[variable] == "http://proxy.example:3128", place
            for name in ("NO_PROXY", "no_proxy"):
                names = environment[name].split(",")
                assert names[:2] == ["mirror.example", "127.0.0.1"], "what the stack says comes first"
                assert {"127.0.0.1", "localhost", "::1", *METADATA} <= set(names)
                assert len(names) == len(set(names))
                assert not any("huggingface" in direct for direct in names)


def test_no_proxy_is_left_alone_where_no_proxy_is_named() -> None:
    for environment in engine_environments().values():
        assert not {"NO_PROXY", "no_proxy"} & environment.keys()
    assert with_direct_addresses({"HTTP_PROXY": "", "NO_PROXY": "a"}) == {"HTTP_PROXY": "", "NO_PROXY": "a"}


def test_the_hub_is_asked_through_the_proxy_and_metadata_is_not(proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = plan(engineEnvironment=[f"HTTP_PROXY={proxy.url}"]).engine.environment
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, rendered[name])
    with pytest.raises((EngineError, ValueError, KeyError, TypeError)):  # the proxy's response is not a listing
        Hub({"HF_ENDPOINT": "http://hub.example"}).listing("acme/tiny", "main")
    assert proxy.asked
    assert all(path.startswith("http://hub.example/") for path in proxy.asked)
    for address in METADATA:
        assert urllib.request.proxy_bypass(address)


def test_the_smoke_tests_ask_this_machine_directly(proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "mirror.example")
    monkeypatch.setenv("no_proxy", "")
    use_no_proxy_for_this_machine("https://llm.example.com", "http://127.0.0.7:8000")
    for host in ("localhost", "api.localhost", "127.0.0.1", "127.0.0.7", "mirror.example"):
        assert urllib.request.proxy_bypass(host), host
    assert not urllib.request.proxy_bypass("llm.example.com")
