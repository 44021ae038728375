"""Changes that AWS refused half-way, or took and ignored: each goes through now, or is refused before it starts."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.pulumi_engine.conftest import whole_but
from tests.pulumi_engine.kit.cloud_rules import deletion
from tests.pulumi_engine.scene import Scene

Settings = dict[str, Any]
VPC: Settings = {"vpcId": "vpc-1"}
TWO_IN_A_ZONE = json.dumps({"subnet-a": "a", "subnet-b": "b", "subnet-b2": "b", "subnet-c": "c"})

# name -> the first settings, and what is set after them, one `pulumi up` each. Each ends unchanged.
THERE_AND_BACK: dict[str, tuple[Settings, list[Settings]]] = {
    # One listener a port: 80 forwards, redirects, forwards again; the endpoint's own port moves.
    "ports": (
        {"allowedCidrs": ["203.0.113.0/24"], "domain": "llm.example.com"},
        [{"domain": ""}, {"domain": "llm.example.com", "port": 8443}, {"domain": "", "port": 80}],
    ),
    # A network's rule is the same one, whichever setting and spelling it comes from.
    "networks": (
        {},
        [
            {"allowedCidrs": ["10.64.0.0/16"]},
            {"allowedCidrs": ["10.64.0.9/16", "2001:DB8::/32"]},
            {"allowedCidrs": ["2001:db8::/32"], "domain": "llm.example.com"},
            {"allowedCidrs": ["0.0.0.0/0"]},
            {"allowedCidrs": None},
        ],
    ),
    # A zone's mount target: one subnet fewer, another of the same zone, one more in front.
    "subnets": (
        {**VPC, "subnetIds": ["subnet-a", "subnet-b", "subnet-c"]},
        [
            {"subnetIds": ["subnet-a", "subnet-c"]},
            {"subnetIds": ["subnet-b", "subnet-c"]},
            {"subnetIds": ["subnet-c", "subnet-b2"]},
        ],
    ),
}


@pytest.mark.parametrize("name", whole_but(THERE_AND_BACK, "ports"))
def test_what_is_handed_over_or_renumbered_goes_through(scene: Scene, name: str) -> None:
    first, changes = THERE_AND_BACK[name]
    scene.environment["STANDIN_SUBNETS"] = TWO_IN_A_ZONE
    scene.init("dev", first).up()
    for change in changes:
        for key, value in change.items():
            scene.set(key, value)
        scene.up()
    assert scene.up().unchanged


@pytest.mark.whole_matrix
def test_a_stack_of_the_numbered_names_is_taken_over_as_it_is(scene: Scene) -> None:
    """Resources that had other names in the program keep their ids: nothing is made or deleted."""
    scene.init("dev", {**VPC, "subnetIds": ["subnet-a", "subnet-b"], "hfToken": "hf_first"}).up()
    state = json.loads(scene.run("stack", "export").output)
    former = {
        "vllm-dev-int-80": "vllm-dev-int",
        "vllm-dev-weights-us-east-1a": "vllm-dev-weights-0",
        "vllm-dev-weights-us-east-1b": "vllm-dev-weights-1",
        "vllm-dev-sg-clients-80-10.0.0.0/16": "vllm-dev-sg-clients-80-network",
    }
    text = json.dumps(state)
    for new, old in former.items():
        assert f'::{new}"' in text, new
        text = text.replace(f'::{new}"', f'::{old}"')
    path = scene.project / "state.json"
    path.write_text(text)
    scene.run("stack", "import", "--file", str(path))
    assert scene.up().steps == []
    assert all(f'::{new}"' in json.dumps(json.loads(scene.run("stack", "export").output)) for new in former)


@pytest.mark.whole_matrix
def test_what_faces_the_internet_waits_for_its_gateway(scene: Scene) -> None:
    scene.init("dev", {"allowedCidrs": ["203.0.113.0/24"]})
    slow = '{"InternetGateway::": 3, "": 0.01}'
    scene.up(STANDIN_SECONDS=slow)
    scene.destroy(STANDIN_SECONDS='{"LoadBalancer::": 2, "NatGateway::": 2, "Eip::": 2, "": 0.01}')
    assert scene.resources() == []


@pytest.mark.whole_matrix
def test_new_secrets_preview_what_up_does_and_a_new_token_fetches_at_once(scene: Scene) -> None:
    scene.init("dev", {"hfToken": "hf_first", "apiKeys": "sk-first"}).up()
    for key, replaced in (
        ("hfToken", {"vllm-dev-secret-hub-token", "vllm-dev-fetch"}),
        ("apiKeys", {"vllm-dev-secret-api-keys"}),
    ):
        scene.set(key, f"{key}-second")
        preview, up = scene.run("preview"), scene.up()
        for ran in (preview, up):
            assert {(step.type.rpartition(":")[2], step.name) for step in ran.steps} == {
                ("Schedule" if "fetch" in name else "SecretVersion", name) for name in replaced
            }, ran.arguments
        assert f"{key}-second" not in preview.output + up.output
    assert scene.up().unchanged


def test_a_gpu_that_the_stacks_zones_do_not_offer_is_refused_at_preview(scene: Scene) -> None:
    offers = json.dumps({"g5": "a b c", "g6": "d e"})
    scene.init("dev").up(STANDIN_OFFERS=offers)
    scene.set("gpu", "l4")
    ran = scene.run("preview", ok=False, STANDIN_OFFERS=offers)
    assert "g6.4xlarge: offered in us-east-1d, us-east-1e" in " ".join(ran.output.split())
    assert "are in us-east-1a, us-east-1b, us-east-1c and cannot move" in " ".join(ran.output.split())
    assert "Traceback" not in ran.output
    assert "unhandled error" not in ran.output
    changed = [row for row in scene.operations("update") if "group:Group" in row["urn"]]
    assert changed == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"owner": "R&D (ML)"}, "AWS tags allow letters, digits, spaces"),
        ({"allowedCidrs": ["203.0.113.0/33"]}, "is not a network"),
        ({**VPC, "subnetIds": ["subnet-a", "subnet-b", "subnet-b2"]}, "subnet-b, subnet-b2 are all in us-east-1b"),
    ],
    ids=["tag", "network", "two-subnets-of-a-zone"],
)
def test_what_aws_would_refuse_half_way_is_refused_at_preview(scene: Scene, settings: Settings, words: str) -> None:
    scene.environment["STANDIN_SUBNETS"] = TWO_IN_A_ZONE
    scene.init("dev", settings)
    assert words in " ".join(scene.run("preview", ok=False).output.split())


@pytest.mark.whole_matrix
def test_two_stacks_of_one_name_have_caches_of_their_own(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"
    other = Scene(tmp_path_factory.mktemp("other"))
    other.environment["STANDIN_CLOUD"] = str(scene.cloud_path)
    for each in (scene, other):
        each.init("dev", {"dockerHubCredentialsArn": secret}).up()
        assert each.up().unchanged


@pytest.mark.whole_matrix
def test_two_stacks_of_one_name_share_a_vpc(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    given = {**VPC, "subnetIds": ["subnet-a", "subnet-b"]}
    scene.init("dev", given).up()
    other = Scene(tmp_path_factory.mktemp("other"))
    other.environment["STANDIN_CLOUD"] = str(scene.cloud_path)
    other.init("dev", given).up()
    assert other.up().unchanged
    domains = {row["name"] for row in scene.cloud().values() if row["kind"] == "PrivateDnsNamespace"}
    assert len(domains) == 2
    gateways = [row for row in scene.cloud().values() if row.get("family") == "vllm-dev-gateway"]
    looked_in = [re.findall(r"dns:engine\.([a-z0-9.-]+):8000", row["containerDefinitions"]) for row in gateways]
    assert sorted(looked_in) == sorted([name] for name in domains)


@pytest.mark.whole_matrix
def test_what_is_in_use_cannot_be_deleted_before_its_user(scene: Scene) -> None:
    """The rule that every destroy of these tests is held against: it refuses what the state's order would never ask."""
    scene.init("dev").up()
    kinds = {row["kind"]: id_ for id_, row in scene.cloud().items()}
    for kind in ("CapacityProvider", "SecurityGroup", "TargetGroup", "Subnet", "FileSystem", "PrivateDnsNamespace"):
        arn = next(row["outputs"].get("arn", "") for row in scene.resources() if row.get("id") == kinds[kind])
        name = scene.cloud()[kinds[kind]].get("name", "")
        assert deletion(kinds[kind], arn, name, scene.cloud()), kind


@pytest.mark.whole_matrix
def test_a_replaced_firewall_stays_on_its_load_balancer(scene: Scene) -> None:
    scene.init("dev", {"domain": "llm.example.com", "wafRequestsPerFiveMinutes": 500}).up()
    (firewall,) = [row["urn"] for row in scene.resources() if row["type"].endswith(":WebAcl")]
    scene.up("--replace", firewall)
    rows = {row["kind"]: (id_, row) for id_, row in scene.cloud().items() if row["kind"].startswith("WebAcl")}
    (state,) = [row for row in scene.resources() if row["type"].endswith(":WebAcl")]
    assert rows["WebAclAssociation"][1]["webAclArn"] == state["outputs"]["arn"]
