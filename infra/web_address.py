"""Addresses that people give: checked, with the user name and password taken out, and which of them are on this machine.

Standard library only: `make local` uses this before anything is installed.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import socket
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

HIDDEN = "***"
EXAMPLE = "http://127.0.0.1:8000"
_USERINFO = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'\"<>\\]*@")
# A shorter password is part of too many words to be replaced wherever it occurs.
SHORTEST_SECRET = 6
_secrets: set[str] = set()


class AddressError(ValueError):
    """An address cannot be used. The message never contains a password."""


@dataclass(frozen=True)
class WebAddress:
    """An http or https address.

    Attributes:
        url: the address without user name, password and trailing slashes. Safe to print and to store.
        host: the host name, as DNS and the Host header expect it; an IPv6 address without brackets.
        port: 1 to 65535.
        path: of the URL, percent-encoded.
        secure: whether the scheme is https.
        user: "user:password", decoded; empty if the address has none. Never part of a repr.
    """

    url: str
    host: str
    port: int
    path: str
    secure: bool
    user: str = field(default="", repr=False)

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def authorization(self) -> str:
        """The value of an Authorization header for the user name and password; empty without them."""
        return basic(self.user) if self.user else ""


def parse(text: str) -> WebAddress:
    """Return the address in `text`. Raises AddressError in one line, which says what is wrong and what to set."""
    shown = repr(hide_userinfo(text.strip()))
    try:
        parts = urlsplit(text.strip())
        host = _ascii_host(parts)
    except ValueError:
        raise AddressError(f"{shown} is not a URL (its host name is not valid); set one such as {EXAMPLE}") from None
    try:
        port = parts.port
    except ValueError:  # its text would show the start of a password that contains a slash
        port = 0
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise AddressError(f"{shown} is not a URL; set one such as {EXAMPLE}")
    if port == 0:
        raise AddressError(
            f"{shown} is not a URL (its port must be a number from 1 to 65535); set one such as {EXAMPLE}"
        )
    if parts.query or parts.fragment:
        shown = repr(re.split(r"[?#]", hide_userinfo(text.strip()))[0])  # a query may contain a key
        raise AddressError(f"{shown} is followed by a query or a fragment; set the base URL alone, such as {EXAMPLE}")
    user = unquote(parts.netloc.rpartition("@")[0])
    if user:
        remember_secret(user)
    secure = parts.scheme.lower() == "https"
    path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._")
    brackets = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme.lower()}://{brackets}{f':{port}' if port else ''}{path}"
    return WebAddress(url, host, port or (443 if secure else 80), path, secure, user)


def _ascii_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if re.search(r"[\s\\\"<>^`{|}]|%(?!25)", host):
        raise ValueError("a character that host names cannot have")
    if not re.fullmatch(r"(?:\[[^\[\]]*\]|[^\[\]]*)(?::.*)?", parts.netloc.rpartition("@")[2]):
        raise ValueError("brackets that are not those of an IPv6 address")
    return host if host.isascii() else host.encode("idna").decode()


def hide_userinfo(text: str) -> str:
    """Return the text of one address without its user name and password, even if the address is not valid."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    return f"{scheme}{separator}{HIDDEN}@{rest.rpartition('@')[2]}" if "@" in rest else text


def basic(user: str) -> str:
    """Return the Authorization header of "user:password"."""
    return f"Basic {base64.b64encode((user if ':' in user else f'{user}:').encode()).decode()}"


def remember_secret(user: str) -> None:
    """Have `redact` hide the password of "user:password" in each form in which it can occur."""
    password = user.partition(":")[2]
    forms = {password, quote(password, safe=""), basic(user).partition(" ")[2], user if ":" in user else ""}
    _secrets.update(form for form in forms if len(form) >= SHORTEST_SECRET)


def redact(text: str) -> str:
    """Return the text without the user name and password of any URL in it, and without remembered secrets."""
    if "@" in text:
        text = _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", text)
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    return text


def is_this_machine(host: str) -> bool:
    """Whether a host name or address is this machine's own: 127.0.0.0/8, ::1, localhost, *.localhost, 0.0.0.0."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:  # 127.1 and 2130706433 are 127.0.0.1 as well
            address = ipaddress.ip_address(socket.inet_aton(name)) if re.fullmatch(r"[0-9a-fx.]+", name) else None
        except OSError:
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_local_url(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    try:
        return is_this_machine(urlsplit(url).hostname or "")
    except ValueError:
        return False


def open_url(
    request: urllib.request.Request | str, timeout: float, *handlers: urllib.request.BaseHandler
) -> HTTPResponse:
    """`urllib.request.urlopen` for an http or https URL, with more handlers.

    This machine is asked directly, whatever proxy the environment names.
    """
    url = request if isinstance(request, str) else request.full_url
    direct = [urllib.request.ProxyHandler({})] if is_local_url(url) else []
    return cast(HTTPResponse, urllib.request.build_opener(*handlers, *direct).open(request, timeout=timeout))


def proxies_named() -> list[str]:
    """The proxies in the environment, as they are written there."""
    found = {name.lower(): value for name, value in os.environ.items() if value}
    return [value for name, value in found.items() if name.endswith("_proxy") and name != "no_proxy"]


DIRECT = ("localhost", ".localhost", "127.0.0.1", "::1")


def use_no_proxy_for_this_machine(*urls: str) -> None:
    """Except this machine from the proxies in the environment, for libraries and programs that read NO_PROXY.

    `urls`: addresses that are about to be used. Those on this machine are excepted by name as well, since NO_PROXY has no
    form for 127.0.0.0/8; so are the custom endpoints of AWS and of the Hugging Face Hub in the environment.
    """
    environment = os.environ
    if not (proxies := proxies_named()):
        return
    for proxy in proxies:
        if "@" in proxy:
            remember_secret(unquote(proxy.rpartition("://")[2].rpartition("@")[0]))
    custom = [
        value for name, value in environment.items() if name.startswith("AWS_ENDPOINT_URL") or name == "HF_ENDPOINT"
    ]
    hosts = [urlsplit(url).hostname or "" for url in (*urls, *custom) if is_local_url(url)]
    given = [part.strip() for name in ("NO_PROXY", "no_proxy") for part in environment.get(name, "").split(",")]
    names = ",".join(dict.fromkeys(filter(None, [*given, *DIRECT, *hosts])))
    environment.update({"NO_PROXY": names, "no_proxy": names})


def proxy_for(address: WebAddress, environment: Mapping[str, str] | None = None) -> WebAddress | None:
    """Return the proxy that the environment names for an address; None if it is asked directly.

    Raises AddressError if the proxy is not an http or https address.
    """
    if is_this_machine(address.host):
        return None
    proxies = urllib.request.getproxies_environment()
    scheme = "https" if address.secure else "http"
    found = proxies.get(scheme) or proxies.get("all")
    if not found or urllib.request.proxy_bypass(address.host_header):
        return None
    try:
        return parse(found if "://" in found else f"http://{found}")
    except AddressError as error:
        raise AddressError(f"{scheme}_proxy: {error}") from None
