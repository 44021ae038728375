"""Which addresses a container asks directly where it is told to use a proxy."""

from __future__ import annotations

from collections.abc import Mapping

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
# This container itself, and where AWS tells a container of its credentials and its place: instance, ECS task, EKS pod.
# None of them can be reached through a proxy.
DIRECT = ("127.0.0.1", "localhost", "::1", "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254")
# A cluster's own names.
_CLUSTER = (".svc", ".cluster.local")


def with_direct_addresses(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment; where it names a proxy, with the addresses in NO_PROXY that no proxy may be asked for.

    Both spellings are set: programs differ in which one they read, and in which one wins.
    """
    by_name = {name.lower(): value for name, value in environment.items() if value}
    if not any(name in by_name for name in _PROXIES):
        return dict(environment)
    given = [environment.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    names = [part.strip() for value in given for part in value.split(",") if part.strip()]
    direct = ",".join(dict.fromkeys([*names, *DIRECT, *_CLUSTER]))
    return {**environment, "NO_PROXY": direct, "no_proxy": direct}
