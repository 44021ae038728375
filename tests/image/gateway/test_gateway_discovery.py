from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from image.gateway.backends import DnsDiscovery, FileDiscovery, FixedDiscovery
from image.gateway.discovery import DiscoveryError, discovery_of
from tests.image.gateway.conftest import StartEngine, StartGateway


async def test_fixed() -> None:
    discovery = discovery_of(FixedDiscovery((("a", 1), ("b", 2))))
    assert await discovery.addresses() == {("a", 1), ("b", 2)}


async def test_a_file_that_changes_vanishes_or_is_nonsense(tmp_path: Path) -> None:
    file = tmp_path / "replicas"
    discovery = discovery_of(FileDiscovery(file))
    assert await discovery.addresses() == frozenset(), "not there: nothing runs"
    file.write_text("http://127.0.0.1:8001\n\nhttp://gpu-host:8000\n")
    assert await discovery.addresses() == {("127.0.0.1", 8001), ("gpu-host", 8000)}
    file.write_text("127.0.0.1:8001\n")
    with pytest.raises(DiscoveryError, match=r"'127\.0\.0\.1:8001' is not of the form http://HOST:PORT"):
        await discovery.addresses()


async def test_a_name_goes_all_the_way(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    gateway = await start_gateway(discovery=discovery_of(DnsDiscovery("localhost", engine.port)), ready=1)
    assert (await gateway.chat()).status_code == 200


async def test_a_name_that_changes_vanishes_or_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)), (2, 1, 6, "", ("10.0.0.2", 80))],
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ]

    class Loop:
        async def getaddrinfo(self, host: str, port: int, **options: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr("image.gateway.discovery.asyncio.get_running_loop", Loop)
    discovery = discovery_of(DnsDiscovery("engine.local", 80))
    assert await discovery.addresses() == {("10.0.0.1", 80), ("10.0.0.2", 80)}
    assert await discovery.addresses() == frozenset(), "no such name: nothing runs"
    with pytest.raises(DiscoveryError, match=r"engine\.local: Temporary failure"):
        await discovery.addresses()


async def test_while_discovery_fails_what_was_known_stays(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()

    class Failing:
        calls = 0

        async def addresses(self) -> frozenset[tuple[str, int]]:
            self.calls += 1
            if self.calls > 1:
                raise DiscoveryError("no name server")
            return frozenset({("127.0.0.1", engine.port)})

    failing = Failing()
    gateway = await start_gateway(discovery=failing, ready=1, discovery_seconds=0.01)
    while failing.calls < 4:
        assert (await gateway.chat()).status_code == 200
    assert len(gateway.log("discovery_failed")) == 1
