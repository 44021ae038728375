"""The addresses that a container with a proxy connects to directly (NO_PROXY)."""

from __future__ import annotations

from collections.abc import Mapping

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
# The container itself, and the metadata and credential endpoints of AWS: instance, ECS task, EKS pod. None of them is
# reachable through a proxy.
DIRECT = ("127.0.0.1", "localhost", "::1", "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254")
# Names inside a Kubernetes cluster.
_CLUSTER = (".svc", ".cluster.local")


def with_direct_addresses(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment; if it sets a proxy, with the addresses that must bypass it added to NO_PROXY.

    Upper and lower case variables are both set, because programs differ in which one they read and prefer.
    """
    by_name = {name.lower(): value for name, value in environment.items() if value}
    if not any(name in by_name for name in _PROXIES):
        return dict(environment)
    given = [environment.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    names = [part.strip() for value in given for part in value.split(",") if part.strip()]
    direct = ",".join(dict.fromkeys([*names, *DIRECT, *_CLUSTER]))
    return {**environment, "NO_PROXY": direct, "no_proxy": direct}
