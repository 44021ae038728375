"""The two Deployments: permissions, pod startup and shutdown, resources, arguments and environment."""

from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeModel, fake_hub
from image.engine import prepare
from image.engine.arguments import settle
from image.gateway.backends import DnsDiscovery, FileKeys, KubernetesCapacity
from image.gateway.settings import Settings as GatewaySettings
from infra.containers import engine_environment
from infra.kubernetes.pods import literal
from infra.planning.engine import SHUTDOWN_TIMEOUT_SECONDS
from tests.infra.kubernetes.rendering import Rendered, render


@pytest.fixture(scope="module")
def dev() -> Rendered:
    return render()


@pytest.mark.parametrize("component", ["engine", "gateway"])
def test_a_pod_has_no_rights_it_does_not_need(dev: Rendered, component: str) -> None:
    """The Pod Security Standard "restricted", which the namespace enforces; access to the cluster's API: the gateway."""
    pod, container = dev.pod(component), dev.container(component)
    assert pod["automountServiceAccountToken"] is (component == "gateway")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
        "persistentVolumeClaim", "emptyDir", "secret",
    }  # fmt: skip
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    labels = dev.inputs["Namespace/namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("component", ["engine", "gateway"])
def test_services_put_nothing_into_the_environment(dev: Rendered, component: str) -> None:
    # A Service called gateway would set GATEWAY_PORT=tcp://..., which the gateway refuses.
    assert dev.pod(component)["enableServiceLinks"] is False


def test_the_gateway_understands_what_it_is_told(dev: Rendered) -> None:
    environment = dev.environment("gateway")
    settings = GatewaySettings.from_environment(environment)
    assert settings.model == "Qwen/Qwen3-4B-Instruct-2507"
    assert settings.discovery == DnsDiscovery("engine.vllm.svc.cluster.local.", 8000)
    assert settings.capacity == KubernetesCapacity("vllm", "engine")
    assert isinstance(settings.keys, FileKeys)
    assert (
        settings.drain_delay_seconds
        < settings.drain_timeout_seconds
        < dev.pod("gateway")["terminationGracePeriodSeconds"]
    )


def test_the_gateway_reads_its_keys_from_the_mounted_secret(dev: Rendered) -> None:
    (volume,) = dev.pod("gateway")["volumes"]
    (mount,) = dev.container("gateway")["volumeMounts"]
    assert volume["secret"] == {"secretName": "api-keys", "defaultMode": 0o440}
    assert dev.pod("gateway")["securityContext"]["fsGroup"] == dev.pod("gateway")["securityContext"]["runAsGroup"]
    # A file mounted alone (subPath) would never change, and a new key would need a restart.
    assert mount == {"name": volume["name"], "mountPath": "/run/keys", "readOnly": True}
    assert dev.environment("gateway")["GATEWAY_KEYS"] == "file:/run/keys/keys.json"
    assert dev.container("gateway")["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_gateway_is_asked_for_liveness_and_readiness_apart(dev: Rendered) -> None:
    container = dev.container("gateway")
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "metrics": 9090}
    assert dev.spec("Service/gateway")["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]


def test_gateways_are_spread_over_zones_and_nodes() -> None:
    constraints = render(gatewayCount=2).pod("gateway")["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in constraints] == [
        "topology.kubernetes.io/zone", "kubernetes.io/hostname",
    ]  # fmt: skip


@pytest.mark.parametrize(("image", "policy"), [("", "Never"), ("registry.example.com/vllm/gateway:1", "IfNotPresent")])
def test_an_image_without_a_registry_is_never_looked_for_in_a_public_one(image: str, policy: str) -> None:
    container = render(gatewayImage=image).container("gateway")
    assert container["image"] == (image or "vllm-endpoint-gateway:0.1.0")
    assert container["imagePullPolicy"] == policy


def test_the_engine_serves_the_plan(dev: Rendered) -> None:
    container, engine = dev.container("engine"), dev.plan.engine
    assert container["image"] == engine.image
    assert container["args"][:5] == [dev.plan.model, "--host", "0.0.0.0", "--port", "8000"]
    assert tuple(container["args"][5:]) == engine.args
    assert engine.environment.items() <= dev.environment("engine").items()
    paths = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert paths["/weights"] == paths["/cache"] == "weights"
    assert paths[dev.environment("engine")["HOME"]] == "home"


def test_weights_and_the_entrypoints_code_come_before_vllm_and_without_a_gpu(dev: Rendered) -> None:
    pod, engine = dev.pod("engine"), dev.container("engine")
    code, fetch = pod["initContainers"]
    for container in (code, fetch):
        assert container["image"] == dev.container("gateway")["image"]
        assert container["imagePullPolicy"] == dev.container("gateway")["imagePullPolicy"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert fetch["command"] == ["python", "-m", "image.engine.fetch"]
    assert fetch["args"] == engine["args"]
    told = {variable["name"]: variable.get("value") for variable in fetch["env"]}
    assert engine_environment(dev.plan).items() <= told.items()
    assert engine_environment(dev.plan).items() <= dev.environment("engine").items()
    assert {mount["mountPath"]: mount["name"] for mount in fetch["volumeMounts"]}["/weights"] == "weights"
    assert engine["command"] == ["python3", "-m", "image.engine"]
    assert code["volumeMounts"] == [{"name": "code", "mountPath": "/code"}]
    assert {"name": "code", "mountPath": dev.environment("engine")["PYTHONPATH"], "readOnly": True} in engine[
        "volumeMounts"
    ]


def test_pods_of_one_rollout_serve_one_commit_of_a_moving_branch(dev: Rendered, tmp_path: Path) -> None:
    fetch = dev.pod("engine")["initContainers"][1]
    variables = {one["name"]: one["value"] for one in fetch["env"] if "value" in one}
    with fake_hub() as hub:
        model = hub.models[fetch["args"][0]] = FakeModel({"config.json": b"{}", "model.safetensors": b"w"})
        commits = []
        for _ in range(3):
            launch = settle(fetch["args"], variables | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address})
            commits += [weights.commit for weights in prepare.fetch(launch, None, print, ask=True)]
            model.files["config.json"] += b" "
    assert len(commits) == 3
    assert len(set(commits)) == 1


def test_the_hubs_token_reaches_who_fetches() -> None:
    (fetch,) = [c for c in render(hfToken="hf_1").pod("engine")["initContainers"] if c["name"] == "weights"]
    (token,) = [variable for variable in fetch["env"] if variable["name"] == "HF_TOKEN"]
    assert "value" not in token
    assert token["valueFrom"]["secretKeyRef"]["name"]


def test_the_hubs_mirror_and_the_models_parsers_reach_who_fetches_and_who_serves() -> None:
    mirror = "https://hf-mirror.example"
    pod = render(hubEndpoint=mirror, model="Qwen/Qwen3-8B", gpu="l40s").pod("engine")
    for container in (pod["containers"][0], next(c for c in pod["initContainers"] if c["name"] == "weights")):
        assert {"name": "HF_ENDPOINT", "value": mirror} in container["env"]
        arguments = container["args"]
        assert arguments[arguments.index("--reasoning-parser") + 1] == "qwen3"


def test_the_engine_gets_its_gpus_memory_and_shared_memory() -> None:
    rendered = render(gpu="h100", gpuCount=8, model="Qwen/Qwen3-32B-FP8")
    resources, engine = rendered.container("engine")["resources"], rendered.plan.engine
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "8"
    assert resources["limits"]["memory"] == f"{engine.memory_mib}Mi"
    assert "cpu" not in resources["limits"]
    requested = int(resources["requests"]["memory"].removesuffix("Mi"))
    assert engine.checkpoint_gib * 1024 < requested < engine.memory_mib
    (volume,) = [volume for volume in rendered.pod("engine")["volumes"] if volume["name"] == "shared-memory"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": f"{engine.shared_memory_mib}Mi"}
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in rendered.container("engine")["volumeMounts"]


def test_an_engine_on_the_smallest_node_leaves_room_for_the_nodes_own(dev: Rendered) -> None:
    # A g5.xlarge has 16 GiB; the kubelet and daemon sets keep about 1.5 of them.
    assert int(dev.container("engine")["resources"]["requests"]["memory"].removesuffix("Mi")) < 13 * 1024


def seconds(probe: dict[str, Any]) -> float:
    return float(probe["periodSeconds"] * probe["failureThreshold"])


def test_a_slow_start_is_waited_for_by_everybody() -> None:
    rendered = render(startupTimeoutMinutes=45)
    container, deployment = rendered.container("engine"), rendered.spec("Deployment/engine")
    assert seconds(container["startupProbe"]) >= 45 * 60
    # Kubernetes and Pulumi count from before the pod has a node and its image.
    assert deployment["progressDeadlineSeconds"] > seconds(container["startupProbe"])
    timeouts = rendered.requests["Deployment/engine"].customTimeouts
    assert timeouts.create == timeouts.update == f"{deployment['progressDeadlineSeconds']:.0f}s"


def test_a_stop_reaches_every_program_of_the_engines_pod(dev: Rendered) -> None:
    assert dev.pod("engine")["shareProcessNamespace"] is True, "PID 1 ignores SIGTERM while Python starts"


def test_a_replica_leaves_rotation_before_it_is_told_to_stop(dev: Rendered) -> None:
    pod, container = dev.pod("engine"), dev.container("engine")
    command, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert int(pause) > 30  # names in a cluster's DNS live so long
    # vLLM ends about 7 s after its last request, and that may take the whole shutdown timeout.
    assert pod["terminationGracePeriodSeconds"] >= int(pause) + SHUTDOWN_TIMEOUT_SECONDS + 15
    assert dev.spec("Service/engine")["clusterIP"] == "None"
    assert dev.spec("Service/engine")["publishNotReadyAddresses"] is False


def test_a_rollout_needs_no_spare_gpu(dev: Rendered) -> None:
    assert dev.spec("Deployment/engine")["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert dev.pod("engine")["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_nodes_are_chosen_only_on_request(dev: Rendered) -> None:
    assert "affinity" not in dev.pod("engine")
    affinity = render(instanceTypes=["g5.2xlarge", "g5.4xlarge"]).pod("engine")["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["g5.2xlarge", "g5.4xlarge"]}
    ]


def test_arguments_reach_vllm_as_they_are() -> None:
    rendered = render(engineArgs=["--override-generation-config", '{"a": "$(HOME)"}'])
    assert rendered.container("engine")["args"][-1] == literal('{"a": "$(HOME)"}') == '{"a": "$$(HOME)"}'
