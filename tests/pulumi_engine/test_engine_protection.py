"""``protect: true``: whatever is asked for, everything that serves still stands; without it, everything goes."""

from __future__ import annotations

import pytest

from tests.pulumi_engine.scene import Scene, names

# As many optional parts as one stack can have: each is at the far end of the graph, where a destroy begins.
EVERYTHING = {
    "domain": "llm.example.com",
    "wafRequestsPerFiveMinutes": 500,
    "ttlHours": 12,
    "monthlyBudgetUsd": 500,
    "alarmEmail": "ops@example.com",
    "accessLogs": True,
    "maxReplicas": 3,
    "protect": True,
}
KUBERNETES = {"target": "kubernetes", "domain": "llm.example.com", "protect": True}


def standing(scene: Scene) -> set[str]:
    """What exists in AWS or the cluster: a component without children is an entry of Pulumi's state and nothing else."""
    return {resource["urn"] for resource in scene.resources() if resource["custom"]}


def urn(scene: Scene, kind: str, name: str = "") -> str:
    (found,) = [u for u in standing(scene) if f"{kind}::" in u and u.endswith(name)]
    return found


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(EVERYTHING, id="ecs"),
        pytest.param(KUBERNETES, id="kubernetes", marks=pytest.mark.whole_matrix),
    ],
)
def test_nothing_is_destroyed_while_it_is_protected_and_everything_after(
    scene: Scene, settings: dict[str, object]
) -> None:
    scene.init("prod" if settings is EVERYTHING else "dev", settings)
    scene.up()
    before = standing(scene)
    service = urn(scene, "aws:ecs/service:Service" if settings is EVERYTHING else "apps/v1:Deployment", "gateway")
    leaf = urn(scene, "cloudwatch/dashboard:Dashboard" if settings is EVERYTHING else "v1:Ingress")
    for arguments in (
        [],
        ["--continue-on-error"],
        ["--target", service],
        ["--target", service, "--target-dependents"],
        ["--target", leaf],
        ["--target", leaf, "--target-dependents"],
        ["--exclude-protected"],
    ):
        # With --exclude-protected Pulumi finds that everything is needed by what is protected, which is no error.
        ran = scene.destroy(*arguments, ok="--exclude-protected" in arguments)
        assert standing(scene) == before, (arguments, ran.output[-2000:])
        assert scene.operations("delete") == []
    scene.set("protect", False)
    scene.up()
    scene.destroy()
    assert scene.resources() == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"allowedCidrs": ["203.0.113.0/24"]}, "loadBalancer:LoadBalancer"),
        pytest.param(
            {"kmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1"},
            "fileSystem:FileSystem",
            marks=pytest.mark.whole_matrix,
        ),
    ],
    ids=["load-balancer", "file-system"],
)
def test_a_replacement_of_what_serves_is_refused(scene: Scene, change: dict[str, object], kind: str) -> None:
    scene.init("prod", {"protect": True})
    scene.up()
    before, services = standing(scene), _services(scene)
    for key, value in change.items():
        scene.set(key, value)
    assert "protect" in scene.run("preview", ok=False).output
    ran = scene.up(ok=False)
    assert f"{kind}" in ran.output
    assert "marked for protection" in ran.output
    assert before <= standing(scene)
    assert scene.operations("delete") == []
    assert _services(scene) == services, "a service was moved to a load balancer or file system that is not served"


def _services(scene: Scene) -> dict[str, object]:
    return {r["urn"]: r["inputs"] for r in scene.resources() if r["type"] == "aws:ecs/service:Service"}


@pytest.mark.whole_matrix
def test_everyday_changes_go_through_under_protection(scene: Scene) -> None:
    scene.init("prod", {**EVERYTHING, "hfToken": "hf_first"})
    scene.up()
    for change in (
        {"hfToken": "hf_second", "apiKeys": "team=sk-1", "allowedCidrs": ["203.0.113.0/24"]},
        {"model": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "port": 8443, "ttlHours": 0, "monthlyBudgetUsd": 0},
        {"wafRequestsPerFiveMinutes": 0, "dashboard": False, "accessLogs": False},
    ):
        for key, value in change.items():
            scene.set(key, value)
        scene.up()
    assert "vllm-prod-pub-8443" in names(scene.resources())
