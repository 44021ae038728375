"""Whose request it is, where proxies stand before the gateway."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable

from image.gateway.settings import Network


def believed_client(peer: str, forwarded_for: bytes | None, trusted: Callable[[str], bool]) -> str:
    """The client's address: the peer's, or what proxies that are trusted say of theirs in X-Forwarded-For. `trusted`: see `trusted_by`."""
    if peer.startswith("::ffff:"):
        peer = _plain(ipaddress.ip_address(peer))
    if forwarded_for is None or not peer:  # a peer that is gone already has no address
        return peer
    address = peer
    for part in reversed(forwarded_for.decode("latin-1").split(",")):
        if not trusted(address):
            break
        if "%" in part:  # a zone is any text, and means something on the proxy's own host alone
            break
        try:
            address = _plain(ipaddress.ip_address(part.strip()))
        except ValueError:
            break
    return address


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As text; an IPv4 address that a socket for both families spells as IPv6 is IPv4 again."""
    return str(getattr(address, "ipv4_mapped", None) or address)


@functools.cache
def trusted_by(networks: tuple[Network, ...]) -> Callable[[str], bool]:
    """Whether an address is in one of the networks."""

    @functools.lru_cache(4096)
    def trusted(address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in networks)

    return trusted
