"""The gateway, its image, the load balancer in front of it, the domain."""

import json
import re
from pathlib import Path

import pytest

from image.gateway.backends import DnsDiscovery, EcsCapacity, SecretsManagerKeys
from image.gateway.settings import Settings as GatewaySettings
from infra.aws.domain import hosted_zone_name
from infra.aws.load_balancer import listener_ports
from infra.aws.registry import repository_arn
from infra.planning import make_plan
from infra.stack_files import load_stack
from tests.infra.program import ROOT, Program, arn, run_program

SECRET = arn("aws:secretsmanager/secret:Secret", "vllm-dev-secret-api-keys")


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


def test_the_gateway_understands_its_environment(dev: Program) -> None:
    environment = dev.one("TaskDefinition", "gateway").environment()
    settings = GatewaySettings.from_environment(environment)
    assert settings.discovery == DnsDiscovery("engine.vllm-dev.internal", 8000)
    assert settings.capacity == EcsCapacity("vllm-dev-gpu-1a2b3c4", "vllm-dev-engine-1a2b3c4", "vllm-dev-gpu-1a2b3c4")
    assert settings.keys == SecretsManagerKeys(SECRET)
    assert (settings.emf_namespace, settings.stack) == ("VllmEndpoint", "vllm-dev-gpu-1a2b3c4")
    assert environment["AWS_REGION"] == "us-east-1"
    assert [str(network) for network in settings.trusted_proxies] == ["10.64.0.0/16"]
    planned = make_plan(load_stack("dev")).gateway.environment
    assert planned.items() <= environment.items()


def test_the_gateway_may_read_its_keys_and_wake_its_engine_alone(dev: Program) -> None:
    policy = dev.one("RolePolicy", "gateway-task")
    assert policy.inputs["role"] == "vllm-dev-role-gateway-task-id"
    statements = {s["Sid"]: (set(s["Action"]), s["Resource"]) for s in policy.document()["Statement"]}
    service = arn("aws:ecs/service:Service", "vllm-dev-engine")
    group = arn("aws:autoscaling/group:Group", "vllm-dev-gpu")
    assert statements == {
        "ReadApiKeys": ({"secretsmanager:GetSecretValue"}, [SECRET]),
        "WakeService": ({"ecs:DescribeServices", "ecs:UpdateService"}, [service]),
        "WakeInstances": ({"autoscaling:SetDesiredCapacity"}, [group]),
        "SeeInstances": ({"autoscaling:DescribeAutoScalingGroups"}, ["*"]),
        "SeeWhyNoInstance": ({"autoscaling:DescribeScalingActivities"}, ["*"]),
        "ListTasks": ({"ecs:ListTasks"}, ["*"]),
        "SeeTasks": ({"ecs:DescribeTasks"}, ["arn:aws:ecs:us-east-1:123456789012:task/vllm-dev-gpu-1a2b3c4/*"]),
    }
    (listing,) = [s for s in policy.document()["Statement"] if s["Sid"] == "ListTasks"]
    assert listing["Condition"] == {"ArnEquals": {"ecs:cluster": arn("aws:ecs/cluster:Cluster", "vllm-dev-gpu")}}


def test_the_gateway_may_do_all_that_it_does() -> None:
    """Every call of boto3 in its sources is among the actions of its role."""
    services = {"ecs": "ecs", "autoscaling": "autoscaling", "client": "secretsmanager", "_client": "secretsmanager"}
    calls = set()
    for path in (ROOT / "image/gateway").rglob("*.py"):
        for client, call in re.findall(r"\b(ecs|autoscaling|_client)\.([a-z_]+)\(", path.read_text()):
            calls.add(f"{services[client]}:{''.join(part.title() for part in call.split('_'))}")
    allowed = {
        action
        for statement in run_program("dev").one("RolePolicy", "gateway-task").document()["Statement"]
        for action in statement["Action"]
    }
    assert {"ecs:UpdateService", "secretsmanager:GetSecretValue"} <= calls <= allowed


def test_the_container_can_change_nothing_about_itself(dev: Program) -> None:
    container = dev.one("TaskDefinition", "gateway").container()
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] == "10001:10001"
    assert container["privileged"] is False
    assert container["linuxParameters"] == {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}}
    assert container["stopTimeout"] == 120
    assert container["portMappings"] == [{"containerPort": 8080, "hostPort": 8080, "protocol": "tcp"}]
    assert "http://127.0.0.1:8080/health" in container["healthCheck"]["command"][3]
    assert container["logConfiguration"]["options"]["awslogs-group"] == "vllm-dev-logs-gateway-1a2b3c4"


