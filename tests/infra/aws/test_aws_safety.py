"""Flow logs, access logs and the web application firewall."""

import re

import pytest

from infra.aws.firewall import LARGEST_BODY
from infra.aws.flow_logs import FlowLogs, FlowLogsArgs
from infra.settings import FlowLogs as Traffic
from tests.infra.program import arn, run_program


def test_refused_connections_are_logged_unless_all_or_none_are_asked_for() -> None:
    for program, traffic in ((run_program("dev"), "REJECT"), (run_program("dev", flowLogs="all"), "ALL")):
        flow = program.one("FlowLog")
        assert flow.inputs["trafficType"] == traffic
        assert flow.inputs["vpcId"] == "vllm-dev-network-id"
        assert flow.inputs["logDestinationType"] == "cloud-watch-logs"
        assert flow.inputs["logDestination"] == arn("aws:cloudwatch/logGroup:LogGroup", "vllm-dev-logs-network")
        assert flow.inputs["iamRoleArn"] == arn("aws:iam/role:Role", "vllm-dev-flow")
        assert "vllm-dev-flow" in {urn.rpartition("::")[2] for urn in flow.depends_on}
        statement = program.one("RolePolicy", "-flow").document()["Statement"][0]
        assert set(statement["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"}
        assert statement["Resource"] == [flow.inputs["logDestination"] + ":*"]
    none = run_program("dev", flowLogs="none")
    assert none.all("FlowLog") == []
    assert len(none.all("LogGroup")) == 2


def test_a_network_of_somebody_elses_is_not_logged() -> None:
    assert run_program("dev", vpcId="vpc-1", subnetIds=["subnet-a", "subnet-b"]).all("FlowLog") == []


def test_access_logs_go_to_a_private_bucket_that_load_balancers_alone_write_to() -> None:
    program = run_program("dev", accessLogs=True, logRetentionDays=14)
    bucket = "vllm-dev-access-id"
    balancer = program.one("LoadBalancer")
    assert balancer.inputs["accessLogs"] == {"bucket": bucket, "enabled": True}
    assert "vllm-dev-access" in {u.rpartition("::")[2] for u in balancer.depends_on if "BucketPolicy" in u}
    closed = program.one("BucketPublicAccessBlock").inputs
    assert {k: v for k, v in closed.items() if k != "bucket"} == dict.fromkeys(
        ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), True
    )
    write, deny = program.one("BucketPolicy").document()["Statement"]
    assert write["Principal"] == {"Service": "logdelivery.elasticloadbalancing.amazonaws.com"}
    assert write["Action"] == ["s3:PutObject"]
    assert write["Resource"] == [arn("aws:s3/bucket:Bucket", "vllm-dev-access") + "/AWSLogs/123456789012/*"]
    source = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/*"
    assert write["Condition"] == {"ArnLike": {"aws:SourceArn": source}}
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    (rule,) = program.one("BucketLifecycleConfiguration").inputs["rules"]
    assert (rule["status"], rule["expiration"]) == ("Enabled", {"days": 14})
    (encryption,) = program.one("BucketServerSideEncryptionConfiguration").inputs["rules"]
    assert encryption["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "AES256"}
    assert program.one("Bucket").inputs["forceDestroy"] is True
    assert run_program("prod", accessLogs=True).one("Bucket").retained


def test_nothing_is_logged_in_a_bucket_unless_asked_for() -> None:
    program = run_program("dev")
    assert program.all("Bucket") == program.all("WebAcl") == []
    assert "accessLogs" not in program.one("LoadBalancer").inputs


def test_the_firewall_blocks_floods_outsized_bodies_and_addresses_of_ill_repute() -> None:
    program = run_program("dev", wafRequestsPerFiveMinutes=2000)
    acl = program.one("WebAcl").inputs
    assert (acl["scope"], acl["defaultAction"]) == ("REGIONAL", {"allow": {}})
    reputation, flood, size = acl["rules"]
    assert reputation["statement"]["managedRuleGroupStatement"]["name"] == "AWSManagedRulesAmazonIpReputationList"
    assert reputation["overrideAction"] == {"none": {}}
    assert flood["statement"]["rateBasedStatement"] == {
        "limit": 2000,
        "aggregateKeyType": "IP",
        "evaluationWindowSec": 300,
    }
    assert flood["action"] == size["action"] == {"block": {}}
    match = size["statement"]["regexMatchStatement"]
    assert match["fieldToMatch"] == {"singleHeader": {"name": "content-length"}}
    assert match["regexString"] == LARGEST_BODY
    assert [rule["priority"] for rule in acl["rules"]] == [0, 1, 2]
    # Sampled requests would show the Authorization header in the console.
    shown = [acl["visibilityConfig"], *(rule["visibilityConfig"] for rule in acl["rules"])]
    assert all(config["sampledRequestsEnabled"] is False for config in shown)
    association = program.one("WebAclAssociation").inputs
    assert association["resourceArn"] == arn("aws:lb/loadBalancer:LoadBalancer", "vllm-dev-int")
    assert association["webAclArn"] == arn("aws:wafv2/webAcl:WebAcl", "vllm-dev-firewall")


def test_the_firewall_lets_through_what_the_gateway_takes() -> None:
    for allowed in (0, 1, 20 << 20, 20_999_999):
        assert not re.match(LARGEST_BODY, str(allowed))
    for refused in (21_000_000, 30_000_000, 99_999_999, 100_000_000, 10**12):
        assert re.match(LARGEST_BODY, str(refused))


def test_descriptions_have_only_the_characters_that_aws_takes() -> None:
    program = run_program("prod", wafRequestsPerFiveMinutes=2000)
    groups = [
        r
        for kind in ("SecurityGroup", "SecurityGroupIngressRule", "SecurityGroupEgressRule")
        for r in program.all(kind)
    ]
    for resource in groups:
        text = resource.inputs.get("description", "")
        assert re.fullmatch(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}", text), text
    text = program.one("WebAcl").inputs["description"]
    assert re.fullmatch(r"[\w+=:#@/\-,.][\w+=:#@/\-,.\s]+[\w+=:#@/\-,.]", text), text


def test_logging_nothing_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="nothing to log"):
        FlowLogs("f", FlowLogsArgs(None, "vpc-1", Traffic.NONE, None))  # type: ignore[arg-type]
