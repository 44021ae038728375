"""Rules that the AWS program satisfies with any settings. Each rule yields its violations, one line each."""

from __future__ import annotations

import base64
import inspect
import json
import keyword
import re
from collections.abc import Callable, Iterator
from typing import Any

import pulumi_aws

from infra.settings import Settings, secret_text
from tests.infra.aws.policies import wildcards
from tests.infra.program import ROOT, Program

Rule = Callable[[Program, Settings], Iterator[str]]
INTERNET = ("0.0.0.0/0", "::/0")
UNTAGGABLE = {"aws:appautoscaling/policy:Policy"}  # does not support tags in AWS, although the SDK has the input
TAGS = {"Project", "Stack", "Component", "ManagedBy"}
SECRET_NAME = re.compile(r"(?i)(token|secret|password|api_?key)")
LONGEST_STOP_SECONDS = {
    "gateway": 120,
    "engine": 900,
    "code": 120,
    "weights": 120,
}  # Fargate's maximum; EC2 allows more
GATEWAY_SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "image/gateway").glob("*.py")))


def exact_policies(program: Program, _: Settings) -> Iterator[str]:
    """No policy allows more than exact actions on exact resources."""
    yield from wildcards(program)


def tagged(program: Program, settings: Settings) -> Iterator[str]:
    """Every resource that supports tags has the stack's tags, and so has everything that the Auto Scaling group launches."""
    wanted = TAGS | ({"Owner"} if settings.owner else set())
    for resource in program.resources:
        if resource.type.startswith("aws:") and _takes_tags(resource.type):
            missing = wanted - {key for key, value in resource.tags().items() if value}
            yield from (f"{resource.urn}: no tag {tag}" for tag in sorted(missing))
    for template in program.all("LaunchTemplate"):
        launched = {s["resourceType"]: set(s["tags"]) for s in template.inputs.get("tagSpecifications", [])}
        for kind in ("instance", "volume", "network-interface"):
            if not wanted <= launched.get(kind, set()):
                yield f"{template.urn}: launches an untagged {kind}"
    for group in program.all("aws:autoscaling/group:Group"):
        left = {tag["key"] for tag in group.inputs["tags"] if tag["propagateAtLaunch"]}
        if not wanted <= left:
            yield f"{group.urn}: does not pass its tags on"


def _takes_tags(kind: str) -> bool:
    _, module, name = kind.split(":")
    module = module.partition("/")[0]
    resource = getattr(getattr(pulumi_aws, f"{module}_" if keyword.iskeyword(module) else module), name)
    return "tags" in inspect.signature(resource._internal_init).parameters and kind not in UNTAGGABLE


def closed_network(program: Program, settings: Settings) -> Iterator[str]:
    """Only the load balancer accepts CIDR ranges, and the whole internet only if the settings allow it."""
    groups = {f"{r.name}-id": r.name.rpartition("-sg-")[2] for r in program.all("SecurityGroup")}
    open_to_all = not settings.internal and (settings.https or settings.allow_http_from_anywhere)
    links = {"in": set[tuple[str, str, int]](), "out": set[tuple[str, str, int]]()}
    for rule in program.all("SecurityGroupIngressRule") + program.all("SecurityGroupEgressRule"):
        inward, i = "Ingress" in rule.type, rule.inputs
        group = groups[i["securityGroupId"]]
        address = i.get("cidrIpv4") or i.get("cidrIpv6")
        if i["ipProtocol"] != "tcp" or i["fromPort"] != i["toPort"]:
            yield f"{rule.urn}: more than one TCP port"
        if not address:
            other = groups[i["referencedSecurityGroupId"]]
            pair = (other, group) if inward else (group, other)
            links["in" if inward else "out"].add((*pair, i["toPort"]))
        elif inward and group != "load-balancer":
            yield f"{rule.urn}: lets addresses in behind the load balancer"
        elif inward and address in INTERNET and not open_to_all:
            yield f"{rule.urn}: lets the internet in"
        elif not inward and i["toPort"] != 443:
            yield f"{rule.urn}: lets out to addresses on another port than 443"
    if links["in"] != links["out"]:
        yield f"one end of a way is closed: {links['in'] ^ links['out']}"
    if {(a, b) for a, b, _ in links["in"]} != {
        ("load-balancer", "gateway"), ("gateway", "engine"), ("engine", "weights"),
    }:  # fmt: skip
        yield f"another way inward than load balancer, gateway, engine, weights: {sorted(links['in'])}"
    for default in program.all("DefaultSecurityGroup"):
        if default.inputs.get("ingress") or default.inputs.get("egress"):
            yield f"{default.urn}: the default group is open"
    for group_ in program.all("SecurityGroup"):
        if group_.inputs.get("ingress") or group_.inputs.get("egress"):
            yield f"{group_.urn}: rules inside the group, where no rule here sees them"