def test_it_runs_on_fargate_as_large_and_as_often_as_planned() -> None:
    for stack, count in (("dev", 1), ("prod", 2)):
        program = run_program(stack)
        task = program.one("TaskDefinition", "gateway").inputs
        assert (task["requiresCompatibilities"], task["networkMode"]) == (["FARGATE"], "awsvpc")
        assert (task["cpu"], task["memory"]) == ("512", "1024")
        assert task["runtimePlatform"] == {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"}
        assert task["taskRoleArn"].endswith("gateway-task")
        assert task["executionRoleArn"].endswith("gateway-exec")
        service = program.one("aws:ecs/service:Service", "gateway").inputs
        assert service["desiredCount"] == count
        assert service["capacityProviderStrategies"] == [{"capacityProvider": "FARGATE", "weight": 1}]
        assert len(service["networkConfiguration"]["subnets"]) == 2


def test_a_deployment_of_the_gateway_never_leaves_the_door_unattended(dev: Program) -> None:
    service = dev.one("aws:ecs/service:Service", "gateway").inputs
    assert service["deploymentMinimumHealthyPercent"] == 100
    assert service["deploymentMaximumPercent"] == 200
    assert service["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
    assert service["healthCheckGracePeriodSeconds"] == 60
    assert service["propagateTags"] == "SERVICE"


def test_it_registers_with_the_load_balancer_once_there_is_a_listener(dev: Program) -> None:
    service = dev.one("aws:ecs/service:Service", "gateway")
    group = arn("aws:lb/targetGroup:TargetGroup", "vllm-dev-int")
    assert service.inputs["loadBalancers"] == [
        {"targetGroupArn": group, "containerName": "gateway", "containerPort": 8080}
    ]
    names = {urn.split("::")[2].rpartition("$")[2] + " " + urn.rpartition("::")[2] for urn in service.depends_on}
    assert "aws:lb/listener:Listener vllm-dev-int-80" in names
    assert "aws:iam/rolePolicy:RolePolicy vllm-dev-gateway-task" in names


def test_the_image_is_built_here_pushed_to_the_stacks_own_repository_and_run_by_digest(dev: Program) -> None:
    repository = "123456789012.dkr.ecr.us-east-1.amazonaws.com/vllm-dev-image"
    image = dev.one("Image")
    assert image.inputs["push"] is True
    assert image.inputs["buildOnPreview"] is False
    assert image.inputs["platforms"] == ["linux/amd64"]
    assert image.inputs["tags"] == [f"{repository}:gateway"]
    assert image.inputs["registries"][0]["address"] == repository
    assert image.secret_inputs == ("registries[0].password",)
    context, dockerfile = Path(image.inputs["context"]["location"]), Path(image.inputs["dockerfile"]["location"])
    assert not context.is_absolute()
    assert context.resolve() == ROOT
    assert dockerfile.resolve() == ROOT / "image/gateway.Dockerfile"
    assert dockerfile.is_file()
    assert dev.one("TaskDefinition", "gateway").container()["image"] == f"{repository}@sha256:{'0' * 64}"
    statements = {s["Sid"]: s for s in dev.one("RolePolicy", "gateway-execution").document()["Statement"]}
    assert statements["PullImage"]["Resource"] == [arn("aws:ecr/repository:Repository", "vllm-dev-image")]


def test_the_repository_is_scanned_and_keeps_few_images(dev: Program) -> None:
    repository = dev.one("Repository").inputs
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    assert repository["encryptionConfigurations"] == [{"encryptionType": "AES256"}]
    (rule,) = json.loads(dev.one("LifecyclePolicy").inputs["policy"])["rules"]
    assert (rule["selection"]["countNumber"], rule["action"]) == (5, {"type": "expire"})


def test_a_named_image_needs_neither_docker_nor_repository() -> None:
    program = run_program("dev", gatewayImage="example.com/gateway:1")
    assert program.all("Image") == program.all("Repository") == []
    assert program.one("TaskDefinition", "gateway").container()["image"] == "example.com/gateway:1"
    statements = program.one("RolePolicy", "gateway-execution").document()["Statement"]
    assert [s["Sid"] for s in statements] == ["WriteLogs"]


def test_the_load_balancer_takes_nothing_odd_and_waits_for_cold_starts(dev: Program) -> None:
    inputs = dev.one("LoadBalancer").inputs
    assert inputs["loadBalancerType"] == "application"
    assert inputs["internal"] is True
    assert inputs["dropInvalidHeaderFields"] is True
    assert inputs["desyncMitigationMode"] == "strictest"
    assert inputs["subnets"] == ["vllm-dev-network-private-0-id", "vllm-dev-network-private-1-id"]
    environment = dev.one("TaskDefinition", "gateway").environment()
    idle = inputs["idleTimeout"]
    assert float(environment["GATEWAY_HOLD_TIMEOUT_NONSTREAM_SECONDS"]) < idle
    assert idle < float(environment["GATEWAY_KEEP_ALIVE_SECONDS"])


def test_deletion_protection_is_where_it_is_asked_for(dev: Program) -> None:
    protected = {(r.type.rpartition(":")[2], r.name) for r in run_program("prod").resources if r.protected}
    assert {
        ("LoadBalancer", "vllm-prod-int"),
        ("Service", "vllm-prod-gateway"),
        ("Service", "vllm-prod-engine"),
    } < protected
    assert {("FileSystem", "vllm-prod-weights"), ("Group", "vllm-prod-gpu"), ("Guard", "guard")} < protected
    assert not [r for r in dev.resources if r.protected]
    assert dev.one("LoadBalancer").inputs["enableDeletionProtection"] is False
    assert run_program("prod").one("LoadBalancer").inputs["enableDeletionProtection"] is True


def test_targets_are_tasks_that_are_ready(dev: Program) -> None:
    inputs = dev.one("TargetGroup").inputs
    assert (inputs["targetType"], inputs["protocol"], inputs["port"]) == ("ip", "HTTP", 8080)
    assert inputs["healthCheck"]["path"] == "/health/ready"
    assert inputs["healthCheck"]["matcher"] == "200"
    assert inputs["deregistrationDelay"] == 300
    assert inputs["loadBalancingAlgorithmType"] == "least_outstanding_requests"


def test_http_is_forwarded_where_there_is_no_certificate(dev: Program) -> None:
    inputs = dev.one("Listener").inputs
    assert (inputs["port"], inputs["protocol"]) == (80, "HTTP")
    group = arn("aws:lb/targetGroup:TargetGroup", "vllm-dev-int")
    assert inputs["defaultActions"] == [{"type": "forward", "targetGroupArn": group}]
    assert inputs["routingHttpResponseServerEnabled"] is False


def test_a_domain_gets_a_certificate_https_a_redirect_and_a_record() -> None:
    program = run_program("dev", domain="llm.example.com")
    https, redirect = (program.one("Listener", name).inputs for name in ("-pub-443", "-pub-80"))
    assert (https["port"], https["protocol"]) == (443, "HTTPS")
    assert https["sslPolicy"] == "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
    assert https["routingHttpResponseStrictTransportSecurityHeaderValue"] == "max-age=31536000"
    validation = program.one("CertificateValidation")
    certificate = arn("aws:acm/certificate:Certificate", "vllm-dev-certificate")
    assert validation.inputs["certificateArn"] == certificate
    assert validation.inputs["validationRecordFqdns"] == ["record.example.com"]
    assert https["certificateArn"] == certificate  # as the validation gives it back, once it is issued
    assert (redirect["port"], redirect["protocol"]) == (80, "HTTP")
    assert redirect["defaultActions"] == [
        {"type": "redirect", "redirect": {"protocol": "HTTPS", "port": "443", "statusCode": "HTTP_301"}}
    ]
    assert program.one("Certificate").inputs["validationMethod"] == "DNS"
    proof, alias = program.one("Record", "-proof").inputs, program.one("Record", "-domain").inputs
    assert (proof["name"], proof["type"], proof["records"]) == ("_proof", "CNAME", ["_value"])
    assert (alias["name"], alias["type"], alias["zoneId"]) == ("llm.example.com", "A", "Z0123456789")
    assert alias["aliases"][0]["name"] == "lb.example.amazonaws.com"
    assert program.outputs["endpoint"] == "https://llm.example.com"
    assert "howToOpen" not in program.outputs
    balancer = program.one("LoadBalancer").inputs
    assert (balancer["internal"], balancer["subnets"][0]) == (False, "vllm-dev-network-public-0-id")


def test_a_certificate_of_ones_own_is_used_as_it_is() -> None:
    certificate = "arn:aws:acm:us-east-1:123456789012:certificate/1"
    program = run_program("dev", certificateArn=certificate, port=8443)
    assert program.one("Listener", "-pub-8443").inputs["certificateArn"] == certificate
    assert program.all("Certificate") == program.all("Record") == []
    assert program.outputs["endpoint"] == "https://lb.example.amazonaws.com:8443"
    redirect = program.one("Listener", "-pub-80").inputs["defaultActions"][0]["redirect"]
    assert redirect["port"] == "8443"


def test_the_zone_that_holds_a_domain() -> None:
    assert hosted_zone_name("llm.example.com", "") == "example.com"
    assert hosted_zone_name("example.com", "") == "example.com"
    assert hosted_zone_name("a.b.example.com", "example.com") == "example.com"


def test_ports_open_to_clients() -> None:
    assert listener_ports(443, https=True) == (443, 80)
    assert listener_ports(8080, https=False) == (8080,)


def test_the_repository_of_an_image() -> None:
    base = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/gateway"
    expected = "arn:aws:ecr:eu-west-1:123456789012:repository/team/gateway"
    assert [repository_arn(base + end, "aws") for end in ("", ":1", "@sha256:0")] == [expected] * 3
    assert repository_arn("docker.io/vllm/vllm-openai:v0.33.0", "aws") is None
