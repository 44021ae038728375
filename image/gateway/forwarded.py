"""Whose request it is, where proxies stand before the gateway."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable

from image.gateway.settings import Network


def believed_client(peer: str, forwarded_for: bytes | None, trusted: Callable[[str], bool]) -> str:
    """The client's address: the peer's, or what proxies that are trusted say of theirs in X-Forwarded-For. `trusted`: see `trusted_by`."""
    if forwarded_for is None:
        return peer
    address = peer
    for part in reversed(forwarded_for.decode("latin-1").split(",")):
        if not trusted(address):
            break
        try:
            address = str(ipaddress.ip_address(part.strip()))
        except ValueError:
            break
    return address


@functools.cache
def trusted_by(networks: tuple[Network, ...]) -> Callable[[str], bool]:
    """Whether an address is in one of the networks."""

    @functools.lru_cache(4096)
    def trusted(address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in networks)

    return trusted