def private(program: Program, _: Settings) -> Iterator[str]:
    """Nothing but the load balancer has a public address."""
    for service in program.all("aws:ecs/service:Service"):
        if service.inputs["networkConfiguration"].get("assignPublicIp"):
            yield f"{service.urn}: public address"
        for subnet in service.inputs["networkConfiguration"]["subnets"]:
            if "public" in subnet:
                yield f"{service.urn}: in {subnet}"
    for subnet_ in program.all("Subnet"):
        if subnet_.inputs.get("mapPublicIpOnLaunch"):
            yield f"{subnet_.urn}: gives public addresses"
    for template in program.all("LaunchTemplate"):
        if template.inputs.get("networkInterfaces") or template.inputs.get("keyName"):
            yield f"{template.urn}: a network interface or key of its own"


def encrypted(program: Program, _: Settings) -> Iterator[str]:
    """Storage is encrypted, and mounts use TLS, an access point and IAM authorization."""
    for system in program.all("aws:efs/fileSystem:FileSystem"):
        if not system.inputs.get("encrypted"):
            yield f"{system.urn}: not encrypted"
    for template in program.all("LaunchTemplate"):
        for mapping in template.inputs["blockDeviceMappings"]:
            if mapping["ebs"].get("encrypted") != "true":
                yield f"{template.urn}: {mapping['deviceName']} not encrypted"
    for definition in program.all("TaskDefinition"):
        for volume in definition.inputs.get("volumes") or []:
            if set(volume) == {"name"} or volume.get("hostPath") == "/mnt/nvme":
                continue  # the task's volume on the encrypted root disk; the instance's NVMe disk, which is encrypted by hardware
            efs = volume.get("efsVolumeConfiguration") or {}
            access = efs.get("authorizationConfig") or {}
            if efs.get("transitEncryption") != "ENABLED":
                yield f"{definition.urn}: {volume['name']} not over TLS"
            if access.get("iam") != "ENABLED" or not access.get("accessPointId"):
                yield f"{definition.urn}: {volume['name']} without identity or access point"
    for policy in program.all("FileSystemPolicy"):
        denied = [s for s in policy.document()["Statement"] if s["Effect"] == "Deny"]
        if {"Bool": {"aws:SecureTransport": "false"}} not in [s.get("Condition") for s in denied]:
            yield f"{policy.urn}: plain text is not denied"
    for bucket in program.all("Bucket"):
        closed = [b for b in program.all("BucketPublicAccessBlock") if b.inputs["bucket"] == f"{bucket.name}-id"]
        if not closed or not all(closed[0].inputs.get(k) for k in PUBLIC_ACCESS):
            yield f"{bucket.urn}: public access is not blocked"


