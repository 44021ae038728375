"""Where the replicas are: addresses that never change, a DNS name (Cloud Map on ECS, a headless Service), or a file."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from image.gateway.backends import Address, DiscoverySetting, DnsDiscovery, FileDiscovery, FixedDiscovery, address


class DiscoveryError(Exception):
    """Nobody could say where the replicas are now: what was known stays."""


class Discovery(Protocol):
    """Says where replicas are. Whether one is ready is asked of itself."""

    async def addresses(self) -> frozenset[Address]:
        """All addresses, perhaps none; raises DiscoveryError when that cannot be said."""


class Fixed:
    """Addresses that never change."""

    def __init__(self, setting: FixedDiscovery) -> None:
        self._addresses = frozenset(setting.addresses)

    async def addresses(self) -> frozenset[Address]:
        """The same each time."""
        return self._addresses


class Dns:
    """Every A record of a name."""

    # An answer of no such name, or no such record, is an answer: nothing runs. Cloud Map gives it for an empty service.
    _NOBODY = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

    def __init__(self, setting: DnsDiscovery) -> None:
        self._setting = setting

    async def addresses(self) -> frozenset[Address]:
        """What the name resolves to now."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._setting.host, self._setting.port, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            if error.errno in self._NOBODY:
                return frozenset()
            raise DiscoveryError(f"{self._setting.host}: {error.strerror}") from error
        return frozenset((str(address[0]), self._setting.port) for *_, address in found)


class File:
    """Every line of a file: `http://HOST:PORT`. Whoever writes it replaces it whole, so that nobody reads half of it."""

    def __init__(self, setting: FileDiscovery) -> None:
        self._path = setting.path

    async def addresses(self) -> frozenset[Address]:
        """What the file says now; one that is not there says that nothing runs."""
        try:
            return frozenset(address(line) for line in self._path.read_text().splitlines() if line.strip())
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            raise DiscoveryError(f"{self._path}: {error}") from error


def discovery_of(setting: DiscoverySetting) -> Discovery:
    """The discovery a setting names."""
    if isinstance(setting, FileDiscovery):
        return File(setting)
    return Fixed(setting) if isinstance(setting, FixedDiscovery) else Dns(setting)
