"""Sweeps every kind of resource in every region that the stack may use. Failed checks are reported."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from smoke_tests.errors import TargetError
from smoke_tests.stack import SIGN_IN
from smoke_tests.teardown.identity import Identity
from smoke_tests.teardown.items import Item, State
from smoke_tests.teardown.kinds import KINDS, search_by_tag
from smoke_tests.teardown.region_scan import GLOBAL, Kind, RegionScan, is_denied, is_gone, message_of

Tell = Callable[[str], None]
LISTINGS, PAUSE_SECONDS = 4, 5.0
"""How often a kind is listed before a resource that is listed but gone fails its check."""


@dataclass(frozen=True)
class NotChecked:
    """A check that failed, where, and why."""

    what: str
    region: str
    reason: str


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        identity: the stack.
        account_id: twelve digits.
        regions: swept kind by kind.
        searched_regions: searched by tag only.
        items: in deletion order.
        not_checked: the checks that failed.
    """

    identity: Identity
    account_id: str
    regions: tuple[str, ...]
    searched_regions: tuple[str, ...]
    items: tuple[Item, ...]
    not_checked: tuple[NotChecked, ...]

    def of(self, state: State) -> list[Item]:
        """The items in one state."""
        return [item for item in self.items if item.state is state]


class Sweeper:
    """Finds one stack's resources; can be called repeatedly.

    Args:
        identity: the stack.
        region: where the stack is.
        session: the caller's credentials.
        tell: receives one line per kind.
        other_regions: whether to search the account's other regions by tag, and to sweep those with a match.
        pause: waits, in seconds.
    """

    def __init__(
        self,
        identity: Identity,
        region: str,
        session: boto3.Session,
        tell: Tell,
        *,
        other_regions: bool = True,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._pause = pause
        self._identity, self._region, self._session, self._tell = identity, region, session, tell
        self._other_regions = other_regions
        self._scans: dict[str, RegionScan] = {}
        self._account_id = _account_id(session, region)

    def sweep(self) -> Sweep:
        """Return the current resources.

        Raises:
            TargetError: AWS cannot be queried.
        """
        self._scans = {self._region: self._scan(self._region)}
        missed: list[NotChecked] = []
        self._search(self._scans[self._region], missed)
        searched = self._find_other_regions(missed) if self._other_regions else []
        found: list[Item] = []
        for kind in KINDS:
            for scan in [self._scans[self._region]] if kind.everywhere else self._scans.values():
                found += self._find(kind, scan, missed)
        return Sweep(
            self._identity, self._account_id, tuple(self._scans), tuple(searched), tuple(found), tuple(missed)
        )  # fmt: skip

    def look_of(self, item: Item) -> RegionScan:
        """The scan of an item's region in the last sweep."""
        return self._scans[self._region if item.region == GLOBAL else item.region]

    def _scan(self, region: str) -> RegionScan:
        return RegionScan(self._identity, region, self._account_id, self._session)

    def _search(self, scan: RegionScan, missed: list[NotChecked]) -> None:
        try:
            search_by_tag(scan)
        except (ClientError, BotoCoreError) as error:
            missed.append(NotChecked("search by tag", scan.region, _reason(error, "tag:GetResources")))

    def _find_other_regions(self, missed: list[NotChecked]) -> list[str]:
        home = self._scans[self._region]
        try:
            regions = sorted(region["RegionName"] for region in home.pages("ec2", "describe_regions", "Regions"))
        except (ClientError, BotoCoreError) as error:
            missed.append(NotChecked("other regions", GLOBAL, _reason(error, "ec2:DescribeRegions")))
            return []
        searched = []
        for region in regions:
            if region == self._region:
                continue
            scan = self._scan(region)
            self._search(scan, missed)
            searched.append(region)
            if any(arn.split(":")[3] == region for arn in scan.tagged):  # buckets are listed in every region
                self._scans[region] = scan
        elsewhere = f"; found some in {', '.join(list(self._scans)[1:])}" if len(self._scans) > 1 else ""
        self._tell(f"searched {len(searched)} other regions by tag{elsewhere}")
        return searched

    def _find(self, kind: Kind, scan: RegionScan, missed: list[NotChecked]) -> Sequence[Item]:
        where = "" if kind.everywhere or len(self._scans) == 1 else f" in {scan.region}"
        try:
            found = _list(kind, scan, self._pause)
        except Exception as error:  # an error of one service does not stop the others
            reason = _reason(error)
            missed.append(NotChecked(kind.title, GLOBAL if kind.everywhere else scan.region, reason))
            self._tell(f"{kind.title}{where}: not checked: {reason}")
            return ()
        self._tell(f"{kind.title}{where}: {len(found) or 'none'}")
        return found


def _list(kind: Kind, scan: RegionScan, pause: Callable[[float], object]) -> list[Item]:
    """List again if a listed resource was gone when it was described: listings lag behind deletions."""
    for _ in range(LISTINGS - 1):
        try:
            return list(kind.find(scan))
        except ClientError as error:
            if not is_gone(error):
                raise
        scan.forget()
        pause(PAUSE_SECONDS)
    return list(kind.find(scan))


def _reason(error: Exception, permission: str = "") -> str:
    allow = f" Allow {permission}" if permission and is_denied(error) else ""
    return f"{message_of(error)}{allow}"


def _account_id(session: boto3.Session, region: str) -> str:
    try:
        return str(session.client("sts", region_name=region).get_caller_identity()["Account"])
    except (ClientError, BotoCoreError) as error:
        raise TargetError(
            f"could not look for leftovers in AWS: {message_of(error)}. To look again, {SIGN_IN} and run make teardown"
        ) from None
