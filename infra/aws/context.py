"""Where a stack lives in AWS, and what its resources are called and tagged."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from infra.settings import PROJECT

KEPT_TAG = "KeptAtDestroy"
LONGEST_PREFIX = 20  # an ALB's name has 32 characters at most: prefix + "-int" + Pulumi's random suffix of 8


@dataclass(frozen=True)
class Context:
    """One stack's place and names.

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
        """What every resource's name begins with: ``vllm-<stack>``, or what is left of it and a hash (see `bounded`)."""
        return bounded(f"vllm-{self.stack}", LONGEST_PREFIX, digits_of(self.stack))

    def tags(self, component: str, name: str = "", *, keep: bool = False) -> dict[str, str]:
        """Tags of one resource.

        Args:
            component: the part of the stack that it belongs to.
            name: for the Name tag, or empty.
            keep: whether it stays when the stack is destroyed; the proof of teardown then calls it kept, not left.
        """
        found = {"Project": PROJECT, "Stack": self.stack, "Component": component, "ManagedBy": "pulumi"}
        if self.owner:
            found["Owner"] = self.owner
        if name:
            found["Name"] = name
        if keep:
            found[KEPT_TAG] = "true"
        return found

    def arn(self, service: str, resource: str) -> str:
        """The ARN of something in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"


def digits_of(stack: str) -> int:
    """Hexadecimal digits of the hash in a stack's names.

    Five for the names that were accepted first: they keep what they are deployed as. Branch names share their beginnings
    and come by the hundred, so every other name gets eight; one with five can never equal one with eight.
    """
    return 5 if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}", stack) else 8


def bounded(text: str, longest: int, digits: int = 5) -> str:
    """``text`` as lower-case letters, digits and hyphens, at most ``longest`` characters.

    What does not survive as it is gets a hash of the original at its end, so that two names never become one.
    """
    clean = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", text.lower())).strip("-")
    if clean == text and len(clean) <= longest:
        return clean
    digest = hashlib.sha256(text.encode()).hexdigest()[:digits]
    return f"{clean[: longest - digits - 1].rstrip('-')}-{digest}"
