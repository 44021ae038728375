"""AWS list prices per hour, with the date of the price list. A test keeps them equal to the plan's."""

import functools
import json
from pathlib import Path
from typing import Any

HOURS_PER_MONTH = 730
GIB, GB = 2**30, 10**9
_DATA = Path(__file__).with_name("prices.json")


@functools.cache
def price_table() -> dict[str, Any]:
    """The whole file: `priced_on`, `price_source`, `usd` by unit, `instance_types` by name (US dollars an hour)."""
    return dict(json.loads(_DATA.read_text()))


def hourly(unit: str, amount: float = 1) -> float:
    """US dollars per hour for `amount` of a unit; a monthly price is divided by the hours of a month."""
    price = float(price_table()["usd"][unit]) * amount
    return price / HOURS_PER_MONTH if unit.endswith("_month") else price


def instance_hourly(instance_type: str) -> float | None:
    """On-demand price of a running instance in US dollars per hour; None if the table does not list the type."""
    price = price_table()["instance_types"].get(instance_type)
    return None if price is None else float(price)


def volume_hourly(volume: dict[str, Any]) -> float:
    """Price of an EBS volume in US dollars per hour: gp3, plus throughput and IOPS above the free baseline."""
    table = price_table()["usd"]
    extra_throughput = max(0, int(volume.get("Throughput") or 0) - table["ebs_gp3_mibps_included"])
    extra_iops = max(0, int(volume.get("Iops") or 0) - table["ebs_gp3_iops_included"])
    return (
        hourly("ebs_gp3_gb_month", volume["Size"])
        + hourly("ebs_gp3_mibps_month", extra_throughput)
        + hourly("ebs_gp3_iops_month", extra_iops)
    )
