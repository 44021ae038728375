"""A stack's account and region, and the names and tags of its resources."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from infra.settings import PROJECT

RETAINED_TAG = "RetainedAtDestroy"
RETAINED_TAGS = frozenset({RETAINED_TAG, "KeptAtDestroy"})
"""The tag, and its name in earlier versions, which resources that they retained still have."""
LONGEST_PREFIX = 20  # an ALB's name is limited to 32 characters: prefix + "-int" + Pulumi's random suffix of 8


@dataclass(frozen=True)
class Context:
    """One stack's account, region and names.

    Attributes:
        stack: the Pulumi stack's name.
        region: for example us-east-1.
        account_id: twelve digits.
        partition: aws, aws-us-gov or aws-cn.
        owner: person or team for the Owner tag, or empty.
    """

    stack: str
    region: str
    account_id: str
    partition: str
    owner: str = ""

    @property
    def prefix(self) -> str:
        """The prefix of every resource's name: ``vllm-<stack>``, truncated with a hash if it is too long (see `bounded`)."""
        return bounded(f"vllm-{self.stack}", LONGEST_PREFIX, digits_of(self.stack))

    def tags(self, component: str, name: str = "", *, retain: bool = False) -> dict[str, str]:
        """Tags of one resource.

        Args:
            component: the component that the resource belongs to.
            name: for the Name tag, or empty.
            retain: whether it is retained when the stack is destroyed; the teardown check then reports it as retained.
        """
        found = {"Project": PROJECT, "Stack": self.stack, "Component": component, "ManagedBy": "pulumi"}
        if self.owner:
            found["Owner"] = self.owner
        if name:
            found["Name"] = name
        if retain:
            found[RETAINED_TAG] = "true"
        return found

    def arn(self, service: str, resource: str) -> str:
        """The ARN of something in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"


def digits_of(stack: str) -> int:
    """Hexadecimal digits of the hash in a stack's names.

    Five for names that early versions accepted, so that deployed stacks keep their resource names. Branch names often
    share a prefix and are numerous, so all other names get eight. Hashes of different lengths can never be equal.
    """
    return 5 if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}", stack) else 8


def bounded(text: str, longest: int, digits: int = 5) -> str:
    """Convert ``text`` to lower-case letters, digits and hyphens, at most ``longest`` characters.

    If this changes the text, a hash of the original is appended, so that two names never become equal.
    """
    clean = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", text.lower())).strip("-")
    if clean == text and len(clean) <= longest:
        return clean
    digest = hashlib.sha256(text.encode()).hexdigest()[:digits]
    return f"{clean[: longest - digits - 1].rstrip('-')}-{digest}"
