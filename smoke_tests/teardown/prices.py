"""What an hour of something costs at AWS's list price. The data says of which day; a test holds it equal to the plan's."""

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
    """US dollars an hour for `amount` of a unit, spread over the month where it is billed by the month."""
    price = float(price_table()["usd"][unit]) * amount
    return price / HOURS_PER_MONTH if unit.endswith("_month") else price


def instance_hourly(instance_type: str) -> float | None:
    """US dollars an hour of a running instance on demand; None where the table does not know the type."""
    price = price_table()["instance_types"].get(instance_type)
    return None if price is None else float(price)


def volume_hourly(volume: dict[str, Any]) -> float:
    """US dollars an hour of an EBS volume, priced as gp3, with what it has above gp3's free throughput and IOPS."""
    table = price_table()["usd"]
    extra_throughput = max(0, int(volume.get("Throughput") or 0) - table["ebs_gp3_mibps_included"])
    extra_iops = max(0, int(volume.get("Iops") or 0) - table["ebs_gp3_iops_included"])
    return (
        hourly("ebs_gp3_gb_month", volume["Size"])
        + hourly("ebs_gp3_mibps_month", extra_throughput)
        + hourly("ebs_gp3_iops_month", extra_iops)
    )
