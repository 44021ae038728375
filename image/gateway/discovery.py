"""Discovery of replicas: fixed addresses, a DNS name (Cloud Map on ECS, a headless Service), or a file."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from image.gateway.backends import Address, DiscoverySetting, DnsDiscovery, FileDiscovery, FixedDiscovery, address


class DiscoveryError(Exception):
    """Discovery failed; the addresses found before remain in use."""


class Discovery(Protocol):
    """Finds the addresses of replicas. Readiness is probed separately."""

    async def addresses(self) -> frozenset[Address]:
        """All addresses, possibly none; raises DiscoveryError on failure."""


class Fixed:
    """Addresses that never change."""

    def __init__(self, setting: FixedDiscovery) -> None:
        self._addresses = frozenset(setting.addresses)

    async def addresses(self) -> frozenset[Address]:
        """The fixed addresses."""
        return self._addresses


class Dns:
    """Every A record of a name."""

    # "No such name" and "no such record" mean that nothing is running. Cloud Map returns them for an empty service.
    _NOBODY = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

    def __init__(self, setting: DnsDiscovery) -> None:
        self._setting = setting

    async def addresses(self) -> frozenset[Address]:
        """The addresses that the name resolves to now."""
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
    """One `http://HOST:PORT` per line of a file. The writer must replace the file atomically."""

    def __init__(self, setting: FileDiscovery) -> None:
        self._path = setting.path

    async def addresses(self) -> frozenset[Address]:
        """The addresses in the file now; none if the file does not exist."""
        try:
            return frozenset(address(line) for line in self._path.read_text().splitlines() if line.strip())
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            raise DiscoveryError(f"{self._path}: {error}") from error


def discovery_of(setting: DiscoverySetting) -> Discovery:
    """The discovery for a setting."""
    if isinstance(setting, FileDiscovery):
        return File(setting)
    return Fixed(setting) if isinstance(setting, FixedDiscovery) else Dns(setting)
