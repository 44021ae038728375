"""A stack's account and region, and the names and tags of its resources."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.identity import Identity
from infra.settings import PROJECT

RETAINED_TAG = "RetainedAtDestroy"
RETAINED_TAGS = frozenset({RETAINED_TAG, "KeptAtDestroy"})
"""The tag, and its name in earlier versions, which resources that they retained still have."""
LONGEST_TAG = 256  # characters of a tag's value
LONGEST_PREFIX = 20  # an ALB's name is limited to 32 characters: prefix + "-int" + Pulumi's random suffix of 8


@dataclass(frozen=True)
class Context:
    """One endpoint's account, region and names.

    Attributes:
        identity: whose endpoint it is.
        region: for example us-east-1.
        account_id: twelve digits.
        partition: aws, aws-us-gov or aws-cn.
        owner: person or team for the Owner tag, or empty.
        parent: the endpoint's component, whose provider answers lookups.
        explicit: whether the component has a provider of its own. This process's credentials may then be of another account.
    """

    identity: Identity
    region: str
    account_id: str
    partition: str
    owner: str = ""
    parent: pulumi.Resource | None = None
    explicit: bool = False

    @property
    def lookup(self) -> pulumi.InvokeOptions:
        """The options of a lookup: it asks the component's provider."""
        return pulumi.InvokeOptions(parent=self.parent)

    @property
    def stack(self) -> str:
        """The value of the Stack tag, which the teardown check and the budget filter by."""
        return self.identity.tag

    @property
    def prefix(self) -> str:
        """The prefix of every resource's name."""
        return self.identity.prefix(LONGEST_PREFIX)

    def tags(self, component: str, name: str = "", *, retain: bool = False) -> dict[str, str]:
        """Tags of one resource.

        Args:
            component: the component that the resource belongs to.
            name: for the Name tag, or empty.
            retain: whether it is retained when the stack is destroyed; the teardown check then reports it as retained.
        """
        found = {"Project": PROJECT, "Stack": self.stack, "Component": component, "ManagedBy": "pulumi"}
        if self.identity.endpoint:
            found["Endpoint"] = self.identity.endpoint[:LONGEST_TAG]
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