def own_key(program: Program, settings: Settings) -> Iterator[str]:
    """With a customer managed key, everything that is stored is encrypted with it."""
    if not settings.kms_key_arn:
        return
    used: list[tuple[str, Any]] = []
    for kind in ("aws:efs/fileSystem:FileSystem", "Secret", "LogGroup"):
        used += [(r.urn, r.inputs.get("kmsKeyId")) for r in program.all(kind)]
    for template in program.all("LaunchTemplate"):
        used += [(template.urn, mapping["ebs"].get("kmsKeyId")) for mapping in template.inputs["blockDeviceMappings"]]
    for repository in program.all("aws:ecr/repository:Repository"):
        used += [(repository.urn, repository.inputs["encryptionConfigurations"][0].get("kmsKey"))]
    yield from (f"{urn}: encrypted with {key}" for urn, key in used if key != settings.kms_key_arn)


PUBLIC_ACCESS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")


def metadata_guarded(program: Program, _: Settings) -> Iterator[str]:
    """The instance's credentials cannot be obtained from a container or with a forged request (SSRF)."""
    for template in program.all("LaunchTemplate"):
        options = template.inputs["metadataOptions"]
        if options.get("httpTokens") != "required":
            yield f"{template.urn}: IMDSv1"
        if options.get("httpPutResponseHopLimit") != 1:
            yield f"{template.urn}: metadata reach containers"
        boot = base64.b64decode(template.inputs["userData"]).decode()
        for line in ("ECS_AWSVPC_BLOCK_IMDS=true", "ECS_DISABLE_PRIVILEGED=true"):
            if line not in boot.splitlines():
                yield f"{template.urn}: boots without {line}"


def modest_containers(program: Program, settings: Settings) -> Iterator[str]:
    """No privileges, no host network, logs, a stop timeout, and no secret in the plain environment."""
    for definition in program.all("TaskDefinition"):
        for container in definition.document("containerDefinitions"):
            yield from (f"{definition.urn}: {what}" for what in _immodest(container))
        if definition.inputs.get("networkMode") != "awsvpc":
            yield f"{definition.urn}: not a network interface of its own"
        if definition.inputs.get("pidMode") or definition.inputs.get("ipcMode"):
            yield f"{definition.urn}: shares a namespace with the host"


def _immodest(container: dict[str, Any]) -> Iterator[str]:
    dropped = container.get("linuxParameters", {}).get("capabilities", {}).get("drop", [])
    if container.get("privileged"):
        yield "privileged"
    if container.get("linuxParameters", {}).get("capabilities", {}).get("add"):
        yield "adds capabilities"
    if "no-new-privileges" not in container.get("dockerSecurityOptions", []) and dropped != ["ALL"]:
        yield "may gain privileges"
    logs = container.get("logConfiguration", {})
    if logs.get("logDriver") != "awslogs" or not logs["options"].get("awslogs-group"):
        yield "logs nowhere"
    if not 0 < container.get("stopTimeout", 0) <= LONGEST_STOP_SECONDS[container["name"]]:
        yield f"stopTimeout {container.get('stopTimeout')}"
    for variable in container.get("environment", []):
        reference = str(variable["value"]).startswith(("secretsmanager:arn:", "{"))
        if SECRET_NAME.search(variable["name"]) and not reference:
            yield f"{variable['name']} in the plain environment"


def hidden_secrets(program: Program, settings: Settings) -> Iterator[str]:
    """Configured secrets are only in Secrets Manager, marked as secret, and not in any output."""
    secrets = [secret_text(key) for key in dict(settings.api_keys).values()]
    secrets += filter(None, [secret_text(settings.hf_token)])
    for secret in secrets:
        for resource in program.resources:
            if secret not in json.dumps(resource.inputs):
                continue
            if resource.type != "aws:secretsmanager/secretVersion:SecretVersion":
                yield f"{resource.urn}: holds a secret"
            elif resource.secret_inputs != ("secretString",):
                yield f"{resource.urn}: the secret is not marked as one"
        if secret in json.dumps(program.outputs):
            yield "an output holds a secret"


def kept_logs(program: Program, settings: Settings) -> Iterator[str]:
    """Every log group has the retention of the settings, and containers do not create log groups themselves."""
    for group in program.all("LogGroup"):
        if group.inputs.get("retentionInDays") != settings.log_retention_days:
            yield f"{group.urn}: kept {group.inputs.get('retentionInDays')} days"


