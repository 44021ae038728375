"""Scales a Deployment from zero to one through its scale subresource."""

from __future__ import annotations

import os
import ssl
import urllib.parse
from datetime import datetime
from pathlib import Path
from typing import Any

from image.gateway.backends import KubernetesCapacity
from image.gateway.capacity import http
from image.gateway.capacity.base import KEEPS_FAILING, NO_ANSWER, NOT_ALLOWED, NOT_THERE, ScalingError

# The mount of the pod's service account.
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MERGE_PATCH = {"content-type": "application/merge-patch+json"}
_CONFLICT = 409
# Waiting reasons of a container that do not occur in a successful start.
_BROKEN = ("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError", "InvalidImageName")


class KubernetesScaler:
    """Scales a Deployment, and only from zero to one. KEDA, if installed, scales it further.

    Needs `get` and `patch` of deployments/scale for that name; for failure reasons and the ledger, `get` of the deployment
    and `list` of pods.
    """

    kind = "kubernetes"

    def __init__(self, setting: KubernetesCapacity, account: Path = _ACCOUNT) -> None:
        """`account`: the folder of the service account's token and ca.crt."""
        self._account = account
        namespace = f"namespaces/{setting.namespace}"
        self._deployment = f"/apis/apps/v1/{namespace}/deployments/{setting.deployment}"
        self._pods_of = f"/api/v1/{namespace}/pods"
        self._name = f"{setting.namespace}/{setting.deployment}"
        self._tls: ssl.SSLContext | None = None

    async def wake(self) -> None:
        """Scale the Deployment from zero replicas to one."""
        scale = await self._ask("GET", f"{self._deployment}/scale")
        if scale["spec"].get("replicas", 0) > 0:  # the API omits zero
            return
        # With the resourceVersion just read, so that a concurrent change by an autoscaler is not overwritten.
        version = scale["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "spec": {"replicas": 1}}
        await self._ask("PATCH", f"{self._deployment}/scale", patch)

    async def check(self, since: float) -> None:
        """Raise the reason why pods cannot be scheduled or do not start."""
        for pod in await self._pods():
            status = pod["status"]
            for condition in status.get("conditions", ()):
                if condition["type"] == "PodScheduled" and condition["status"] == "False":
                    detail = f"pod not scheduled: {condition.get('message', '')}"
                    raise ScalingError("no node is available to run the engine", detail)
            for container in status.get("containerStatuses", ()):
                waiting = container["state"].get("waiting", {})
                if waiting.get("reason") in _BROKEN:
                    raise ScalingError(KEEPS_FAILING, f"{waiting['reason']}: {waiting.get('message', '')}")

    async def phase_ends(self, since: float) -> dict[str, float]:
        """Instance: when the first pod since was scheduled. Image: when its container started."""
        ends: dict[str, float] = {}
        for pod in await self._pods():
            if _time(pod["metadata"]["creationTimestamp"]) < since - 1:  # the API server's times have whole seconds
                continue
            for condition in pod["status"].get("conditions", ()):
                if condition["type"] == "PodScheduled" and condition["status"] == "True":
                    ends.setdefault("instance", _time(condition["lastTransitionTime"]))
            for container in pod["status"].get("containerStatuses", ()):
                if "running" in container["state"]:
                    ends.setdefault("image", _time(container["state"]["running"]["startedAt"]))
        return ends

    async def _pods(self) -> list[dict[str, Any]]:
        deployment = await self._ask("GET", self._deployment)
        labels: dict[str, str] = deployment["spec"]["selector"].get("matchLabels", {})
        selector = urllib.parse.quote(",".join(f"{name}={value}" for name, value in labels.items()))
        pods: list[dict[str, Any]] = (await self._ask("GET", f"{self._pods_of}?labelSelector={selector}"))["items"]
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def _ask(self, method: str, path: str, patch: Any = None) -> Any:
        try:
            # Read each time, because the kubelet rotates it.
            token = (self._account / "token").read_text().strip()
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
            address = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
        except (OSError, KeyError, ValueError) as error:
            detail = f"no service account: {error}; set automountServiceAccountToken: true in the pod"
            raise ScalingError(NOT_ALLOWED, detail) from None
        headers = {"authorization": f"Bearer {token}"} | (_MERGE_PATCH if patch is not None else {})
        status, answer = await http.ask(address, method, path, patch, headers, self._tls)
        if status == 200 or (method == "PATCH" and status == _CONFLICT):
            return answer
        reason = {401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_THERE}.get(status, NO_ANSWER)
        said = answer.get("message", "") if isinstance(answer, dict) else ""
        raise ScalingError(reason, f"{method} {self._name}: {status} {said}")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
