"""The benchmark's own client behind a proxy: absolute requests for http, a tunnel for https, nothing for this machine."""

import asyncio
import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smoke_tests.benchmark import stream_client
from smoke_tests.benchmark.stream_client import Endpoint
from smoke_tests.errors import TargetError


class Server(http.server.BaseHTTPRequestHandler):
    """Answers POST with 200, and CONNECT by becoming a TLS server of the host that was asked for."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]
    tls: ssl.SSLContext | None = None
    status = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((f"POST {self.path} {self.headers['Host']}", self.headers.get("Proxy-Authorization", "")))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.wfile.flush()

    def do_CONNECT(self) -> None:
        self.asked.append((f"CONNECT {self.path}", self.headers.get("Proxy-Authorization", "")))
        self.send_response(self.status)
        self.end_headers()
        if self.status == 200 and self.tls:
            with self.tls.wrap_socket(self.connection, server_side=True) as inside:
                self.connection = inside
                self.rfile, self.wfile = inside.makefile("rb"), inside.makefile("wb")
                self.handle_one_request()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    handler = type("Handler", (Server,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:pw@127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        yield handler
        server.shutdown()
        thread.join()


def ask(endpoint: Endpoint) -> int:
    async def once() -> int:
        connection = await endpoint.connect()
        try:
            return (await connection.request(endpoint.message("/v1/x", b"{}"), lambda body, now: None)).status
        finally:
            connection.close()
            await asyncio.sleep(0)  # the transport closes in the next turn of the loop

    return asyncio.run(once())


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A TLS server's context for llm.test, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "llm.test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("llm.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / "tls.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))


def test_http_is_asked_with_the_whole_address(proxy: type[Server]) -> None:
    endpoint = Endpoint("http://llm.test:8000/a", "key")
    assert ask(endpoint) == 200
    assert proxy.asked == [("POST http://llm.test:8000/a/v1/x llm.test:8000", "Basic bWU6cHc=")]
    assert "pw" not in endpoint.proxy


def test_https_is_asked_through_a_tunnel(proxy: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is sent inside of the tunnel, and the proxy's password outside of it."""
    proxy.tls, trusting = contexts(tmp_path)
    monkeypatch.setattr(stream_client.ssl, "create_default_context", lambda: trusting)  # type: ignore[attr-defined]
    assert ask(Endpoint("https://llm.test/a", "key")) == 200
    assert proxy.asked == [("CONNECT llm.test:443", "Basic bWU6cHc="), ("POST /a/v1/x llm.test", "")]


def test_a_proxy_that_refuses_is_one_line(proxy: type[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.status = 407
    with pytest.raises(OSError, match=r"the proxy http://127.0.0.1:\d+ answered CONNECT with 'HTTP/1.1 407"):
        ask(Endpoint("https://llm.test", "key"))
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(TargetError, match=r"http_proxy: .*is not a URL"):
        Endpoint("http://llm.test", "key")


def test_this_machine_and_what_no_proxy_names_are_asked_directly(
    proxy: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("http://127.0.0.5:8000", "http://[::1]:8000", "http://localhost", "https://api.localhost"):
        assert Endpoint(url, "key").proxy == "", url
    monkeypatch.setenv("no_proxy", "llm.test")
    assert Endpoint("http://llm.test:8000", "key").proxy == ""
    assert Endpoint("http://other.test", "key").proxy
