"""``python -m infra.planning STACK [--set key=value ...] [--json] [--aws]``: print the plan of a stack, without an account."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from typing import Any

from infra.command_line import run
from infra.errors import PlanError, UserError
from infra.planning import make_plan
from infra.planning.deployment import deployment_problems
from infra.planning.plan import CostPlan, ServingPlan
from infra.planning.serving import priced_again
from infra.settings import PurchaseOption, Settings
from infra.stack_files import aws_setting, load_stack, parse_overrides, region_of
from infra.terminal import paint

BILL_HOURS = 8


def as_json(plan: ServingPlan) -> dict[str, Any]:
    """The plan for programs: flat keys with units in their names."""
    memory, replicas, cost = plan.memory, plan.replicas, plan.cost
    return {
        "model": plan.model,
        "served_model_name": plan.served_model_name,
        "model_figures_from": plan.architecture.source,
        "fits": memory.fits,
        "instance_types": [instance_type.name for instance_type in replicas.instance_types],
        "gpu": replicas.gpu.gpu.value,
        "gpu_count": replicas.gpu_count,
        "tensor_parallel_size": plan.engine.tensor_parallel_size,
        "data_parallel_size": plan.engine.data_parallel_size,
        "usable_gib": memory.usable_gib,
        "weights_gib": memory.weights_gib,
        "overhead_gib": memory.overhead_gib,
        "kv_cache_gib": memory.kv_cache_gib,
        "kv_bytes_per_token": memory.kv_bytes_per_token,
        "kv_cache_tokens": memory.kv_cache_tokens,
        "max_model_len": memory.max_model_len,
        "max_full_length_sequences": memory.max_full_length_sequences,
        "min_replicas": replicas.min_replicas,
        "max_replicas": replicas.max_replicas,
        "expected_cold_start_seconds": replicas.expected_cold_start_seconds,
        "engine_image": plan.engine.image,
        "engine_args": list(plan.engine.args),
        "environment": dict(plan.engine.environment),
        "container_memory_mib": plan.engine.memory_mib,
        "shared_memory_mib": plan.engine.shared_memory_mib,
        "usd_per_hour_active": cost.usd_per_hour_active,
        "usd_per_hour_idle": cost.usd_per_hour_idle,
        "usd_per_cold_start": cost.usd_per_cold_start,
        "usd_per_month": {f"{hours}_hours_a_day": cost.usd_per_month(hours) for hours in (1, 8, 24)},
        "cost_items": [
            {
                "name": i.name,
                "usd_per_hour_idle": round(i.usd_per_hour_idle, 5),
                "usd_per_hour_active": round(i.usd_per_hour_active, 5),
                "price_from": i.source,
            }
            for i in cost.items
        ],
        "wake_items": [{"name": i.name, "usd": round(i.usd, 5), "price_from": i.source} for i in cost.wake_items],
        "usd_per_wake": cost.usd_per_wake,
        "wakes_per_day": cost.wakes_per_day,
        "usd_once": cost.usd_once,
        "region": cost.region,
        "priced_on": cost.priced_on,
        "price_from": cost.price_source,
        "price_unknown": cost.unknown,
        "warnings": list(plan.warnings),
    }


def as_table(plan: ServingPlan, stack: str) -> str:
    """The plan for people: what runs, whether it fits, and what it costs."""
    memory, replicas, cost = plan.memory, plan.replicas, plan.cost
    gpus = f"{replicas.gpu_count} x {replicas.gpu.label}"
    copies = plan.engine.data_parallel_size
    each = f" in each of {copies} copies of the model" if copies > 1 else ""
    count = f"{replicas.min_replicas} to {replicas.max_replicas}"
    if replicas.min_replicas == 0:
        count += f", to zero after {replicas.scale_down_seconds // 60} idle minutes"
    instance_types = ", then ".join(instance_type.name for instance_type in replicas.instance_types)
    at_most = "at most " if "Spot" in cost.unknown else ""
    why = f" ({cost.unknown})" if cost.unknown else ""
    rows = [
        ("stack", stack),
        ("model", plan.model + (f" at {plan.model_revision}" if plan.model_revision else "")),
        ("runs on", f"{gpus} per replica ({instance_types})"),
        ("replicas", count),
        (
            "fits",
            f"yes: {memory.weights_gib} GiB weights + {memory.overhead_gib} GiB working memory + {memory.kv_cache_gib} GiB KV cache of {memory.usable_gib} GiB{' per GPU' if replicas.gpu_count > 1 else ''}",
        ),
        (
            "KV cache",
            "none: each input is read once"
            if not plan.architecture.keeps_cache
            else f"{memory.kv_cache_tokens:,} tokens: {memory.max_full_length_sequences:g} sequences of {memory.max_model_len:,} tokens{each}",
        ),
        (
            "cold start",
            f"about {replicas.expected_cold_start_seconds} s and ${cost.usd_per_cold_start:.2f} (estimate; the deploy measures it)",
        ),
        (
            "cost",
            f"{at_most}${cost.usd_per_hour_active:.3f} an hour active, ${cost.usd_per_hour_idle:.3f} idle, in {cost.region}{why}",
        ),
        (
            "a month",
            ", ".join(f"{at_most}${cost.usd_per_month(hours):,.0f} at {hours} h a day" for hours in (1, 8, 24)),
        ),
        *bill_rows(cost),
        *[("warning", text) for text in plan.warnings],
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def bill_rows(cost: CostPlan) -> list[tuple[str, str]]:
    """The lines of a month's bill with 8 active hours a day, and where the prices are from."""
    lines = cost.bill(BILL_HOURS)
    sources = list(dict.fromkeys(source for _, _, source in lines if source))
    wakes = f", {cost.wakes_a_day(BILL_HOURS):g} wakes a day (${cost.usd_per_wake:.2f} each)" if cost.wake_items else ""
    rows = [("bill", f"a month at {BILL_HOURS} h a day{wakes}, without data transfer and tax:")]
    for name, usd, source in lines:
        mark = f" [{sources.index(source) + 1}]" if source else ""
        rows.append(("", f"${usd:>9,.2f}  {name}{mark}"))
    if cost.usd_once:
        rows.append(("", f"${cost.usd_once:>9,.2f}  once: weights through the NAT gateway [{len(sources)}]"))
    return rows + [("prices" if not n else "", f"[{n + 1}] {source}") for n, source in enumerate(sources)]


