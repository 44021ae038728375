"""What AWS answers about instance types: how they are sold, where, and at what price."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from moto import mock_aws

from infra.aws.account import check_offers
from infra.errors import DeployError
from infra.offers import Clients, Offers, ask_offers, purchase_findings, with_prices
from infra.planning import __main__ as command
from infra.planning import make_plan
from infra.planning.catalog.gpus import known_instance_types
from infra.planning.cost import cost_plan
from infra.planning.plan import ServingPlan
from infra.planning.serving import priced_again
from infra.settings import PurchaseOption, Settings
from infra.stack_files import load_stack

NOTHING = Offers({}, {}, {}, {})


def product(usd: str) -> str:
    """An entry of the Price List API, as AWS documents it."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": usd}}
    return json.dumps({"product": {}, "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}}})


class Fake:
    """A client with fixed answers; an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[dict[str, Any]]()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(**arguments: Any) -> Any:
            self.asked.append(arguments)
            if isinstance(found := self.answers[name], Exception):
                raise found
            return found

        return answer


def fakes(usage: Any = ("on-demand", "spot"), price: Any = "1.50", spot: Any = ("0.4012", "0.4398")) -> Clients:
    types = usage if isinstance(usage, Exception) else {"InstanceTypes": [{"InstanceType": "g5.xlarge", "SupportedUsageClasses": list(usage)}]}  # fmt: skip
    history = [{"InstanceType": "g5.xlarge", "SpotPrice": one} for one in spot]
    clients = {
        "ec2": Fake(
            describe_instance_types=types,
            describe_instance_type_offerings={"InstanceTypeOfferings": [{"InstanceType": "g5.xlarge", "Location": "eu-west-1b"}]},
            describe_spot_price_history={"SpotPriceHistory": history},
        ),
        "pricing": Fake(get_products=price if isinstance(price, Exception) else {"PriceList": [product(price), product("0.0")]}),
    }  # fmt: skip
    return lambda service, _: clients[service]


def planned(**values: Any) -> tuple[Settings, ServingPlan]:
    settings = load_stack("dev", {"instanceTypes": ["g5.xlarge"], **values})
    return settings, make_plan(settings, region="eu-west-1")


def test_the_price_of_another_region_is_the_one_that_aws_answers() -> None:
    settings, plan = planned()
    assert "price unknown in eu-west-1" in plan.cost.unknown
    offers = ask_offers(["g5.xlarge"], "eu-west-1", clients := fakes())
    asked = {one["Field"]: one["Value"] for one in clients("pricing", "").asked[0]["Filters"]}
    # Without these, the answer also has prices of capacity blocks, of other software and of unused reservations.
    assert (
        asked.items()
        >= {
            "marketoption": "OnDemand",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
            "regionCode": "eu-west-1",
        }.items()
    )
    assert (offers.zones, offers.notes) == ({"g5.xlarge": ("eu-west-1b",)}, ())
    kinds = with_prices(plan.replicas.instance_types, settings.capacity, "eu-west-1", offers, "2026-11-29")
    again = priced_again(settings, plan, kinds, "eu-west-1")
    gpu = again.cost.items[0]
    assert (gpu.usd_per_hour_active, gpu.source) == (1.5, "AWS Price List API, Linux on-demand, 2026-11-29")
    assert again.cost.unknown == "the instances' price is that of eu-west-1, the other lines are prices of us-east-1"
    assert again.cost.usd_per_cold_start > plan.cost.usd_per_cold_start


def test_spot_is_priced_at_the_dearest_zone_of_now() -> None:
    settings, plan = planned(capacity="spot")
    offers = ask_offers(["g5.xlarge"], "us-east-1", clients := fakes(), spot=True)
    assert "StartTime" in clients("ec2", "").asked[-1]
    kinds = with_prices(plan.replicas.instance_types, PurchaseOption.SPOT, "us-east-1", offers, "2026-11-29")
    again = priced_again(settings, plan, kinds, "us-east-1")
    assert (again.cost.items[0].usd_per_hour_active, again.cost.unknown) == (0.44, "")
    assert "at most" in command.as_table(plan, "dev")
    assert "at most" not in command.as_table(again, "dev")


def test_a_deploy_uses_the_answers_and_is_refused_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, plan = planned()
    context: Any = SimpleNamespace(explicit=False, region="eu-west-1", parent=None)
    monkeypatch.setattr("infra.aws.account.clients_of", lambda _: fakes())
    assert check_offers(context, settings, plan).cost.usd_per_hour_active > plan.cost.usd_per_hour_active
    monkeypatch.setattr("infra.aws.account.clients_of", lambda _: fakes(usage=("capacity-block",)))
    with pytest.raises(DeployError, match="not as on-demand"):
        check_offers(context, settings, plan)
    # The credentials of a provider of the component's own are not known.
    assert check_offers(SimpleNamespace(explicit=True), settings, plan) is plan  # type: ignore[arg-type]


def test_a_price_that_is_the_catalogs_changes_nothing() -> None:
    kinds = (known_instance_types()["g5.xlarge"],)
    offers = ask_offers(["g5.xlarge"], "us-east-1", fakes(price="1.006"))
    assert with_prices(kinds, PurchaseOption.ON_DEMAND, "us-east-1", offers, "2027-01-01") == kinds


def test_what_aws_does_not_sell_so_is_refused_and_one_of_several_is_a_warning() -> None:
    settings, plan = planned()
    block = ask_offers(["g5.xlarge"], "eu-west-1", fakes(usage=("capacity-block",)))
    (refusal,) = purchase_findings(settings, plan.replicas.instance_types, "eu-west-1", block).refusals
    assert refusal.startswith(
        "gpu: g5.xlarge is sold in eu-west-1 as capacity-block, not as on-demand (EC2's answer). Set capacity"
    )
    both = (*plan.replicas.instance_types, known_instance_types()["g5.2xlarge"])
    found = purchase_findings(settings, both, "eu-west-1", block)
    assert (found.refusals, len(found.warnings)) == ((), 1)


DENIED = ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "x"}}, "DescribeInstanceTypes")


@pytest.mark.parametrize(
    ("clients", "told"),
    [
        (fakes(usage=DENIED), "how the instances are sold in eu-west-1 could not be asked: UnauthorizedOperation"),
        (fakes(price=NoCredentialsError()), "the prices in eu-west-1 could not be asked: NoCredentialsError"),
        (fakes(price="many"), "the prices in eu-west-1 could not be read from AWS's answer"),
    ],
)
def test_what_cannot_be_asked_is_a_note_and_the_rest_is_used(clients: Clients, told: str) -> None:
    settings, plan = planned()
    offers = ask_offers(["g5.xlarge"], "eu-west-1", clients)
    assert offers.notes == (told,)
    findings = purchase_findings(settings, plan.replicas.instance_types, "eu-west-1", offers)
    assert (findings.refusals, findings.warnings) == ((), (told,))
    assert purchase_findings(settings, plan.replicas.instance_types, "eu-west-1", NOTHING).warnings == ()
    assert cost_plan(settings, plan.replicas, plan.engine, plan.gateway, "eu-west-1") == plan.cost


def test_make_plan_asks_only_if_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def clients_of(profile: str) -> Clients:
        asked.append(profile)
        return fakes(price="1.10")

    monkeypatch.setattr("infra.offers.clients_of", clients_of)
    arguments = ["dev", "--set", "instanceTypes=[g5.xlarge]"]
    assert command.main(arguments) == 0
    assert asked == []
    assert command.main([*arguments, "--aws"]) == 0
    assert "AWS Price List API, Linux on-demand, 20" in capsys.readouterr().out


def test_ec2_is_asked_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with mock_aws():  # moto has a copy of EC2's data
        client = boto3.client("ec2", region_name="us-east-1")
        pricing = fakes()("pricing", "")
        offers = ask_offers(
            ["g5.xlarge", "p5.48xlarge"], "us-east-1", lambda service, _: client if service == "ec2" else pricing
        )
    assert set(offers.usage_classes) == {"g5.xlarge", "p5.48xlarge"}
    assert "on-demand" in offers.usage_classes["g5.xlarge"]
    assert offers.zones["g5.xlarge"]
