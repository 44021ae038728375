"""The rendering as a whole: what is made, secrets, the volume, exports, warnings."""

import json
import shlex
from typing import Any

import pytest

from image.gateway.backends import KubernetesCapacity, capacity
from infra.kubernetes.weights import claim_size_gib
from infra.outputs import verify_output
from infra.stack_files import load_stack
from tests.infra.kubernetes.rendering import Rendered, render

KEY = "sk-given-1234"
TOKEN = "hf_given_1234"
SMALLEST = {
    "Deployment/engine",
    "Deployment/gateway",
    "Namespace/namespace",
    "NetworkPolicy/engine",
    "NetworkPolicy/gateway",
    "PersistentVolumeClaim/weights",
    "RandomPassword/secrets-default-key",
    "Role/gateway",
    "RoleBinding/gateway",
    "Secret/secrets-api-keys",
    "Service/engine",
    "Service/gateway",
    "ServiceAccount/gateway",
}


@pytest.fixture(scope="module")
def dev() -> Rendered:
    return render()


def test_the_smallest_stack_is_exactly_this(dev: Rendered) -> None:
    assert set(dev.inputs) == SMALLEST


def test_several_replicas_and_gateways_are_not_all_evicted_at_once() -> None:
    several = render("prod", minReplicas=2, maxReplicas=2, gatewayCount=3)
    assert set(several.inputs) - SMALLEST == {"PodDisruptionBudget/engine", "PodDisruptionBudget/gateway"}
    assert several.spec("Deployment/engine")["replicas"] == 2
    assert several.spec("Deployment/gateway")["replicas"] == 3
    for component in ("engine", "gateway"):
        budget = several.spec(f"PodDisruptionBudget/{component}")
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"] == several.pod_labels(component)


def test_everything_is_in_the_namespace_and_labelled(dev: Rendered) -> None:
    for resource, inputs in dev.inputs.items():
        if resource.startswith("RandomPassword/"):
            continue
        labels = inputs["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "vllm-endpoint"
        assert labels["app.kubernetes.io/instance"] == "dev"
        assert inputs["metadata"].get("namespace") == (None if resource == "Namespace/namespace" else "vllm")


def test_a_long_stack_name_is_still_a_label() -> None:
    label = render("a" * 62 + "_long").inputs["Service/engine"]["metadata"]["labels"]["app.kubernetes.io/instance"]
    assert label == "a" * 62


def selectors(rendered: Rendered) -> list[tuple[str, dict[str, str]]]:
    """(component, labels that are to find its pods) of everything that finds pods by their labels."""
    policy = rendered.spec("NetworkPolicy/engine")
    return [
        ("engine", rendered.spec("Deployment/engine")["selector"]["matchLabels"]),
        ("engine", rendered.spec("Service/engine")["selector"]),
        ("engine", policy["podSelector"]["matchLabels"]),
        ("gateway", policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]),
        ("gateway", rendered.spec("Deployment/gateway")["selector"]["matchLabels"]),
        ("gateway", rendered.spec("Service/gateway")["selector"]),
        ("gateway", rendered.spec("NetworkPolicy/gateway")["podSelector"]["matchLabels"]),
    ]


def test_selectors_find_their_pods_and_no_others(dev: Rendered) -> None:
    for component, labels in selectors(dev):
        other = {"engine": "gateway", "gateway": "engine"}[component]
        assert labels.items() <= dev.pod_labels(component).items()
        assert not labels.items() <= dev.pod_labels(other).items()


def test_only_the_gateway_reaches_the_engine_and_only_pods_reach_the_metrics(dev: Rendered) -> None:
    (engine,) = dev.spec("NetworkPolicy/engine")["ingress"]
    assert [port["port"] for port in engine["ports"]] == [8000]
    assert len(engine["from"]) == 1
    everybody, metrics = dev.spec("NetworkPolicy/gateway")["ingress"]
    assert "from" not in everybody
    assert [port["port"] for port in everybody["ports"]] == [8080]
    assert metrics["from"] == [{"namespaceSelector": {}}]
    assert [port["port"] for port in metrics["ports"]] == [9090]


def test_the_gateway_may_wake_the_engine_and_nothing_else(dev: Rendered) -> None:
    setting = capacity(dev.environment("gateway")["GATEWAY_CAPACITY"])
    assert isinstance(setting, KubernetesCapacity)
    assert (setting.namespace, f"Deployment/{setting.deployment}") == ("vllm", "Deployment/engine")
    allowed = {
        (rule["resources"][0], verb, *rule.get("resourceNames", ()))
        for rule in dev.inputs["Role/gateway"]["rules"]
        for verb in rule["verbs"]
    }
    assert allowed == {
        ("deployments/scale", "get", "engine"),
        ("deployments/scale", "patch", "engine"),
        ("deployments", "get", "engine"),
        ("pods", "list"),
    }
    binding = dev.inputs["RoleBinding/gateway"]
    assert binding["roleRef"]["name"] == "gateway"
    assert [(of["kind"], of["name"], of["namespace"]) for of in binding["subjects"]] == [
        ("ServiceAccount", dev.pod("gateway")["serviceAccountName"], "vllm")
    ]
    assert "serviceAccountName" not in dev.pod("engine")


def test_a_key_is_generated_when_none_is_given(dev: Rendered) -> None:
    assert dev.inputs["Secret/secrets-api-keys"]["metadata"]["name"] == "api-keys"
    assert json.loads(dev.secret("secrets-api-keys")["keys.json"]) == {"default": "sk-" + "r" * 48}


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [str(value)]


