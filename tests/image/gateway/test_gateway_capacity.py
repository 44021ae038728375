"""The gateway's requests to an API server and to the local runner, over loopback, and how it handles their answers."""

from __future__ import annotations

import http.server
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from image.gateway import aws
from image.gateway.backends import CapacitySetting, EcsCapacity, FixedCapacity, KubernetesCapacity, LocalCapacity
from image.gateway.capacity.base import ScalingError
from image.gateway.capacity.ecs import EcsScaler
from image.gateway.capacity.factory import engine_scaler
from image.gateway.capacity.kubernetes import KubernetesScaler
from image.gateway.capacity.local import LocalScaler

DEPLOYMENT = "/apis/apps/v1/namespaces/vllm/deployments/engine"
SETTING = KubernetesCapacity("vllm", "engine")


class Server:
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any, dict[str, str]]] = []
        scene = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                scene.asked.append((self.command, self.path, json.loads(body) if body else None, headers))
                found = scene.answers.get((self.command, self.path.partition("?")[0]))
                status, document = found or (404, {"message": "not found"})
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def runner() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service account's folder, whose authority is the server's own certificate."""
    folder = tmp_path_factory.mktemp("account")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(timezone.utc)  # noqa: UP017
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "token").write_text("first-token\n")
    return folder


@pytest.fixture
def api(account: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(account / "ca.crt", account / "key")
    server = Server(tls)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    yield server
    server.stop()


def scale(replicas: int | None) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "41"}, "spec": {} if replicas is None else {"replicas": replicas}}


# Kubernetes


async def test_a_deployment_goes_from_zero_to_one_and_is_never_lowered(api: Server, account: Path) -> None:
    kubernetes = KubernetesScaler(SETTING, account)
    api.answers["PATCH", f"{DEPLOYMENT}/scale"] = 200, scale(1)
    for replicas, patches in ((None, 1), (0, 2), (1, 2), (3, 2)):
        api.answers["GET", f"{DEPLOYMENT}/scale"] = 200, scale(replicas)
        await kubernetes.wake()
        asked = [(body, headers) for method, _, body, headers in api.asked if method == "PATCH"]
        assert len(asked) == patches
    body, headers = asked[0]
    assert body == {"metadata": {"resourceVersion": "41"}, "spec": {"replicas": 1}}
    assert headers["content-type"] == "application/merge-patch+json"
    assert headers["authorization"] == "Bearer first-token"
    (account / "token").write_text("second-token")
    await kubernetes.wake()
    assert api.asked[-1][3]["authorization"] == "Bearer second-token"


async def test_somebody_else_who_scales_at_the_same_time_wins(api: Server, account: Path) -> None:
    api.answers["GET", f"{DEPLOYMENT}/scale"] = 200, scale(0)
    api.answers["PATCH", f"{DEPLOYMENT}/scale"] = 409, {"message": "the object has been modified"}
    await KubernetesScaler(SETTING, account).wake()


@pytest.mark.parametrize(
    ("status", "says"),
    [(403, "not permitted"), (401, "not permitted"), (404, "was not found"), (500, "returned an unexpected response")],
)
async def test_what_the_api_server_refuses_is_said_without_names(
    api: Server, account: Path, status: int, says: str
) -> None:
    api.answers["GET", f"{DEPLOYMENT}/scale"] = status, {"message": 'deployments "engine" is forbidden'}
    with pytest.raises(ScalingError, match=says) as raised:
        await KubernetesScaler(SETTING, account).wake()
    assert "deployments" not in str(raised.value)
    assert "forbidden" in raised.value.detail
    assert "token" not in raised.value.detail


async def test_without_an_api_server_or_an_account(
    account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(ScalingError, match="returned an unexpected response"):
        await KubernetesScaler(SETTING, account).wake()
    with pytest.raises(ScalingError, match="not permitted") as raised:
        await KubernetesScaler(SETTING, tmp_path).wake()
    assert "automountServiceAccountToken" in raised.value.detail


async def test_an_api_server_that_is_not_the_clusters_is_told_no_token(
    api: Server, account: Path, tmp_path: Path
) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    now = datetime.now(timezone.utc)  # noqa: UP017
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(other.public_key())
    builder = builder.serial_number(2).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    (tmp_path / "ca.crt").write_bytes(builder.sign(other, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (tmp_path / "token").write_text("secret-token")
    with pytest.raises(ScalingError, match="returned an unexpected response"):
        await KubernetesScaler(SETTING, tmp_path).wake()
    assert api.asked == []


def pod(created: str, conditions: list[Any], containers: list[Any]) -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": created},
        "status": {"conditions": conditions, "containerStatuses": containers},
    }


async def test_pods_say_what_keeps_them_and_when_they_came(api: Server, account: Path) -> None:
    kubernetes = KubernetesScaler(SETTING, account)
    api.answers["GET", DEPLOYMENT] = 200, {"spec": {"selector": {"matchLabels": {"app": "engine", "stack": "a"}}}}
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-21T10:00:40Z"}
    pulling = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    broken = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}}
    running = {"state": {"running": {"startedAt": "2026-11-21T10:02:00Z"}}}
    old, new = "2026-11-21T09:00:00Z", "2026-11-21T10:00:00Z"
    began = datetime.fromisoformat(new).timestamp()

    def pods(*items: dict[str, Any]) -> None:
        api.answers["GET", "/api/v1/namespaces/vllm/pods"] = 200, {"items": items}

    pods(pod(new, [unscheduled], []))
    with pytest.raises(ScalingError, match="no node is available"):
        await kubernetes.check(began)
    assert "labelSelector=app%3Dengine%2Cstack%3Da" in api.asked[-1][1]
    pods(pod(new, [scheduled], [broken]))
    with pytest.raises(ScalingError, match="keeps crashing at startup"):
        await kubernetes.check(began)
    pods(pod(new, [scheduled], [pulling]))
    await kubernetes.check(began)
    assert await kubernetes.phase_ends(began + 0.5) == {"instance": began + 40}
    pods(pod(new, [scheduled], [running]), pod(old, [scheduled], [running]))
    assert await kubernetes.phase_ends(began + 0.5) == {"instance": began + 40, "image": began + 120}
    assert await kubernetes.phase_ends(began + 5) == {}


# The local runner


async def test_the_runner_is_asked_and_believed(runner: Server) -> None:
    local = LocalScaler(LocalCapacity(("127.0.0.1", runner.port)))
    runner.answers["POST", "/wake"] = 202, b""
    await local.wake()
    runner.answers["GET", "/state"] = 200, {"error": None, "phases": {"weights": 105.0, "compile": 110, "image": 5}}
    await local.check(100)
    assert await local.phase_ends(100) == {"weights": 105.0, "compile": 110}
    runner.answers["GET", "/state"] = 200, {"error": "the engine ended: no memory"}
    with pytest.raises(ScalingError, match="no memory"):
        await local.check(100)
    runner.answers["POST", "/wake"] = 500, {"error": "no weights"}
    with pytest.raises(ScalingError, match="no weights"):
        await local.wake()
    runner.answers["POST", "/wake"] = 200, b"<html>"
    with pytest.raises(ScalingError, match="returned an unexpected response"):
        await local.wake()


# ECS: what moto does not know


def ecs() -> tuple[EcsScaler, Stubber, Stubber]:
    made = EcsScaler(EcsCapacity("cluster", "engine", "gpus"))
    session = aws.session()
    keys = {"region_name": "eu-west-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
    made._clients = session.client("ecs", **keys), session.client("autoscaling", **keys)  # type: ignore[call-overload]
    service, group = map(Stubber, made._clients)
    service.activate()
    group.activate()
    return made, service, group


def activity(status: str, message: str = "Launching a new EC2 instance", minute: int = 1) -> dict[str, Any]:
    started = datetime(2026, 11, 21, 10, minute, tzinfo=timezone.utc)  # noqa: UP017
    return {
        "ActivityId": "a",
        "AutoScalingGroupName": "gpus",
        "Cause": "x",
        "StartTime": started,
        "StatusCode": status,
        "StatusMessage": message,
    }


BEGAN = datetime(2026, 11, 21, 10, 0, 30, tzinfo=timezone.utc).timestamp()  # noqa: UP017
NO_CAPACITY = "We currently do not have sufficient g5.xlarge capacity in the Availability Zone you requested. Launching EC2 instance failed."
QUOTA = "You have requested more vCPU capacity than your current vCPU limit of 0 allows. Launching EC2 instance failed."


@pytest.mark.parametrize(
    ("activities", "says"),
    [
        ([activity("Failed", NO_CAPACITY)], "no such instance available"),
        ([activity("Failed", QUOTA)], "quota"),
        ([activity("Failed", "MaxSpotInstanceCountExceeded: ...")], "quota"),
        ([activity("Failed", "Launch template acme-internal not found")], "could not start an instance"),
        ([activity("InProgress"), activity("Failed", NO_CAPACITY)], "no such instance available"),
        ([activity("Failed", NO_CAPACITY, minute=0)], None),
        ([activity("Successful"), activity("Failed", NO_CAPACITY)], None),
        ([], None),
    ],
)
async def test_scaling_activities_say_why_no_instance_comes(activities: list[Any], says: str | None) -> None:
    made, service, group = ecs()
    group.add_response("describe_scaling_activities", {"Activities": activities})
    service.add_response("list_tasks", {"taskArns": []})
    if says is None:
        await made.check(BEGAN)
        return
    with pytest.raises(ScalingError, match=says) as raised:
        await made.check(BEGAN)
    assert "acme" not in str(raised.value)
    assert activities[-1]["StatusMessage"] in raised.value.detail


def task(**times: int) -> dict[str, Any]:
    start = datetime(2026, 11, 21, 10, tzinfo=timezone.utc)  # noqa: UP017
    return {name: start + timedelta(seconds=seconds) for name, seconds in times.items()}


async def test_stopped_tasks_say_that_the_engine_fails_while_it_starts() -> None:
    made, service, group = ecs()
    tasks = [task(createdAt=-60) | {"stoppedReason": "Scaling"}, task(createdAt=60) | {"stoppedReason": "OutOfMemory"}]
    group.add_response("describe_scaling_activities", {"Activities": []})
    service.add_response("list_tasks", {"taskArns": ["a", "b"]})
    service.add_response("describe_tasks", {"tasks": tasks})
    with pytest.raises(ScalingError, match="keeps crashing at startup") as raised:
        await made.check(BEGAN)
    assert raised.value.detail == "1 tasks stopped: OutOfMemory"


async def test_a_tasks_times_are_the_ledgers() -> None:
    made, service, _ = ecs()
    tasks = [task(createdAt=31, pullStartedAt=120, pullStoppedAt=290, startedAt=300), task(createdAt=-99, startedAt=1)]
    service.add_response("list_tasks", {"taskArns": ["a", "b"]})
    service.add_response("describe_tasks", {"tasks": tasks})
    assert await made.phase_ends(BEGAN) == {"instance": BEGAN + 90, "image": BEGAN + 270}
    service.add_response("list_tasks", {"taskArns": []})
    assert await made.phase_ends(BEGAN) == {}
    service.add_client_error("list_tasks", "AccessDeniedException", "not authorized to perform: ecs:ListTasks")
    with pytest.raises(ScalingError, match="not permitted"):
        await made.phase_ends(BEGAN)


GROUP = {"AutoScalingGroupName": "gpus", "MinSize": 0, "MaxSize": 1, "DesiredCapacity": 0, "DefaultCooldown": 0,
         "AvailabilityZones": [], "HealthCheckType": "EC2", "CreatedTime": BEGAN}  # fmt: skip


@pytest.mark.parametrize("fails", ["describe_auto_scaling_groups", "set_desired_capacity", "nothing found"])
async def test_a_group_that_cannot_be_scaled_does_not_keep_the_service_at_zero(fails: str) -> None:
    made, service, group = ecs()
    if fails == "describe_auto_scaling_groups":
        group.add_client_error(fails, "AccessDenied", "not authorized")
    else:
        group.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": [GROUP][fails == "nothing found" :]})
    if fails == "set_desired_capacity":
        group.add_client_error(fails, "ScalingActivityInProgress", "in progress")
    service.add_response("describe_services", {"services": [{"desiredCount": 0}]})
    expected = {"cluster": "cluster", "service": "engine", "desiredCount": 1}
    service.add_response("update_service", {"service": {}}, expected)
    with pytest.raises(ScalingError):
        await made.wake()
    service.assert_no_pending_responses()


async def test_a_service_that_cannot_be_scaled_is_reported_after_the_group_was() -> None:
    made, service, group = ecs()
    group.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": [GROUP]})
    group.add_response("set_desired_capacity", {})
    service.add_client_error("describe_services", "AccessDeniedException", "not authorized to perform: ecs")
    with pytest.raises(ScalingError, match="not permitted"):
        await made.wake()
    group.assert_no_pending_responses()


async def test_every_setting_has_its_capacity() -> None:
    kinds: list[CapacitySetting] = [
        FixedCapacity(),
        EcsCapacity("c", "s", "g"),
        SETTING,
        LocalCapacity(("127.0.0.1", 1)),
    ]
    assert [engine_scaler(setting).kind for setting in kinds] == ["fixed", "ecs", "kubernetes", "local"]
    fixed = engine_scaler(FixedCapacity())
    await fixed.wake()
    await fixed.check(time.time())
    assert await fixed.phase_ends(time.time()) == {}
