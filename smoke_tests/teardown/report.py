"""Reports a sweep: text for people, JSON for programs."""

from collections.abc import Sequence
from typing import Any

from smoke_tests.teardown.items import Item, State
from smoke_tests.teardown.kinds import KINDS
from smoke_tests.teardown.prices import HOURS_PER_MONTH, price_table
from smoke_tests.teardown.removal import Refused
from smoke_tests.teardown.sweep import Sweep

SCHEMA_VERSION = 1
LONGEST_LABEL = 64
CLEAN, LEFT, NOT_CHECKED = 0, 1, 3
HEADINGS = {
    State.LEFT: "left",
    State.KEPT: "kept on purpose (protect), and billed",
    State.GOING: "deleted already, and not billed",
    State.UNCONFIRMED: "unconfirmed: carry the tags, but may be gone (the tagging API also lists deleted resources)",
}


def exit_code(sweep: Sweep) -> int:
    """0: nothing is left and everything was checked; 1: something is left; 3: something was not checked or confirmed."""
    if sweep.of(State.LEFT):
        return LEFT
    return NOT_CHECKED if sweep.not_checked or sweep.of(State.UNCONFIRMED) else CLEAN


def warnings(sweep: Sweep) -> list[str]:
    """Warnings to read before deleting."""
    clusters = [item.name for item in sweep.items if item.kind == "ECS cluster"]
    if len(clusters) < 2:
        return []
    return [
        f"{len(clusters)} deployments carry these tags ({', '.join(clusters)}). A colleague's stack of the same name in this "
        "account cannot be told from yours"
    ]


def as_text(sweep: Sweep, refused: Sequence[Refused] = ()) -> str:
    """The sweep as text."""
    elsewhere = f"; {len(sweep.searched_regions)} other regions by tag" if sweep.searched_regions else ""
    lines = [
        f"{sweep.identity.title} of project {sweep.identity.project}, account {sweep.account_id}, "
        f"{', '.join(sweep.regions)}{elsewhere}"
    ]
    for state, heading in HEADINGS.items():
        if items := sweep.of(state):
            lines += ["", f"{heading}: {_total(items)}", *_rows(items, regions=len(sweep.regions) > 1)]
    lines += [f"  to use these weights again: {command}" for command in reuse(sweep)]
    if sweep.not_checked:
        lines += ["", "not checked"]
        lines += [f"  {one.what} ({one.region}): {one.reason}" for one in sweep.not_checked]
    if refused:
        lines += ["", "could not be deleted", *(f"  {r.item.kind} {r.item.name}: {r.reason}" for r in refused)]
    lines += [f"warning: {text}" for text in warnings(sweep)]
    return "\n".join([*lines, "", f"result: {_result(sweep)}"])


def reuse(sweep: Sweep) -> list[str]:
    """The command, or the argument, that reuses a retained file system in the endpoint's next deployment."""
    kept = [item.identifier for item in sweep.of(State.KEPT) if item.kind == "EFS file system"]
    if sweep.identity.owner:
        return [f'the argument weightsFileSystemId: "{name}"' for name in kept]
    return [f"pulumi config set weightsFileSystemId {name} --stack {sweep.identity.stack}" for name in kept]


def _rows(items: Sequence[Item], *, regions: bool) -> list[str]:
    """One line per resource, the most expensive first."""
    ordered = sorted(items, key=lambda item: -1e9 if item.usd_per_hour is None else -item.usd_per_hour)
    labels = [_label(item) for item in ordered]
    width = min(LONGEST_LABEL, max(map(len, labels)))
    lines = []
    for item, label in zip(ordered, labels, strict=True):
        price = "?" if item.usd_per_hour is None else f"{item.usd_per_hour:.4f}"
        told = [item.region if regions else "", item.note, "" if item.found_by == "tag" else f"by {item.found_by}"]
        lines.append(f"  {price:>8}  {item.kind:<20} {label:<{width}}  {'; '.join(filter(None, told))}".rstrip())
    return lines


def _label(item: Item) -> str:
    """The identifier if people use it, such as i-0123456789, and the name."""
    short = "" if ":" in item.identifier or "/" in item.identifier else item.identifier
    return " ".join(dict.fromkeys(filter(None, [short, item.name])))[:LONGEST_LABEL]


def _total(items: Sequence[Item]) -> str:
    known = sum(item.usd_per_hour or 0 for item in items)
    unknown = sum(item.usd_per_hour is None for item in items)
    more = f", and {unknown} whose price is not known" if unknown else ""
    month = f"${known * HOURS_PER_MONTH:,.2f} a month"
    return f"{len(items)}, ${known:.4f} an hour, {month} at list price of {price_table()['priced_on']}{more}"


def _result(sweep: Sweep) -> str:
    stack, left, kept = sweep.identity.stack, sweep.of(State.LEFT), sweep.of(State.KEPT)
    if left:
        billed = [item for item in left if item.usd_per_hour is None or item.usd_per_hour > 0]
        return f"{len(left)} things of stack {stack} are left, {len(billed)} of them billed. To delete them: add --fix"
    but = f"; {len(kept)} kept on purpose (--fix --include-retained deletes them)" if kept else ""
    if sweep.not_checked:
        return f"nothing of stack {stack} was found, but {len(sweep.not_checked)} could not be checked: this proves nothing{but}"
    if unconfirmed := sweep.of(State.UNCONFIRMED):
        return (
            f"nothing of stack {stack} was found, but {len(unconfirmed)} tagged resources are unconfirmed: look for them in "
            f"their service's console{but}"
        )
    return f"nothing of stack {stack} is left: {len(KINDS)} kinds of resources were checked{but}"


def as_json(sweep: Sweep, refused: Sequence[Refused] = ()) -> dict[str, Any]:
    """The sweep as JSON."""
    left = sweep.of(State.LEFT)
    return {
        "schema_version": SCHEMA_VERSION,
        "project": sweep.identity.project,
        "stack": sweep.identity.stack,
        "account_id": sweep.account_id,
        "regions": list(sweep.regions),
        "regions_searched_by_tag": list(sweep.searched_regions),
        "clean": exit_code(sweep) == CLEAN,
        "usd_per_hour_left": round(sum(item.usd_per_hour or 0 for item in left), 6),
        "priced_on": price_table()["priced_on"],
        **{state.value: [_entry(item) for item in sweep.of(state)] for state in State},
        "not_checked": [vars(one) for one in sweep.not_checked],
        "not_deleted": [{**_entry(one.item), "reason": one.reason} for one in refused],
        "reuse_weights": reuse(sweep),
        "warnings": warnings(sweep),
    }


def _entry(item: Item) -> dict[str, Any]:
    return {key: value for key, value in vars(item).items() if key != "state"}
