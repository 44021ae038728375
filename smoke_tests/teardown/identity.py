"""Which resources belong to a stack: decided by tags, or by name if there are no tags."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from infra.identity import Identity as Owner

PROJECT = "vllm-endpoint"
LONGEST_PREFIX = 20
FIRST_NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}")
"""Stacks whose names have a hash of five digits; see infra/aws/context.py."""
RETAINED_TAG = "RetainedAtDestroy"
"""Tag of resources that `protect` retains; its value is `true`."""
RETAINED_TAGS = frozenset({RETAINED_TAG, "KeptAtDestroy"})
"""The tag, and its name in earlier versions, which resources that they retained still have."""

SUFFIX = "[0-9a-f]{7}"  # Pulumi's suffix of a name
BALANCER = f"(?:int|pub)-{SUFFIX}"
GROUP = f"gpu-{SUFFIX}"
CACHE = "(?:_[a-z0-9]{6})?"  # stacks of earlier versions have no suffix
ALARMS = "alarm-(?:no-replica|no-wake|idle-instances|errors|queue-full|no-gateway|weights-slow|burst-credits|not-stopped)|scaling-(?:idle|stuck)|budget-(?:failing|dropped)|ttl-dropped"
# What may follow `vllm-<stack>-` in a name, by kind. Matched exactly, not as a prefix: `vllm-dev-eu-gpu-1a2b3c4` begins
# with `vllm-dev-`, too, and is the group of another stack.
ENDINGS: Mapping[str, str] = {
    "alarm": f"(?:{ALARMS})-{SUFFIX}",
    "Auto Scaling group": GROUP,
    "budget": f"budget-{SUFFIX}",
    "capacity provider": GROUP,
    "dashboard": GROUP,
    "ECR repository": f"image-{SUFFIX}",
    "ECS cluster": GROUP,
    "IAM role": f"(?:role-(?:engine-task|engine-exec|fetch-task|gateway-task|gateway-exec|instance)|budget-(?:switch|watch)|ttl|flow|fetch)-{SUFFIX}",
    "instance profile": GROUP,
    "Lambda function": f"budget-{SUFFIX}",
    "launch template": GROUP,
    "load balancer": BALANCER,
    "log group": f"(?:logs-(?:engine|gateway|network)|budget-logs)-{SUFFIX}",
    "S3 bucket": f"access-{SUFFIX}",
    "schedule group": f"(?:ttl|budget|fetch)-{SUFFIX}",
    "secret": f"secret-(?:api-keys|hub-token)-{SUFFIX}",
    "security group": f"sg-(?:load-balancer|gateway|engine|instance|weights)-{SUFFIX}",
    "SNS topic": f"alarm-{SUFFIX}",
    "target group": BALANCER,
    "task definition": "engine|gateway|fetch",
    "web ACL": f"firewall-{SUFFIX}",
}
# Names to which AWS or a service's rule adds a prefix or suffix; {prefix} is `vllm-<stack>`.
WHOLE: Mapping[str, tuple[str, ...]] = {
    "alarm": (rf"TargetTracking-(?:service/)?{{prefix}}-{GROUP}(?:/.*|-Alarm(?:High|Low)-.*)",),
    "Cloud Map namespace": (r"{prefix}\.internal",),
    "DNS record": (rf"(?:dualstack\.)?(?:internal-)?{{prefix}}-{BALANCER}-\d+\..*",),
    "ECR repository": (rf"{{prefix}}{CACHE}/.+",),
    "hosted zone": (r"{prefix}\.internal\.?",),
    "log group": (
        rf"/aws/lambda/{{prefix}}-budget-{SUFFIX}",
        rf"/aws/ecs/containerinsights/{{prefix}}-{GROUP}/performance",
    ),
    "pull-through cache": (rf"{{prefix}}{CACHE}",),
    "scalable target": (rf"service/{{prefix}}-{GROUP}/.+",),
}


@dataclass(frozen=True)
class Identity:
    """An endpoint, with the names and tags of its resources in AWS.

    Attributes:
        stack: the value of the tag Stack: the stack's name, or PROJECT/STACK/NAME of another program's endpoint.
        project: the value of the tag Project.
        owner: the component, if another program declares it.
    """

    stack: str
    project: str = PROJECT
    owner: Owner | None = None

    @classmethod
    def of(cls, owner: Owner, project: str = PROJECT) -> Self:
        """The identity of an endpoint of this repository's program, or of another one."""
        return cls(owner.tag, project, owner if owner.endpoint else None)

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"endpoint {self.stack}" if self.owner else f"stack {self.stack}"

    @property
    def prefix(self) -> str:
        """The common prefix of all resource names."""
        if self.owner:
            return self.owner.prefix(LONGEST_PREFIX)
        return _bounded(f"vllm-{self.stack}", 5 if FIRST_NAMES.fullmatch(self.stack) else 8)

    def claims(self, kind: str, name: str, tags: Mapping[str, str]) -> str:
        """Why a resource belongs to the stack: `tag`, `name`, or an empty string if it does not.

        A resource with the tag Project or Stack belongs to the stack only if both match exactly, whatever its name. The
        name counts only for a resource without these tags, and only if it is exactly a name that this project generates.
        """
        if "Project" in tags or "Stack" in tags:
            mine = (tags.get("Project"), tags.get("Stack")) == (self.project, self.stack)
            return "tag" if mine else ""
        return "name" if self.named(kind, name) else ""

    def named(self, kind: str, name: str) -> bool:
        """Whether the name can only come from this stack."""
        if self.project != PROJECT:
            return False
        patterns = [pattern.replace("{prefix}", re.escape(self.prefix)) for pattern in WHOLE.get(kind, ())]
        if kind in ENDINGS:
            patterns.append(f"{re.escape(self.prefix)}-(?:{ENDINGS[kind]})")
        return any(re.fullmatch(pattern, name) for pattern in patterns)


def _bounded(text: str, digits: int) -> str:
    """Shorten a stack's name as the program does; a test keeps the two equal."""
    clean = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", text.lower())).strip("-")
    if clean == text and len(clean) <= LONGEST_PREFIX:
        return clean
    digest = hashlib.sha256(text.encode()).hexdigest()[:digits]
    return f"{clean[: LONGEST_PREFIX - digits - 1].rstrip('-')}-{digest}"


def tags_of(tags: Iterable[Mapping[str, Any]] | Mapping[str, str] | None) -> dict[str, str]:
    """Tags as a mapping, from any of the formats that AWS services return."""
    if not tags:
        return {}
    if isinstance(tags, Mapping):
        return dict(tags)
    pairs = ({key.lower(): value for key, value in tag.items()} for tag in tags)
    return {pair.get("key", pair.get("tagkey", "")): pair.get("value", pair.get("tagvalue", "")) for pair in pairs}
