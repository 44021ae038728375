"""Asks AWS how instance types are sold in a region and what they cost there. What cannot be asked is a note, not an error."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from infra.aws_credentials import CONFIG, session
from infra.planning.catalog.gpus import InstanceType
from infra.planning.instances import purchase_class
from infra.planning.purchase import alternatives
from infra.preflight import Findings, reason_of
from infra.settings import PurchaseOption, Settings

T = TypeVar("T")
Clients = Callable[[str, str], Any]
"""Makes boto3's client of a service in a region."""
PRICE_LIST_REGION = "us-east-1"  # the Price List API has endpoints in three regions, with the prices of all
PRICE_LIST, SPOT_HISTORY = "AWS Price List API, Linux on-demand", "EC2's Spot price history, the dearest zone"


@dataclass(frozen=True)
class Offers:
    """What AWS answered; a type or a fact that is missing is not known.

    Attributes:
        usage_classes: how each type is sold in the region: on-demand, spot, capacity-block.
        zones: the zones that offer each type.
        usd_per_hour: the price of each type, on demand.
        spot_usd_per_hour: the current Spot price of each type in the zone where it is dearest.
        notes: what could not be asked, and why; one line each.
    """

    usage_classes: Mapping[str, tuple[str, ...]]
    zones: Mapping[str, tuple[str, ...]]
    usd_per_hour: Mapping[str, float]
    spot_usd_per_hour: Mapping[str, float]
    notes: tuple[str, ...] = ()


def clients_of(profile: str) -> Clients:
    """boto3's clients with the credentials of an AWS profile; empty: the default profile."""
    return lambda service, region: session(profile, region).client(service, config=CONFIG)  # type: ignore[call-overload]


def ask_offers(names: Sequence[str], region: str, clients: Clients, *, spot: bool = False) -> Offers:
    """Ask EC2 and the Price List API about instance types.

    Args:
        names: the types.
        region: the stack's region.
        clients: makes boto3's clients.
        spot: whether to ask for Spot prices, too.
    """
    notes: list[str] = []

    def ask(what: str, question: Callable[[], dict[str, T]]) -> dict[str, T]:
        try:
            return question()
        except (BotoCoreError, ClientError) as error:
            notes.append(f"{what} in {region} could not be asked: {reason_of(error)}")
        except (KeyError, TypeError, ValueError, IndexError):
            notes.append(f"{what} in {region} could not be read from AWS's answer")
        return {}

    return Offers(
        usage_classes=ask("how the instances are sold", lambda: _usage_classes(clients("ec2", region), names)),
        zones=ask("the zones of the instances", lambda: _zones(clients("ec2", region), names)),
        usd_per_hour=ask("the prices", lambda: _on_demand(clients("pricing", PRICE_LIST_REGION), names, region)),
        spot_usd_per_hour=ask("the Spot prices", lambda: _spot(clients("ec2", region), names)) if spot else {},
        notes=tuple(notes),
    )


def _usage_classes(ec2: Any, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    # A filter leaves out types that the region does not have; naming them is an error.
    answer = ec2.describe_instance_types(Filters=[{"Name": "instance-type", "Values": list(names)}])
    return {row["InstanceType"]: tuple(row["SupportedUsageClasses"]) for row in answer["InstanceTypes"]}


def _zones(ec2: Any, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    answer = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": list(names)}]
    )
    pairs = [(row["InstanceType"], row["Location"]) for row in answer["InstanceTypeOfferings"]]
    return {name: tuple(sorted(zone for offered, zone in pairs if offered == name)) for name in names}


def _on_demand(pricing: Any, names: Sequence[str], region: str) -> dict[str, float]:
    found = {}
    for name in names:
        wanted = {
            "instanceType": name, "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared",
            "preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": "OnDemand",
        }  # fmt: skip
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
        products = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
        terms = [json.loads(product)["terms"].get("OnDemand", {}) for product in products]
        prices = [
            float(dimension["pricePerUnit"]["USD"])
            for offers in terms
            for offer in offers.values()
            for dimension in offer["priceDimensions"].values()
        ]
        if known := [price for price in prices if price > 0]:
            found[name] = max(known)
    return found


def _spot(ec2: Any, names: Sequence[str]) -> dict[str, float]:
    answer = ec2.describe_spot_price_history(
        InstanceTypes=list(names),
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.datetime.now(datetime.UTC),  # the price that applies now
    )
    found: dict[str, float] = {}
    for row in answer["SpotPriceHistory"]:
        found[row["InstanceType"]] = max(found.get(row["InstanceType"], 0.0), float(row["SpotPrice"]))
    return {name: round(price, 2) for name, price in found.items()}  # to cents: it changes all day


def purchase_findings(
    settings: Settings, instance_types: tuple[InstanceType, ...], region: str, offers: Offers
) -> Findings:
    """Whether AWS sells the plan's instances in the way the stack buys them: a refusal if it sells none of them so."""
    wanted = purchase_class(settings.capacity)
    told = [kind for kind in instance_types if kind.name in offers.usage_classes]
    bad = [kind for kind in told if wanted not in offers.usage_classes[kind.name]]
    if not bad:
        return Findings(warnings=offers.notes)
    lines = tuple(
        f"gpu: {kind.name} is sold in {region} as {' or '.join(offers.usage_classes[kind.name])}, not as {wanted} (EC2's answer). "
        f"Set {', or '.join(alternatives(settings, replace(kind, purchase=offers.usage_classes[kind.name]), region))}"
        for kind in bad
    )
    if len(bad) == len(instance_types):
        return Findings(refusals=lines[:1], warnings=offers.notes)
    return Findings(warnings=(*lines, *offers.notes))


def with_prices(
    instance_types: tuple[InstanceType, ...], capacity: PurchaseOption, region: str, offers: Offers, today: str
) -> tuple[InstanceType, ...]:
    """The instance types with the prices that AWS answered, where they differ from the catalog's."""
    spot = capacity is PurchaseOption.SPOT
    prices, source = (offers.spot_usd_per_hour, SPOT_HISTORY) if spot else (offers.usd_per_hour, PRICE_LIST)
    return tuple(
        replace(
            kind,
            usd_per_hour=prices[kind.name],
            price_source=source,
            price_region=region,
            priced_on=today,
            priced_as="spot" if spot else "on-demand",
        )
        if kind.name in prices and (spot or (region, prices[kind.name]) != (kind.price_region, kind.usd_per_hour))
        else kind
        for kind in instance_types
    )
