"""Which client address is trusted, for any X-Forwarded-For header from a proxy or a client."""

from __future__ import annotations

import ipaddress

import pytest

from image.gateway.forwarded import believed_client, trusted_by

TRUSTED = trusted_by((ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.0.0.1", b"192.0.2.7", "192.0.2.7"),
        ("192.0.2.9", b"198.51.100.1", "192.0.2.9"),
        ("10.0.0.1", b"198.51.100.1, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("::ffff:10.0.0.1", b"192.0.2.7", "192.0.2.7"),  # GATEWAY_HOST=:: takes IPv4 so
        ("::ffff:192.0.2.9", b"198.51.100.1", "192.0.2.9"),
        ("::ffff:192.0.2.9", None, "192.0.2.9"),
        ("10.0.0.1", b"192.0.2.7, ::ffff:10.0.0.2", "192.0.2.7"),
        ("fd00::1", b"2001:DB8::1", "2001:db8::1"),
        ("10.0.0.1", b"::1%<script>" + b"A" * 60_000, "10.0.0.1"),  # a zone is any text
        ("10.0.0.1", b"192.0.2.7, fe80::1%eth0", "10.0.0.1"),
        ("10.0.0.1", b"unknown", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7, ١٠.0.0.1".encode(), "10.0.0.1"),
        ("", b"192.0.2.7", ""),  # a client that was gone before its address could be read
    ],
)
def test_only_a_trusted_proxy_is_believed_and_only_an_address(
    peer: str, forwarded_for: bytes | None, client: str
) -> None:
    assert believed_client(peer, forwarded_for, TRUSTED) == client
