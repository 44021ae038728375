"""What is wrong with a stack's settings, all problems at once, each with what to set instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from infra.settings import SECRET_FIELDS, Capacity, NatGateways, Settings, Target


class SettingsError(ValueError):
    """The settings of a stack cannot be used; the message lists every problem, a line each."""

    def __init__(self, stack: str, problems: list[str]) -> None:
        self.problems = problems
        heading = f"stack {stack}: {len(problems)} problem{'s' if len(problems) > 1 else ''} in its settings"
        super().__init__("\n".join([heading, *(f"  - {problem}" for problem in problems)]))


def parse_settings(values: Mapping[str, Any], stack: str = "stack") -> Settings:
    """Validate one stack's values, keyed as in the stack file (camelCase, without the project's prefix).

    Raises:
        SettingsError: naming every unknown key, bad value and contradiction.
    """
    problems: list[str] = []
    known = {to_camel(name): name for name in Settings.model_fields}
    good = dict(values)
    for key in [key for key in values if key not in known]:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "remove it; Pulumi.yaml lists the keys"
        problems.append(f"{key}: no such setting; {hint}")
        del good[key]
    bad: set[str] = set()
    while True:
        try:
            settings = Settings.model_validate(good)
            break
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False):
                key = str(detail["loc"][0])
                if key not in bad:
                    problems.append(_describe(key, known[key], detail, values[key]))
                bad.add(key)
                good.pop(key, None)
    problems += [text for keys, text in _contradictions(settings) if not bad & set(keys)]
    if problems:
        raise SettingsError(stack, problems)
    return settings


def _describe(key: str, field: str, detail: Any, value: object) -> str:
    """One line: the key, the value found (never a secret), what is expected."""
    description = Settings.model_fields[field].description or ""
    if field in SECRET_FIELDS:
        found = "a value that is not shown"
    else:
        if len(detail["loc"]) > 1 and isinstance(detail["loc"][1], int) and isinstance(value, list | tuple):
            value = value[detail["loc"][1]]
        found = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if detail["type"] == "tuple_type":
        reason = "should be a list"
    elif detail["type"] == "string_pattern_mismatch":
        reason = "which has not the right form"
    else:
        reason = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{key}: found {found}, {reason}. Set: {description}"


def _contradictions(s: Settings) -> list[tuple[tuple[str, ...], str]]:
    """Values that are fine alone but not together: (keys involved, message)."""
    found: list[tuple[tuple[str, ...], str]] = []

    def add(*keys: str, text: str) -> None:
        found.append((keys, text))

    if s.min_replicas > s.max_replicas:
        add(
            "minReplicas",
            "maxReplicas",
            text=f"minReplicas: found {s.min_replicas}, more than maxReplicas ({s.max_replicas}). Set maxReplicas to at least {s.min_replicas}",
        )
    if s.max_num_seqs and s.max_num_batched_tokens and s.max_num_seqs > s.max_num_batched_tokens:
        add(
            "maxNumSeqs",
            "maxNumBatchedTokens",
            text=f"maxNumSeqs: found {s.max_num_seqs}, more than maxNumBatchedTokens ({s.max_num_batched_tokens}); vLLM refuses that. Set maxNumBatchedTokens to at least {s.max_num_seqs}",
        )
    if s.capacity is Capacity.RESERVATION and not s.capacity_reservation_id:
        add(
            "capacity",
            "capacityReservationId",
            text="capacity: found reservation, but no capacityReservationId. Set capacityReservationId to the reservation's cr-... id",
        )
    if s.capacity_reservation_id and s.capacity is not Capacity.RESERVATION:
        add(
            "capacity",
            "capacityReservationId",
            text=f"capacityReservationId: found {s.capacity_reservation_id}, but capacity is {s.capacity}. Set capacity: reservation, or remove it",
        )
    if s.warm_pool and s.capacity is Capacity.SPOT:
        add(
            "warmPool",
            "capacity",
            text=f"warmPool: found {s.warm_pool} with capacity: spot; AWS keeps no warm pool of Spot instances. Set warmPool: 0 or capacity: on-demand",
        )
    if s.vpc_id and len(s.subnet_ids) < 2:
        add(
            "vpcId",
            "subnetIds",
            text=f"subnetIds: found {len(s.subnet_ids)}, but vpcId is set. Set at least two private subnets in different zones",
        )
    if not s.vpc_id and (s.subnet_ids or s.load_balancer_subnet_ids):
        add(
            "vpcId",
            "subnetIds",
            "loadBalancerSubnetIds",
            text="vpcId: not set, but subnets are. Set vpcId to the VPC they are in, or remove them",
        )
    if s.load_balancer_subnet_ids and len(s.load_balancer_subnet_ids) < 2:
        add(
            "loadBalancerSubnetIds",
            text="loadBalancerSubnetIds: found 1; a load balancer needs two zones. Set two public subnets, or none",
        )
    if s.vpc_id and not s.load_balancer_subnet_ids and s.allowed_cidrs and not s.https:
        add(
            "vpcId",
            "loadBalancerSubnetIds",
            "allowedCidrs",
            text="allowedCidrs: found with vpcId but no loadBalancerSubnetIds, so the load balancer is internal. Set loadBalancerSubnetIds to public subnets, or remove allowedCidrs",
        )
    if any(cidr.endswith("/0") for cidr in s.allowed_cidrs) and not s.https and not s.allow_http_from_anywhere:
        add(
            "allowedCidrs",
            "certificateArn",
            "domain",
            text="allowedCidrs: found a network of the whole internet over plain HTTP, which would send API keys in the clear. Set certificateArn or domain, or name smaller networks; allowHttpFromAnywhere: true says it twice",
        )
    if s.nat_gateways is NatGateways.NONE and not s.vpc_id and s.target is Target.ECS:
        add(
            "natGateways",
            "vpcId",
            text="natGateways: found none; the engine could reach neither its image nor the model hub. Set single or per-zone, or an existing network with vpcId",
        )
    if s.monthly_budget_usd and not s.alarm_email:
        add(
            "monthlyBudgetUsd",
            "alarmEmail",
            text=f"monthlyBudgetUsd: found {s.monthly_budget_usd}, but nobody to warn. Set alarmEmail",
        )
    if s.port == 80 and s.https:
        add(
            "port",
            "certificateArn",
            "domain",
            text="port: found 80 with a certificate; port 80 only redirects then. Set port: 443, or remove it",
        )
    return found
