"""The benchmark's own HTTP client and its load: failures are counted, never raised; TLS is checked."""

import asyncio
import contextlib
import datetime
import socket
import ssl
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smoke_tests.benchmark.__main__ import main
from smoke_tests.benchmark.calibration import calibrate
from smoke_tests.benchmark.load import LoadRun, Progress, Run
from smoke_tests.benchmark.record import Lengths
from smoke_tests.benchmark.stream_client import Endpoint
from smoke_tests.benchmark.workload import TokenScale, Workload
from smoke_tests.errors import TargetError
from smoke_tests.target import Target
from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, serving
from tests.smoke_tests.paced_server import PacedServer, paced

WORKLOAD = Workload(MODEL, "chat", Lengths(low=20, high=20), Lengths(low=4, high=4))


def load(endpoint: str, requests: int = 4, timeout_seconds: float = 10.0, key: str | None = KEY, **options: Any) -> Run:
    sender = Endpoint(endpoint, key)
    messages = [sender.message(WORKLOAD.path, WORKLOAD.body(number)) for number in range(requests)]
    return asyncio.run(LoadRun(sender, timeout_seconds, **options).closed(messages, 2))


def kinds(run: Run) -> set[str]:
    return {result.failure for result in run.results}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("drops_done", "cut_short"),
        ("drops_usage", "no_usage"),
        ("answers_nothing", "no_tokens"),
        ("streams_as_json", "not_a_stream"),
        ("answers_200_with_an_error", "not_a_stream"),
        ("", ""),
    ],
)
def test_a_fault_is_counted_by_its_kind(fault: str, kind: str) -> None:
    with serving(FakeOpenAIServer(fault)) as server:
        run = load(server.endpoint)
    assert len(run.results) == 4
    assert kinds(run) == {kind}
    assert run.duration_seconds > 0


def test_refusals_are_counted_with_their_message() -> None:
    with serving(FakeOpenAIServer()) as server:
        run = load(server.endpoint, key="sk-wrong")
    assert {(result.failure, result.detail) for result in run.results} == {("http_401", "wrong API key")}


CHUNKS = (
    b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)


def head(status: str = "200 OK", *more: str, content_type: str = "text/event-stream") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(CHUNKS)}", *more)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + head() + CHUNKS, "", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + head() + CHUNKS, "", ""),
        (head(content_type="Text/Event-Stream;charset=UTF-8") + CHUNKS, "", ""),
        (head("200 OK", "Content-Encoding: gzip") + CHUNKS, "compressed", "Content-Encoding: gzip"),
        (head("307 Temporary Redirect", "Location: https://u:pl4nted@x.example/v1?key=pl4nted") + CHUNKS, "http_307",
         "it redirects to https://***@x.example/v1"),
    ],
)  # fmt: skip
def test_what_proxies_put_before_and_around_an_answer(answer: bytes, kind: str, detail: str) -> None:
    """Interim responses, another case, a compression that nobody asked for, and redirects."""

    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(done := asyncio.Event())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while request := await reader.readuntil(b"\r\n\r\n"):
                length = int(request.lower().split(b"content-length: ")[1].split(b"\r")[0])
                await reader.readexactly(length)
                writer.write(answer)
        writer.close()
        await writer.wait_closed()
        done.set()

    async def run() -> Run:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            sender = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
            message = sender.message(WORKLOAD.path, WORKLOAD.body(0))
            found = await LoadRun(sender, 10.0).closed([message] * 4, 2)
            for each in ended:
                await each.wait()
            return found

    results = asyncio.run(run()).results
    assert [result.failure for result in results] == [kind] * 4
    assert all(detail in result.detail and "pl4nted" not in result.detail for result in results)


def test_a_hanging_server_is_a_timeout() -> None:
    with paced(PacedServer(ttft_seconds=30)) as server:
        run = load(server.endpoint, requests=2, timeout_seconds=0.1)
    assert kinds(run) == {"timeout"}


def test_nobody_there_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    run = load(f"http://127.0.0.1:{port}")
    assert kinds(run) == {"connect"}
    assert "ConnectionRefusedError" in run.results[0].detail


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", "no_answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no_answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata",
            "cut_short",
        ),
    ],
    ids=["nothing", "no_http", "half"],
)
def test_a_server_that_breaks_off_is_counted(answer: bytes, kind: str) -> None:
    async def serve_and_load() -> Run:
        async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
            sender = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
            messages = [sender.message("/", b"{}")] * 4
            return await LoadRun(sender, 10.0).closed(messages, 2)

    assert kinds(asyncio.run(serve_and_load())) == {kind}


def test_one_connection_each_serves_all_requests() -> None:
    with serving(FakeOpenAIServer()) as server:
        run = load(server.endpoint, requests=10)
    assert kinds(run) == {""}
    assert server.connections == 2


def test_progress_tells_tokens_while_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smoke_tests.benchmark.load.PROGRESS_SECONDS", 0.01)
    seen: list[Progress] = []
    with paced(PacedServer(ttft_seconds=0.03, gap_seconds=0.02)) as server:
        load(server.endpoint, requests=2, on_progress=seen.append)
    assert any(progress.running == 2 and 0 < progress.token_chunks < 8 for progress in seen)


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("refuses", [False, True])
def test_calibration_finds_prompt_length_and_ignore_eos(api: str, refuses: bool) -> None:
    with serving(FakeOpenAIServer()) as server:
        server.refuse_ignore_eos = refuses
        workload = calibrate(Target(server.endpoint, KEY, MODEL), Workload(MODEL, api, Lengths(low=77, high=77), None))
    assert workload.ignore_eos is not refuses
    # The fake server's template takes four tokens, and a word is one.
    assert workload.scale == TokenScale(1.0, 4.0 if api == "chat" else 0.0)


def test_an_endpoint_that_refuses_the_probe_is_one_line() -> None:
    with serving(FakeOpenAIServer()) as server, pytest.raises(TargetError, match="HTTP 404: no such model: other"):
        calibrate(Target(server.endpoint, KEY, "other"), replace(WORKLOAD, model="other"))


def test_a_failed_request_makes_the_command_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    arguments = ["--api-key-file", str(key_file), "--requests", "6", "--concurrency", "3", "--max-tokens", "4"]
    with serving(FakeOpenAIServer("drops_done")) as server:
        arguments += ["--warmup", "0"]
        assert main(["--endpoint", server.endpoint, *arguments]) == 1
        assert "failed: cut_short x 6" in capsys.readouterr().out
        key_file.write_text("sk-wrong")
        assert main(["--endpoint", server.endpoint, *arguments]) == 2
        assert "rejected the API key" in capsys.readouterr().err


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_spoken_and_checked(certificate: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with paced(PacedServer(ttft_seconds=0.01, gap_seconds=0.001), context) as server:
        run = load(server.endpoint)
    assert kinds(run) == ({""} if trusted else {"connect"})
    if not trusted:
        assert "CERTIFICATE_VERIFY_FAILED" in run.results[0].detail
