"""Reads the resources of one region."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from smoke_tests.teardown.identity import RETAINED_TAGS, Identity, tags_of
from smoke_tests.teardown.items import Item, State

GLOBAL = "global"
_CONFIG = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 5})
_DENIED = ("AccessDenied", "Unauthorized", "NotAuthorized", "Forbidden", "AuthorizationError", "SubscriptionRequired")


@dataclass(eq=False)
class RegionScan:
    """Queries AWS for one stack in one region.

    Attributes:
        identity: the stack.
        region: where.
        account_id: twelve digits.
        session: credentials.
        tagged: ARN -> tags of every resource with the stack's two tags; filled by the search by tag.
    """

    identity: Identity
    region: str
    account_id: str
    session: boto3.Session
    tagged: dict[str, dict[str, str]] = field(default_factory=dict)

    @functools.cache  # noqa: B019 - a RegionScan lives as long as its sweep
    def client(self, service: str, region: str = "") -> Any:
        """A client of one service in this region, or another."""
        return self.session.client(service, region_name=region or self.region, config=_CONFIG)  # type: ignore[call-overload]

    @property
    def partition(self) -> str:
        """aws, aws-us-gov or aws-cn."""
        return self.session.get_partition_for_region(self.region)

    def pages(self, service: str, operation: str, key: str, **parameters: Any) -> Iterator[Any]:
        """Every entry under `key` of a listing, from all pages."""
        client = self.client(service)
        if client.can_paginate(operation):
            for page in client.get_paginator(operation).paginate(**parameters):
                yield from page.get(key) or ()
        else:
            yield from getattr(client, operation)(**parameters).get(key) or ()

    def item(
        self,
        kind: str,
        identifier: str,
        name: str = "",
        tags: Mapping[str, str] | Any = None,
        *,
        usd_per_hour: float | None = 0.0,
        part_of: str = "",
        going: bool = False,
        everywhere: bool = False,
        note: str = "",
    ) -> Item | None:
        """Return the resource, or None if it does not belong to the stack.

        Args:
            kind: as in `KINDS`.
            identifier: for the API.
            name: for a person, and for the search by name; empty: the identifier.
            tags: in any spelling.
            usd_per_hour: at list price.
            part_of: its parent in the stack. It then belongs to the stack even without tags or a recognizable name,
                unless its tags name another stack.
            going: whether it is already deleted.
            everywhere: whether it has no region.
            note: for a person.
        """
        own = tags_of(tags)
        why = self.identity.claims(kind, name or identifier, own)
        if not why and part_of and "Project" not in own and "Stack" not in own:
            why = f"part of {part_of}"
        if not why:
            return None
        kept = any(own.get(tag) == "true" for tag in RETAINED_TAGS)
        state = State.GOING if going else State.KEPT if kept else State.LEFT
        shown = name or own.get("Name") or identifier
        region = GLOBAL if everywhere else self.region
        return Item(kind, identifier, shown, region, 0.0 if going else usd_per_hour, why, state, note)

    def arns(self, service: str, resource: str = "") -> list[str]:
        """ARNs that the search by tag found, by service and resource type."""
        return [arn for arn in self.tagged if matches(arn, f"{service}:{resource}" if resource else service)]

    def forget(self) -> None:
        """List security groups and clusters anew."""
        for name in ("security_group_ids", "cluster_arns"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def security_group_ids(self) -> set[str]:
        """The stack's security groups."""
        groups = self.pages("ec2", "describe_security_groups", "SecurityGroups")
        return {
            g["GroupId"] for g in groups if self.item("security group", g["GroupId"], g["GroupName"], g.get("Tags"))
        }

    @functools.cached_property
    def cluster_arns(self) -> list[str]:
        """The stack's ECS clusters that are not deleted."""
        found = []
        arns = list(self.pages("ecs", "list_clusters", "clusterArns"))
        for start in range(0, len(arns), 100):
            described = self.client("ecs").describe_clusters(clusters=arns[start : start + 100], include=["TAGS"])
            for cluster in described["clusters"]:
                name, arn = cluster["clusterName"], cluster["clusterArn"]
                if cluster["status"] != "INACTIVE" and self.item("ECS cluster", arn, name, cluster.get("tags")):
                    found.append(arn)
        return found


@dataclass(frozen=True)
class Kind:
    """A kind of resource.

    Attributes:
        title: singular, as reported.
        find: lists the stack's resources of this kind in one region.
        remove: deletes one; raises boto3's exceptions.
        everywhere: whether it is global, so that it is searched once.
        arns: `service:type` of the ARNs that `find` covers, so that the search by tag does not report them twice.
    """

    title: str
    find: Callable[[RegionScan], Iterable[Item]]
    remove: Callable[[RegionScan, Item], None]
    everywhere: bool = False
    arns: tuple[str, ...] = ()


def present(*items: Item | None) -> list[Item]:
    """Those that belong to the stack."""
    return [item for item in items if item is not None]


def matches(arn: str, form: str) -> bool:
    """Whether an ARN is of a `service` or a `service:type`."""
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return False
    service, separator, resource = form.partition(":")
    kind = parts[5].replace("/", ":").split(":", 1)[0]
    return parts[2] == service and (not separator or kind == resource)


def code_of(error: Exception) -> str:
    """AWS's code of an error, or the exception's name."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "refused"))
    return type(error).__name__


def is_denied(error: Exception) -> bool:
    """Whether the caller lacks the permission."""
    return isinstance(error, ClientError) and any(word in code_of(error) for word in _DENIED)


def is_gone(error: Exception) -> bool:
    """Whether the resource does not exist."""
    code = code_of(error)
    return isinstance(error, ClientError) and (
        "NotFound" in code
        or code.startswith(("NoSuch", "NotSuch"))
        or code.endswith((".NotExist", "DoesNotExist"))
        or code in ("404", "RepositoryNotFoundException", "NonExistentResource")
    )


def message_of(error: Exception) -> str:
    """AWS's error in one line."""
    detail = error.response.get("Error", {}).get("Message", "") if isinstance(error, ClientError) else str(error)
    return " ".join(f"{code_of(error)}: {detail}".split())[:300]
