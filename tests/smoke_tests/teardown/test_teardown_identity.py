"""Whose something is: the program's own names are known, and no other stack's ever are."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.aws.context import RETAINED_TAG as INFRA_RETAINED_TAG
from infra.aws.context import Context
from infra.identity import Identity as Owner
from infra.settings import PROJECT as INFRA_PROJECT
from smoke_tests.teardown.identity import ENDINGS, PROJECT, RETAINED_TAG, WHOLE, Identity
from smoke_tests.teardown.kinds import KINDS, ORDER
from smoke_tests.teardown.prices import price_table
from tests.infra.program import run_program

CATALOG = Path(__file__).parents[3] / "infra/planning/catalog"
EVERYTHING: dict[str, Any] = {
    "alarmEmail": "ops@example.com", "ttlHours": 8, "monthlyBudgetUsd": 300, "accessLogs": True, "hfToken": "hf_x",
    "wafRequestsPerFiveMinutes": 1000, "domain": "llm.example.com", "weightsThroughput": "bursting", "maxReplicas": 3,
    "dockerHubCredentialsArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf",
}  # fmt: skip
# What the sweep finds by name as well as by tag, and what by tag alone: type of the program -> kind of the sweep.
BY_NAME = {
    "autoscaling/group:Group": "Auto Scaling group", "budgets/budget:Budget": "budget",
    "cloudwatch/dashboard:Dashboard": "dashboard", "cloudwatch/logGroup:LogGroup": "log group",
    "cloudwatch/metricAlarm:MetricAlarm": "alarm", "ec2/launchTemplate:LaunchTemplate": "launch template",
    "ec2/securityGroup:SecurityGroup": "security group", "ecr/pullThroughCacheRule:PullThroughCacheRule": "pull-through cache",
    "ecr/repository:Repository": "ECR repository", "ecs/capacityProvider:CapacityProvider": "capacity provider",
    "ecs/cluster:Cluster": "ECS cluster", "ecs/taskDefinition:TaskDefinition": "task definition",
    "iam/instanceProfile:InstanceProfile": "instance profile", "iam/role:Role": "IAM role",
    "lambda/function:Function": "Lambda function", "lb/loadBalancer:LoadBalancer": "load balancer",
    "lb/targetGroup:TargetGroup": "target group", "s3/bucket:Bucket": "S3 bucket",
    "scheduler/scheduleGroup:ScheduleGroup": "schedule group", "secretsmanager/secret:Secret": "secret",
    "servicediscovery/privateDnsNamespace:PrivateDnsNamespace": "Cloud Map namespace", "sns/topic:Topic": "SNS topic",
    "wafv2/webAcl:WebAcl": "web ACL",
}  # fmt: skip
BY_TAG = {
    "acm/certificate:Certificate": "certificate", "ec2/eip:Eip": "Elastic IP", "ec2/flowLog:FlowLog": "flow log",
    "ec2/internetGateway:InternetGateway": "internet gateway", "ec2/natGateway:NatGateway": "NAT gateway",
    "ec2/routeTable:RouteTable": "route table", "ec2/subnet:Subnet": "subnet", "ec2/vpc:Vpc": "VPC",
    "ec2/vpcEndpoint:VpcEndpoint": "VPC endpoint", "efs/accessPoint:AccessPoint": "EFS access point",
    "efs/fileSystem:FileSystem": "EFS file system",
}  # fmt: skip
# What costs nothing and goes with what it is a part of.
PARTS = {
    "acm/certificateValidation:CertificateValidation", "appautoscaling/policy:Policy", "appautoscaling/target:Target",
    "autoscaling/lifecycleHook:LifecycleHook", "autoscaling/policy:Policy", "ec2/defaultSecurityGroup:DefaultSecurityGroup",
    "ec2/route:Route", "ec2/routeTableAssociation:RouteTableAssociation", "ecr/lifecyclePolicy:LifecyclePolicy",
    "ecs/clusterCapacityProviders:ClusterCapacityProviders", "ecs/service:Service", "efs/fileSystemPolicy:FileSystemPolicy",
    "efs/mountTarget:MountTarget", "iam/rolePolicy:RolePolicy", "lb/listener:Listener", "route53/record:Record",
    "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
    "s3/bucketOwnershipControls:BucketOwnershipControls", "s3/bucketPolicy:BucketPolicy",
    "s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration", "scheduler/schedule:Schedule",
    "secretsmanager/secretVersion:SecretVersion", "servicediscovery/service:Service",
    "sns/topicSubscription:TopicSubscription", "vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "vpc/securityGroupIngressRule:SecurityGroupIngressRule", "wafv2/webAclAssociation:WebAclAssociation",
}  # fmt: skip

stacks = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,24}", fullmatch=True)
words = st.sampled_from(
    [
        "gpu",
        "sg",
        "engine",
        "logs",
        "role",
        "alarm",
        "image",
        "int",
        "pub",
        "budget",
        "ttl",
        "flow",
        "secret",
        "1a2b3c4",
        "eu",
        "2",
    ]
)


def test_whatever_the_program_makes_is_swept() -> None:
    identity, titles = Identity("dev"), {kind.title for kind in KINDS}
    assert {*BY_NAME.values(), *BY_TAG.values()} <= titles
    for resource in run_program("dev", **EVERYTHING).resources:
        if not resource.type.startswith("aws:") or (kind := resource.type.removeprefix("aws:")) in PARTS:
            continue
        assert kind in BY_NAME or kind in BY_TAG, f"{kind}: let smoke_tests/teardown find it, or list it among PARTS"
        tags = resource.inputs.get("tags") or {}
        if isinstance(tags, list):
            tags = {tag["key"]: tag["value"] for tag in tags}
        if kind in BY_TAG:
            assert identity.claims(BY_TAG[kind], "", tags) == "tag", resource.name
            continue
        explicit = next(
            (v for k in ("name", "family", "ecrRepositoryPrefix", "dashboardName") if (v := resource.inputs.get(k))), ""
        )
        name = str(explicit or f"{resource.name}-1a2b3c4")
        assert identity.claims(BY_NAME[kind], name, {}) == "name", (
            f"{kind} {name}: add it to smoke_tests/teardown/identity.py"
        )
        assert not tags or identity.claims(BY_NAME[kind], "x", tags) == "tag"


def test_kinds_and_order_name_the_same() -> None:
    assert len(set(ORDER)) == len(ORDER) == len(KINDS)
    assert {*ENDINGS, *WHOLE} <= set(ORDER)


@given(stacks)
def test_a_stack_is_shortened_as_the_program_shortens_it(stack: str) -> None:
    assert Identity(stack).prefix == Context(Owner(stack), "us-east-1", "1", "aws").prefix
    assert PROJECT == INFRA_PROJECT


# Stacks whose names begin alike, for that is where a mere beginning would be taken for the whole.
families = st.tuples(st.sampled_from(["dev", "prod", "a"]), st.lists(words, min_size=1, max_size=3)).flatmap(
    lambda pair: st.tuples(
        st.just(pair[0]), st.sampled_from(["-".join([pair[0], *pair[1]]), pair[0] + "".join(pair[1])])
    )
)


@settings(max_examples=40)
@given(st.one_of(families, st.tuples(stacks, stacks)), st.data())
def test_no_name_of_another_stack_is_taken_for_ones_own(pair: tuple[str, str], data: st.DataObject) -> None:
    mine, theirs = pair
    if Identity(theirs).prefix == Identity(mine).prefix:
        return
    for kind in (*ENDINGS, *WHOLE):
        for name in _names(theirs, kind, data):
            assert Identity(theirs).named(kind, name)
            assert not Identity(mine).named(kind, name), f"{kind} {name} of {theirs} is taken for one of {mine}"


def _names(stack: str, kind: str, data: st.DataObject) -> list[str]:
    prefix = Identity(stack).prefix
    forms = [form.replace("{prefix}", prefix.replace(".", r"\.")) for form in WHOLE.get(kind, ())]
    if kind in ENDINGS:
        forms.append(f"{prefix}-(?:{ENDINGS[kind]})")
    return [data.draw(st.from_regex(form.replace(".*", "x"), fullmatch=True)) for form in forms]


@given(stacks, stacks, st.sampled_from(sorted(ENDINGS)), st.booleans())
def test_tags_of_another_stack_or_project_outrank_any_name(mine: str, other: str, kind: str, whole: bool) -> None:
    named = f"{Identity(mine).prefix}-gpu-1a2b3c4"
    identity = Identity(mine)
    if other != mine:
        assert identity.claims(kind, named, {"Project": PROJECT, "Stack": other}) == ""
    assert identity.claims(kind, named, {"Project": "other", "Stack": mine}) == ""
    assert identity.claims(kind, named, {"Project": PROJECT} if whole else {"Stack": mine}) == ""
    assert identity.claims(kind, "anything", {"Project": PROJECT, "Stack": mine}) == "tag"


def test_another_projects_names_are_not_known() -> None:
    assert Identity("dev").claims("ECS cluster", "vllm-dev-gpu-1a2b3c4", {}) == "name"
    assert Identity("dev", "other").claims("ECS cluster", "vllm-dev-gpu-1a2b3c4", {}) == ""


def test_prices_are_those_of_the_plan() -> None:
    ours = price_table()
    instances, others = (json.loads((CATALOG / name).read_text()) for name in ("instances.json", "prices.json"))
    assert ours["instance_types"] == {name: row["usd_per_hour"] for name, row in instances["types"].items()}
    assert (ours["instances_priced_on"], ours["priced_on"]) == (instances["priced_on"], others["priced_on"])
    shared = set(ours["usd"]) & set(others["usd"])
    assert len(shared) > 10
    assert {name: ours["usd"][name] for name in shared} == {name: others["usd"][name] for name in shared}
    assert ours["usd"]["waf_acl_month"] + 3 * ours["usd"]["waf_rule_month"] == others["usd"]["waf_month"]


def test_what_is_kept_at_destroy_says_so_by_its_tag() -> None:
    made = [resource for resource in run_program("prod", accessLogs=True).resources if resource.inputs.get("tags")]
    told = {r.name for r in made if isinstance(r.inputs["tags"], dict) and r.inputs["tags"].get(RETAINED_TAG) == "true"}
    assert told == {resource.name for resource in made if resource.retained}
    assert len(told) == 8
    assert RETAINED_TAG == INFRA_RETAINED_TAG  # the sweep recognizes what the deploy tags