def _asked(settings: Settings, plan: ServingPlan, region: str, stack: str) -> ServingPlan:
    """The plan with AWS's answers as prices and warnings."""
    from infra import offers  # boto3, which is not needed otherwise

    kinds = plan.replicas.instance_types
    found = offers.ask_offers(
        [kind.name for kind in kinds],
        region,
        offers.clients_of(aws_setting(stack, "profile")),
        spot=settings.capacity is PurchaseOption.SPOT,
    )
    findings = offers.purchase_findings(settings, kinds, region, found)
    if findings.refusals:
        raise PlanError(list(findings.refusals))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    again = priced_again(settings, plan, offers.with_prices(kinds, settings.capacity, region, found, today), region)
    return dataclasses.replace(again, warnings=(*again.warnings, *findings.warnings))


def main(argv: list[str] | None = None) -> int:
    """Print the plan and return exit code 0, or 1 with the problems on stderr if it cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.planning",
        description="Print what a stack would run and cost, or why it cannot work. Requires no AWS account, except with --aws.",
    )
    parser.add_argument("stack", help="name of a stack: dev, prod or another Pulumi.<stack>.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of the stack file"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument(
        "--aws", action="store_true", help="ask AWS how the instances are sold and what they cost; requires credentials"
    )
    options = parser.parse_args(argv)
    try:
        settings = load_stack(options.stack, parse_overrides(options.set, options.stack))
        region = region_of(options.stack)
        plan = make_plan(settings, region=region)
        if reasons := deployment_problems(settings, plan, region):
            raise PlanError(reasons)
        if options.aws:
            plan = _asked(settings, plan, region, options.stack)
    except UserError as error:
        if options.json:
            reasons = error.problems
            print(json.dumps({"fits": False, "reasons": reasons}, indent=2))
        print(f"{paint('error:', 'red', sys.stderr)} {error}", file=sys.stderr)
        return 1
    print(json.dumps(as_json(plan), indent=2) if options.json else as_table(plan, options.stack))
    if sys.stdout.isatty() and not options.json:
        print(paint(f"\n{options.stack} fits; deploy it with make up STACK={options.stack}", "green"))
    return 0


if __name__ == "__main__":
    run(main)