def known_metrics(program: Program, _: Settings) -> Iterator[str]:
    """Alarms and scaling read metrics that the gateway writes, with its dimension and namespace."""
    (gateway,) = [d for d in program.all("TaskDefinition") if d.container()["name"] == "gateway"]
    told = gateway.environment()
    for resource in program.resources:
        for namespace, name, dimensions in _metrics(resource.inputs):
            if namespace.startswith("AWS/"):
                continue
            if namespace != told["GATEWAY_EMF_NAMESPACE"] or dimensions != {"Stack": told["GATEWAY_STACK"]}:
                yield f"{resource.urn}: {namespace} {name} {dimensions}, which no gateway writes"
            elif f'"{name}"' not in GATEWAY_SOURCES:
                yield f"{resource.urn}: {name}, which no gateway writes"


def _metrics(value: Any) -> Iterator[tuple[str, str, dict[str, str]]]:
    if isinstance(value, dict):
        if "metricName" in value and "namespace" in value:
            given = value.get("dimensions") or {}
            pairs = given if isinstance(given, dict) else {d["name"]: d["value"] for d in given}
            yield value["namespace"], value["metricName"], pairs
        for item in value.values():
            yield from _metrics(item)
    elif isinstance(value, list):
        for item in value:
            yield from _metrics(item)


def agreeing_ports(program: Program, settings: Settings) -> Iterator[str]:
    """A port has the same number everywhere."""
    containers = {d.container()["name"]: d.container() for d in program.all("TaskDefinition")}
    gateway, engine = (containers[name]["portMappings"][0]["containerPort"] for name in ("gateway", "engine"))
    told = next(d for d in program.all("TaskDefinition") if d.container()["name"] == "gateway").environment()
    said = {
        "target group": (program.one("TargetGroup").inputs["port"], gateway),
        "GATEWAY_PORT": (int(told.get("GATEWAY_PORT", 8080)), gateway),
        "GATEWAY_DISCOVERY": (int(told["GATEWAY_DISCOVERY"].rpartition(":")[2]), engine),
        "vLLM's --port": (int(_after(containers["engine"]["command"], "--port")), engine),
        "vLLM's --host": (_after(containers["engine"]["command"], "--host"), "0.0.0.0"),
        "rule of the gateway": (_rule_port(program, "clients-in"), gateway),
        "rule of the engine": (_rule_port(program, "requests-in"), engine),
        "rule of the weights": (_rule_port(program, "nfs-in"), 2049),
        "load balancer's health check": (program.one("TargetGroup").inputs["healthCheck"]["path"], "/health/ready"),
    }
    for name, port in (("gateway", gateway), ("engine", engine)):
        said[f"health check of {name}"] = (f"127.0.0.1:{port}/health" in str(containers[name]["healthCheck"]), True)
    listened = {listener.inputs["port"] for listener in program.all("Listener")}
    rules = {
        r.inputs["toPort"]
        for r in program.all("SecurityGroupIngressRule")
        if r.inputs.get("cidrIpv4") or r.inputs.get("cidrIpv6")
    }
    said["ports open to clients"] = (rules, listened)
    said["port of the endpoint"] = (settings.endpoint_port in listened, True)
    yield from (f"{what}: {found}, expected {wanted}" for what, (found, wanted) in said.items() if found != wanted)


def _after(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def _rule_port(program: Program, suffix: str) -> Any:
    return program.one("SecurityGroupIngressRule", suffix).inputs["toPort"]


RULES: tuple[Rule, ...] = (
    exact_policies, tagged, closed_network, private, encrypted, own_key, metadata_guarded, modest_containers, hidden_secrets,
    kept_logs, known_metrics, agreeing_ports,
)  # fmt: skip


def broken(program: Program, settings: Settings) -> list[str]:
    """All violations of the rules."""
    return [f"{rule.__name__}: {what}" for rule in RULES for what in rule(program, settings)]
