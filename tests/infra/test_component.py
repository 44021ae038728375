"""The components in somebody else's program: arguments that are outputs, options, names, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_random as random
import pytest

from infra.arguments import fields_of
from infra.aws.endpoint import VllmEndpoint
from infra.identity import Identity
from infra.inputs import is_input
from infra.kubernetes.endpoint import VllmEndpointOnKubernetes
from tests.infra.program import Program, run_foreign

IMAGE: Any = {"gateway_image": "registry.example.com/gateway:1"}  # nothing is built
DOMAIN: Any = {"domain": "llm.example.com"}
VPC: Any = {"vpc_id": "vpc-1", "subnet_ids": ["subnet-b", "subnet-d"]}
# argument -> (its value, the arguments that it needs beside it)
INPUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "allowed_security_group_ids": (["sg-1", "sg-2"], VPC),
    "api_keys": ("alice=sk-very-secret", {}),
    "api_keys_document": ('{"alice": "sk-very-secret"}', {}),
    "capacity_reservation_id": ("cr-0123456789abcdef0", {"capacity": "reservation"}),
    "certificate_arn": ("arn:aws:acm:us-east-1:123456789012:certificate/1", {}),
    "docker_hub_credentials_arn": (
        "arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf", {},
    ),
    "gateway_image": ("123456789012.dkr.ecr.us-east-1.amazonaws.com/gateway:1", {}),
    "hf_token": ("hf_very_secret", {}),
    "hosted_zone_id": ("Z0123456789", DOMAIN),
    "kms_key_arn": ("arn:aws:kms:us-east-1:123456789012:key/1234abcd", {"access_logs": True, "alarm_email": "a@b.cd"}),
    "kubernetes_storage_class": ("efs", {}),
    "load_balancer_subnet_ids": (["subnet-a", "subnet-c"], {**VPC, **DOMAIN}),
    "results_bucket": ("acme-results", {}),
    "subnet_ids": (["subnet-b", "subnet-d"], {"vpc_id": "vpc-1"}),
    "vpc_id": ("vpc-1", {"subnet_ids": ["subnet-b", "subnet-d"]}),
}  # fmt: skip


def output(value: Any) -> pulumi.Output[Any]:
    """An output of another resource, unknown during a preview."""
    other = random.RandomPassword(f"other-{value}", length=8)
    return other.id.apply(lambda _: value)


def forms(value: Any) -> dict[str, Callable[[], Any]]:
    """The ways in which a value can be an output."""
    found: dict[str, Callable[[], Any]] = {"output": lambda: output(value)}
    if isinstance(value, list):
        found["list of outputs"] = lambda: [output(item) for item in value]
        found["list of both"] = lambda: [value[0], output(value[1])]
    return found


CASES = [
    pytest.param(kind, name, form, id=f"{kind.__name__}-{name}-{form}")
    for kind in (VllmEndpoint, VllmEndpointOnKubernetes)
    for name, field in fields_of(kind.__name__).items()
    if is_input(field)
    for form in forms(INPUTS[name][0])
]


@pytest.fixture
def outputs_are_never_text() -> Iterator[None]:
    def refuse(self: object, *_: object) -> Any:
        raise AssertionError("an output was formatted, compared or iterated over")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("__str__", "__format__", "__iter__", "__contains__"):
            patch.setattr(pulumi.Output, name, refuse, raising=False)
        yield


def everything(program: Program) -> str:
    return repr([resource.inputs for resource in program.resources])


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "update"])
@pytest.mark.parametrize(("kind", "name", "form"), CASES)
@pytest.mark.usefixtures("outputs_are_never_text")
def test_an_argument_can_be_an_output_that_a_preview_does_not_know(
    kind: type[VllmEndpoint], name: str, form: str, preview: bool
) -> None:
    value, beside = INPUTS[name]
    if kind is not VllmEndpoint and name == "certificate_arn":
        beside = {**DOMAIN, "kubernetes_ingress_class": "alb"}
    program = run_foreign(lambda: kind("chat", IMAGE | beside | {name: forms(value)[form]()}), preview=preview)
    assert len(program.resources) > 15
    told = " ".join([*program.warnings, *program.errors])
    assert "utput" not in told
    if not preview:
        first = value[0] if isinstance(value, list) else value
        wanted = "very-secret" if "very-secret" in first else "very_secret" if "very_secret" in first else first
        # What only make verify reads is in the outputs.
        assert name == "results_bucket" or wanted in everything(program)


def test_an_outputs_value_is_validated_like_a_plain_one() -> None:
    with pytest.raises(pulumi.RunError) as plain:
        run_foreign(lambda: VllmEndpoint("chat", **IMAGE, kms_key_arn="alias/ours"))
    with pytest.raises(pulumi.RunError) as known_later:
        run_foreign(lambda: VllmEndpoint("chat", **IMAGE, kms_key_arn=output("alias/ours")))
    (sentence,) = str(plain.value).splitlines()[1:]
    assert str(known_later.value) == f"VllmEndpoint chat: {sentence.removeprefix('  - ')}"
    assert sentence.startswith("  - kmsKeyArn: found 'alias/ours'")
    with pytest.raises(pulumi.RunError, match="apiKeys: found a value that is not shown") as secret:
        run_foreign(lambda: VllmEndpoint("chat", **IMAGE, api_keys=output("a=sk-hidden,a=sk-hidden")))
    assert "hidden" not in str(secret.value)
    with pytest.raises(pulumi.RunError, match="vpcId: found an empty value"):
        run_foreign(lambda: VllmEndpoint("chat", **IMAGE, vpc_id=output(""), subnet_ids=VPC["subnet_ids"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gppu": "h100"}, "gppu: unknown setting; did you mean gpu"),
        ({"max_modle_len": 1}, "maxModleLen: unknown setting; did you mean maxModelLen"),
        ({"gpu": "h1"}, "gpu: found 'h1'"),
        ({"kubernetes_namespace": "llm"}, "kubernetesNamespace: not an argument of VllmEndpoint"),
        ({"model": "Qwen/Qwen3-32B-FP8"}, "does not fit on one NVIDIA A10G"),
        ({"vpc_id": "vpc-1", "subnet_ids": ["subnet-a", "subnet-x"]}, "subnetIds: subnet-x not found in vpc-1"),
    ],
)
def test_a_refusal_names_the_component_and_is_no_traceback(arguments: Any, words: str) -> None:
    with pytest.raises(pulumi.RunError, match=re.escape(words)) as refused:
        run_foreign(lambda: VllmEndpoint("chat", **IMAGE, **arguments))
    assert str(refused.value).startswith("VllmEndpoint chat: ")


def test_what_planning_needs_must_be_plain() -> None:
    with pytest.raises(pulumi.RunError, match="gpu: found an output of another resource"):
        run_foreign(lambda: VllmEndpoint("chat", **IMAGE, gpu=output("l4")))


def test_every_child_inherits_the_components_options() -> None:
    def declare() -> None:
        other = random.RandomPassword("first", length=8)
        frankfurt = aws.Provider("frankfurt", region="eu-central-1")
        options = pulumi.ResourceOptions(protect=True, provider=frankfurt, depends_on=[other])
        VllmEndpoint("chat", **IMAGE, opts=options)

    program = run_foreign(declare)
    (first,) = [resource.urn for resource in program.resources if resource.name == "first"]
    (provider,) = [resource.urn for resource in program.resources if resource.type == "pulumi:providers:aws"]
    children = [r for r in program.resources if r.type.startswith("aws:")]
    assert len(children) > 80
    for child in children:
        assert child.protected, child.urn
        assert child.provider.startswith(provider), child.urn
        assert first in child.depends_on, child.urn


PLACES = {"chat": ("aws", "us-east-1", "123456789012"), "cn": ("aws-cn", "cn-north-1", "222222222222"),
          "eu": ("aws", "eu-central-1", "333333333333")}  # fmt: skip


def test_account_region_partition_and_zones_are_those_of_the_components_provider() -> None:
    def provider(name: str) -> aws.Provider:
        _, region, account = PLACES[name]
        role = aws.ProviderAssumeRoleArgs(role_arn=f"arn:aws:iam::{account}:role/deploy")
        return aws.Provider(name, region=region, assume_roles=[role])

    regions: dict[str, str] = {}

    def declare() -> None:
        made = VllmEndpoint("chat", **IMAGE)
        # By name, in a list, and inherited from a component of the program's own.
        parent = pulumi.ComponentResource(
            "acme:index:Team", "team", None, pulumi.ResourceOptions(providers=[provider("eu")])
        )
        cn = VllmEndpoint("cn", **IMAGE, opts=pulumi.ResourceOptions(providers={"aws": provider("cn")}))
        eu = VllmEndpoint("eu", **IMAGE, opts=pulumi.ResourceOptions(parent=parent))
        for endpoint in (made, cn, eu):
            endpoint.region.apply(partial(regions.__setitem__, endpoint._name))

    program = run_foreign(declare)
    parents = {resource.urn: resource.parent for resource in program.resources}
    for name, (partition, region, account) in PLACES.items():
        own = [r for r in program.resources if f"VllmEndpoint::{name}" in _ancestors(r.urn, parents)]
        text = repr([resource.inputs for resource in own])
        arns = set(re.findall(r"arn:([\w-]+):[\w-]+:([a-z]+-[a-z]+-\d):(\d+):", text))
        assert arns == {(partition, region, account)}, name
        assert set(re.findall(r"arn:([\w-]+):", text)) == {partition}, name
        assert {zone[:-1] for zone in re.findall(r"\b[a-z]{2}-[a-z]+-\d[a-f]\b", text)} == {region}, name
        assert regions[name] == region


def _ancestors(urn: str, parents: dict[str, str]) -> str:
    found = urn
    while urn := parents.get(urn, ""):
        found += f" {urn}"
    return found


@pytest.mark.parametrize("kind", [VllmEndpoint, VllmEndpointOnKubernetes])
def test_every_output_has_a_value_and_none_is_or_contains_a_secret(kind: type[VllmEndpoint]) -> None:
    found: dict[str, tuple[bool, Any]] = {}

    async def read(name: str, output: pulumi.Output[Any]) -> bool:
        found[name] = (await output.is_secret(), await output.future())
        return True

    def declare() -> None:
        chat = kind("chat", **IMAGE, api_keys="team=sk-hidden", hf_token=pulumi.Output.secret("hf_hidden"))
        for name in kind.__annotations__:
            waited: pulumi.Output[bool] = pulumi.Output.from_input(read(name, getattr(chat, name)))
            waited.apply(lambda done: done)

    run_foreign(declare)
    assert set(found) == set(kind.__annotations__)
    assert not [name for name, (secret, _) in found.items() if secret]
    assert not [name for name, (_, value) in found.items() if value in (None, "", {})]
    assert "hidden" not in repr(found)


def test_a_provider_that_is_not_configured_during_the_preview_is_one_sentence() -> None:
    def declare() -> None:
        later = aws.Provider("later", region=output("eu-central-1"))
        VllmEndpoint("chat", **IMAGE, opts=pulumi.ResourceOptions(provider=later))

    words = "VllmEndpoint chat: its AWS provider cannot be asked during this preview"
    with pytest.raises(pulumi.RunError, match=words):
        run_foreign(declare, preview=True)
    assert len(run_foreign(declare).resources) > 80


def test_one_endpoint_of_each_kind_can_have_the_same_name() -> None:
    def declare() -> None:
        VllmEndpoint("chat", **IMAGE)
        VllmEndpointOnKubernetes("chat", **IMAGE)

    program = run_foreign(declare)
    resources = (*program.resources, *program.stashes)
    assert len({resource.urn for resource in resources}) == len(resources)
    # The prefix of the names of its hooks, which are unique in a program.
    watched = [stash.name for stash in program.stashes if stash.name.endswith("endpoint")]
    assert len(watched) == len(set(watched)) == 2


def test_a_component_leaves_the_programs_own_resources_alone() -> None:
    def declare() -> None:
        VllmEndpoint("chat", **IMAGE, protect=True)
        aws.ecs.Cluster("theirs")

    (theirs,) = [resource for resource in run_foreign(declare).resources if resource.name == "theirs"]
    assert not theirs.protected


NAMES = ["chat", "Chat", "chat.eu", "chat-eu", "chat_eu", "a", "x" * 60, "x" * 61, "é", "team/chat"]
STACKS = ["prod", "dev", "Prod", "prod.eu", "prod-eu", "s" * 99, "s" * 100, "feature.a-b", "feature.a.b", "p"]
PAIRS = [(name, stack) for name in NAMES for stack in STACKS]
# AWS's limits of names, of which Pulumi's random suffix takes 8 characters.
LONGEST = {
    "Budget": 100, "CapacityProvider": 255, "Cluster": 255, "Dashboard": 255, "Function": 64, "LaunchTemplate": 128, "LoadBalancer": 32,
    "LogGroup": 512, "MetricAlarm": 255, "Repository": 256, "Role": 64, "Schedule": 64, "ScheduleGroup": 64, "Secret": 512,
    "SecurityGroup": 255, "Service": 255, "TargetGroup": 32, "Topic": 256, "WebAcl": 128,
}  # fmt: skip
BUCKET = 63


def test_a_hundred_pairs_of_endpoint_and_stack_have_a_hundred_valid_prefixes() -> None:
    assert len(PAIRS) == 100
    identities = [Identity(stack, "platform", name) for name, stack in PAIRS]
    prefixes = [identity.prefix(20) for identity in identities]
    own = [Identity(stack).prefix(20) for stack in STACKS]
    assert len({*prefixes, *own}) == 100 + len(STACKS)
    assert len({identity.tag for identity in identities}) == len({i.prefix(63) for i in identities}) == 100
    for identity, prefix in zip(identities, prefixes, strict=True):
        assert re.fullmatch(r"vllm(-[a-z0-9]+)+", prefix)
        assert len(prefix) <= 20
        assert re.fullmatch(r"[\w .:/=+@-]{1,256}", identity.tag)
        assert prefix == Identity(identity.stack, identity.project, identity.endpoint).prefix(20)
    assert Identity("prod", "platform", "chat").prefix(20) == "vllm-chat-7a6e1f26", "names of deployed endpoints stay"
    assert Identity("prod", "other", "chat").prefix(20) != Identity("prod", "platform", "chat").prefix(20)


def test_two_endpoints_share_no_name_of_aws_nor_the_stack_files() -> None:
    values: Any = {
        "ttl_hours": 8, "monthly_budget_usd": 300, "alarm_email": "ops@example.com", "access_logs": True, **VPC,
        "waf_requests_per_five_minutes": 100, "docker_hub_credentials_arn": INPUTS["docker_hub_credentials_arn"][0],
    }  # fmt: skip

    def declare() -> None:
        VllmEndpoint("chat", values)
        VllmEndpoint("Chat" + "x" * 60, values)

    program = run_foreign(declare, stack="s" * 100)
    urns = [resource.urn for resource in (*program.resources, *program.stashes)]
    assert len(urns) == len(set(urns))
    explicit: dict[tuple[str, str], list[str]] = {}
    for resource in program.resources:
        for key in ("name", "family", "dashboardName", "ecrRepositoryPrefix", "metricName"):
            watched = key == "metricName" and "Alarm" in resource.type  # an alarm's metric is not its name
            if isinstance(given := resource.inputs.get(key), str) and not watched:
                explicit.setdefault((resource.type, given), []).append(resource.urn)
    shared = {pair: found for pair, found in explicit.items() if len(found) > 1}
    limits = LONGEST | {"BucketV2": BUCKET, "Bucket": BUCKET}
    named = [r for r in program.resources if r.type.startswith("aws:") and r.type.rpartition(":")[2] in limits]
    assert {resource.type.rpartition(":")[2] for resource in named} >= set(LONGEST) - {"Repository"}
    for resource in named:
        name = next((resource.inputs[key] for key in ("name", "dashboardName") if key in resource.inputs), None)
        assert len(name or f"{resource.name}-1a2b3c4") <= limits[resource.type.rpartition(":")[2]], resource.urn
    # These are names within something of the endpoint's own.
    assert {kind for kind, _ in shared} <= {"aws:servicediscovery/service:Service", "aws:route53/record:Record"}


def test_two_endpoints_of_one_cluster_have_a_namespace_each() -> None:
    def declare() -> None:
        for name in ("chat", "batch"):
            VllmEndpointOnKubernetes(name, **IMAGE)

    program = run_foreign(declare)
    urns = [resource.urn for resource in (*program.resources, *program.stashes)]
    assert len(urns) == len(set(urns))
    spaces = [r.inputs["metadata"]["name"] for r in program.all("Namespace")]
    assert spaces == [Identity("prod", "platform", name).prefix(63) for name in ("chat", "batch")]
    labels = {r.inputs["metadata"]["labels"]["app.kubernetes.io/instance"] for r in program.all("Deployment")}
    assert labels == set(spaces)