def test_given_secrets_are_in_their_secrets_and_nowhere_else() -> None:
    rendered = render(apiKeys=f"alice={KEY},bob=sk-other-1234", hfToken=TOKEN)
    keys = rendered.secret("secrets-api-keys")["keys.json"]
    assert json.loads(keys) == {"alice": KEY, "bob": "sk-other-1234"}
    assert rendered.secret("secrets-hugging-face") == {"token": TOKEN}
    elsewhere = {name: inputs for name, inputs in rendered.inputs.items() if not name.startswith("Secret/")}
    said = "\n".join(strings(elsewhere) + strings(rendered.exports) + rendered.warnings)
    assert KEY not in said
    assert TOKEN not in said
    (variable,) = [entry for entry in rendered.container("engine")["env"] if entry["name"] == "HF_TOKEN"]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "hugging-face", "key": "token"}}


def test_without_a_token_the_engine_asks_for_none(dev: Rendered) -> None:
    assert "HF_TOKEN" not in dev.environment("engine")


@pytest.mark.parametrize(("max_replicas", "mode"), [(1, "ReadWriteOnce"), (2, "ReadWriteMany")])
def test_the_volume_is_shared_when_replicas_may_be_several(max_replicas: int, mode: str) -> None:
    claim = render(maxReplicas=max_replicas, kubernetesStorageClass="efs").spec("PersistentVolumeClaim/weights")
    assert claim["accessModes"] == [mode]
    assert claim["storageClassName"] == "efs"


@pytest.mark.parametrize("checkpoint_gib", [1.2, 7.49, 32.0, 140.0])
def test_the_volume_holds_two_revisions_and_the_caches(checkpoint_gib: float) -> None:
    assert 2 * checkpoint_gib + 10 <= claim_size_gib(checkpoint_gib) <= 2 * checkpoint_gib + 10 + 25


def test_a_claim_has_no_room_for_weights_that_are_in_the_image() -> None:
    inside = render(model="/models/x", engineImage="acme/vllm:1", baseModel="Qwen/Qwen3-32B", gpu="h100")
    requests = inside.spec("PersistentVolumeClaim/weights")["resources"]["requests"]
    assert requests == {"storage": f"{claim_size_gib(0)}Gi"}


def test_a_claim_of_another_size_is_a_new_claim(dev: Rendered) -> None:
    # The API refuses to shrink a claim, and a claim under a fixed name could not be replaced while it is mounted.
    assert list(dev.requests["PersistentVolumeClaim/weights"].replaceOnChanges) == ["spec"]
    assert "name" not in dev.inputs["PersistentVolumeClaim/weights"]["metadata"]
    assert dev.pod("engine")["volumes"][0]["persistentVolumeClaim"]["claimName"] == "weights-1a2b3c4d"


@pytest.mark.parametrize("protect", [False, True])
def test_protect_keeps_the_weights_and_the_namespace_they_are_in(protect: bool) -> None:
    rendered = render(protect=protect)
    kept = {name for name, request in rendered.requests.items() if request.retainOnDelete}
    assert kept == ({"PersistentVolumeClaim/weights", "Namespace/namespace"} if protect else set())
    told = {"namespace": "vllm", "weights": "weights-1a2b3c4d"} if protect else {}
    assert rendered.exports["retainedAtDestroy"] == told


def test_exports(dev: Rendered) -> None:
    exports = dict(dev.exports)
    assert exports.pop("howToOpen")["here"] == "kubectl -n vllm port-forward service/gateway 8000:80"
    assert exports == {
        "endpoint": "http://gateway.vllm.svc.cluster.local",
        "openaiBaseUrl": "http://gateway.vllm.svc.cluster.local/v1",
        "model": "Qwen/Qwen3-4B-Instruct-2507",
        "namespace": "vllm",
        "apiKeySecretName": "api-keys",
        "getApiKey": "make api-key STACK=dev",
        "showApiKeys": "kubectl -n vllm get secret api-keys -o jsonpath='{.data.keys\\.json}' | base64 -d",
        "engineServiceName": "engine",
        "gatewayServiceName": "gateway",
        "retainedAtDestroy": {},
        "gpu": "a10g",
        "gpuCount": 1,
        "modelRevision": "main",
        "engineImage": dev.plan.engine.image,
        "engineArguments": shlex.join(dev.plan.engine.args),
        "usdPerHourReplica": 1.006,
        "verify": verify_output(load_stack("dev")),
        "usdPerHourActive": dev.plan.cost.usd_per_hour_active,
        "usdPerHourIdle": dev.plan.cost.usd_per_hour_active,  # one replica runs always, whatever minReplicas says
    }


def test_what_a_cluster_has_no_use_for_is_said(dev: Rendered) -> None:
    (image,) = dev.warnings
    assert "gatewayImage is not set" in image
    assert "docker build -f image/gateway.Dockerfile -t vllm-endpoint-gateway:" in image
    rendered = render(gatewayImage="registry.example.com/gateway:1", maxReplicas=3, ttlHours=8, capacity="spot")
    scaling, unused = rendered.warnings
    assert scaling.startswith("maxReplicas is 3, but target kubernetes does not support autoscaling yet: 1 will run.")
    assert unused.startswith("target kubernetes ignores: capacity, ttlHours.")
