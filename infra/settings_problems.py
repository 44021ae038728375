"""Validates a stack's settings and reports all problems at once, each with what to set instead."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from infra.errors import SettingsError
from infra.gateway_environment import problems as gateway_environment_problems
from infra.inputs import is_output, is_plain
from infra.plain_secrets import misplaced
from infra.settings import (
    SECRET_FIELDS,
    NatGateways,
    PurchaseOption,
    Settings,
    Target,
    is_hub_id,
    list_keys,
    secret_keys,
    secret_text,
)
from infra.web_address import hide_userinfo

MOST_REPLICAS_BY_NAME = 8  # Route 53 returns up to eight records for a multivalue answer
LEAST_WAF_LIMIT = 10


def parse_settings(values: Mapping[str, Any], stack: str = "stack") -> Settings:
    """Validate one stack's values, keyed as in the stack file (camelCase, without the project's prefix).

    Raises:
        SettingsError: lists every unknown key, invalid value and conflict.
    """
    problems: list[str] = []
    known = {to_camel(name): name for name in Settings.model_fields}
    good = dict(values)
    for key in [key for key in values if key not in known]:
        close = difflib.get_close_matches(key, known, n=1) or [name for name in known if name.lower() == key.lower()]
        hint = f"did you mean {close[0]}?" if close else "remove it; Pulumi.yaml lists the keys"
        if close and close[0] in secret_keys():
            hint += f" Set it with pulumi config set --secret {close[0]}"
        problems.append(f"{key}: unknown setting; {hint}")
        del good[key]
    bad: set[str] = set()
    for key in [key for key in good if key not in secret_keys()]:
        if key in list_keys():
            good[key] = _as_list(good[key])
        if not is_plain(good[key]):
            continue
        if refusal := misplaced(key, good[key]):
            problems.append(refusal)
            bad.add(key)
            del good[key]
    while True:
        try:
            settings = Settings.model_validate(good)
            break
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False):
                key = str(detail["loc"][0])
                if key not in bad:
                    problems.append(describe(key, known[key], detail, good[key]))
                bad.add(key)
                good.pop(key, None)
    problems += [text for keys, text in _conflicts(settings) if not bad & set(keys)]
    if problems:
        raise SettingsError(stack, problems)
    return settings


def _as_list(value: object) -> object:
    """Convert a list as users write it: JSON text is accepted, and so are numbers, which `pulumi config set --path` writes, and JSON objects, such as engineArgs have."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list | tuple):
        return [json.dumps(item) if isinstance(item, bool | int | float | dict) else item for item in value]
    return value


def as_argument(problem: str) -> str:
    """A problem of a stack file's setting as one of a component's argument: no command of the stack's configuration sets it."""
    problem = re.sub(r" Set it with pulumi config set --secret \w+", "", problem)
    problem = re.sub(r"pulumi config set --path '\w+\[0\]' (?:-- )?(.+)$", _as_json_list, problem)
    problem = re.sub(r"pulumi config set --secret (\w+)", r"\1 to a secret output", problem)
    return problem.replace("Pulumi.yaml lists the keys", "docs/component.md lists the arguments")


def _as_json_list(command: re.Match[str]) -> str:
    return json.dumps(shlex.split(command[1]))


def list_command(key: str, value: str) -> str:
    """The command that sets ``value`` as the first item of a list."""
    shown = shlex.quote(value) if 0 < len(value) <= 60 and "\n" not in value else "VALUE"
    return f"pulumi config set --path '{key}[0]' {'-- ' if value.startswith('-') else ''}{shown}"


def describe(key: str, field: str, detail: Any, value: object) -> str:
    """One line: the key, the value found (never a secret), what is expected."""
    description = Settings.model_fields[field].description or ""
    if field in SECRET_FIELDS:
        found = "a value that is not shown"
    else:
        if len(detail["loc"]) > 1 and isinstance(detail["loc"][1], int) and isinstance(value, list | tuple):
            value = value[detail["loc"][1]]
        shown = hide_userinfo(repr(value))
        found = shown if len(shown) <= 60 else shown[:57] + "..."
    if detail["type"] == "tuple_type":
        return f"{key}: found {found}, should be a list. Set: {list_command(key, str(value))}"
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if detail["type"] in ("enum", "literal_error"):
        return f"{key}: found {found}. Set {message.removeprefix('should be ')}"
    if expected := _expected(detail["type"], message):
        return f"{key}: found {found}. Set {expected}: {description}"
    if detail["type"] == "string_pattern_mismatch":
        return f"{key}: found {found}, which is not in the expected format. Set: {description}"
    return f"{key}: found {found}, {message}. Set: {description}"


def _expected(kind: str, message: str) -> str:
    """The expected number or boolean in plain words; empty for other kinds of problems."""
    if kind.startswith("int_"):
        return "a whole number"
    if kind.startswith(("float_", "decimal_", "finite_number")):
        return "a number"
    if kind.startswith("bool_"):
        return "true or false"
    for prefix, words in (
        ("should be greater than or equal to ", "at least"),
        ("should be less than or equal to ", "at most"),
        ("should be greater than ", "more than"),
        ("should be less than ", "less than"),
    ):
        if message.startswith(prefix):
            return f"{words} {message.removeprefix(prefix)}"
    return ""


def _share_of_internet(cidrs: tuple[str, ...]) -> str:
    """In words, if these networks together are at least half of the addresses of IPv4 or IPv6; else empty."""
    for version in (4, 6):
        networks = [network for network in map(ipaddress.ip_network, cidrs) if network.version == version]
        if not networks:
            continue
        merged = list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]
        total = sum(network.num_addresses for network in merged)
        if merged[0].prefixlen == 0:
            return "the whole internet"
        if total * 2 >= 2 ** merged[0].max_prefixlen:
            return "half of the internet or more"
    return ""


def _conflicts(s: Settings) -> list[tuple[tuple[str, ...], str]]:
    """Values that are valid individually but conflict with each other: (keys involved, message)."""
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
            text=f"maxNumSeqs: found {s.max_num_seqs}, more than maxNumBatchedTokens ({s.max_num_batched_tokens}); vLLM rejects that. Set maxNumBatchedTokens to at least {s.max_num_seqs}",
        )
    if s.model_revision and not is_hub_id(s.model):
        add(
            "model",
            "modelRevision",
            text=f"modelRevision: found {s.model_revision}, but {s.model} is not on the Hub and has no revisions. Remove modelRevision",
        )
    if s.hub_endpoint and any(pair.startswith("HF_ENDPOINT=") for pair in s.engine_environment):
        add(
            "hubEndpoint",
            "engineEnvironment",
            text="engineEnvironment: found HF_ENDPOINT in addition to hubEndpoint. Remove it there; hubEndpoint sets it",
        )
    if s.data_parallel_size > s.gpu_count:
        add(
            "dataParallelSize",
            "gpuCount",
            text=f"dataParallelSize: found {s.data_parallel_size}, more than gpuCount ({s.gpu_count}); each copy needs a GPU. Set gpuCount: {s.data_parallel_size}, or dataParallelSize: {s.gpu_count}",
        )
    names = [adapter.partition("=")[0] for adapter in s.lora_adapters]
    twice = sorted({name for name in names if names.count(name) > 1 or name in s.names})
    if twice:
        add(
            "loraAdapters",
            "servedModelName",
            text=f"loraAdapters: found the name {twice[0]} twice, or as a name of the model. Set a unique name for each adapter",
        )
    if s.api_keys and (is_output(s.api_keys_document) or secret_text(s.api_keys_document)):
        add(
            "apiKeys",
            "apiKeysDocument",
            text="apiKeys: found together with apiKeysDocument, which also contains keys. Set only one of the two",
        )
    for problem in gateway_environment_problems(s.gateway_environment):
        add("gatewayEnvironment", text=problem)
    if s.capacity.reserved and not s.capacity_reservation_id:
        add(
            "capacity",
            "capacityReservationId",
            text=f"capacity: found {s.capacity}, but no capacityReservationId. Set capacityReservationId to the reservation's cr-... id",
        )
    if s.capacity_reservation_id and not s.capacity.reserved:
        add(
            "capacity",
            "capacityReservationId",
            text=f"capacityReservationId: found {s.capacity_reservation_id}, but capacity is {s.capacity}. Set capacity: reservation, or remove it",
        )
    if s.warm_pool and s.capacity is not PurchaseOption.ON_DEMAND:
        add(
            "warmPool",
            "capacity",
            text=f"warmPool: found {s.warm_pool} with capacity: {s.capacity}; AWS supports warm pools for on-demand instances only. Set warmPool: 0 or capacity: on-demand",
        )
    if s.target is Target.ECS and s.max_replicas > MOST_REPLICAS_BY_NAME:
        add(
            "maxReplicas",
            "target",
            text=f"maxReplicas: found {s.max_replicas}, but a Cloud Map name resolves to at most {MOST_REPLICAS_BY_NAME} addresses. Set maxReplicas to at most {MOST_REPLICAS_BY_NAME}, or deploy a second stack",
        )
    if s.docker_hub_credentials_arn and s.engine_image and not s.engine_image.startswith("docker.io/"):
        add(
            "dockerHubCredentialsArn",
            "engineImage",
            text=f"dockerHubCredentialsArn: found, but engineImage {s.engine_image} is not on Docker Hub. Set engineImage: docker.io/..., or remove dockerHubCredentialsArn",
        )
    for key, items in (
        ("instanceTypes", s.instance_types),
        ("allowedCidrs", s.allowed_cidrs),
        ("subnetIds", s.subnet_ids),
        ("loadBalancerSubnetIds", s.load_balancer_subnet_ids),
        ("allowedSecurityGroupIds", s.allowed_security_group_ids),
        ("mediaHosts", s.media_hosts),
    ):
        texts = [item for item in items if isinstance(item, str)] if isinstance(items, tuple) else []
        if again := next((text for text in texts if texts.count(text) > 1), ""):
            add(key, text=f"{key}: found {again} twice. Remove one of the two")
    if 0 < s.waf_requests_per_five_minutes < LEAST_WAF_LIMIT:
        add(
            "wafRequestsPerFiveMinutes",
            text=f"wafRequestsPerFiveMinutes: found {s.waf_requests_per_five_minutes}, but AWS WAF requires at least {LEAST_WAF_LIMIT}. Set at least {LEAST_WAF_LIMIT}, or 0",
        )
    if s.hosted_zone and not (s.domain == s.hosted_zone or s.domain.endswith(f".{s.hosted_zone}")):
        add(
            "hostedZone",
            "domain",
            text=f"hostedZone: found {s.hosted_zone}, which does not contain the domain {s.domain or '(none)'}. Set the zone that domain ends with, or remove hostedZone",
        )
    if s.vpc_id and isinstance(s.subnet_ids, tuple) and len(s.subnet_ids) < 2:
        add(
            "vpcId",
            "subnetIds",
            text=f"subnetIds: found {len(s.subnet_ids)}, but vpcId is set. Set at least two private subnets in different zones",
        )
    if s.allowed_security_group_ids and not s.vpc_id:
        add(
            "allowedSecurityGroupIds",
            "vpcId",
            text="allowedSecurityGroupIds: found without vpcId, but a security group belongs to a VPC. Set vpcId to the VPC of these groups, or remove them",
        )
    if s.hosted_zone_id and not s.domain:
        add(
            "hostedZoneId",
            "domain",
            text="hostedZoneId: found without a domain. Set domain to a name in that zone, or remove hostedZoneId",
        )
    if s.hosted_zone_id and s.hosted_zone:
        add(
            "hostedZone",
            "hostedZoneId",
            text="hostedZone: found in addition to hostedZoneId, which selects the zone. Remove one of the two",
        )
    if not s.vpc_id and (s.subnet_ids or s.load_balancer_subnet_ids):
        add(
            "vpcId",
            "subnetIds",
            "loadBalancerSubnetIds",
            text="vpcId: not set, but subnets are. Set vpcId to the VPC of the subnets, or remove the subnets",
        )
    if isinstance(s.load_balancer_subnet_ids, tuple) and len(s.load_balancer_subnet_ids) == 1:
        add(
            "loadBalancerSubnetIds",
            text="loadBalancerSubnetIds: found 1; a load balancer requires two zones. Set two public subnets, or none",
        )
    if s.vpc_id and not s.load_balancer_subnet_ids and s.allowed_cidrs and not s.https:
        add(
            "vpcId",
            "loadBalancerSubnetIds",
            "allowedCidrs",
            text="allowedCidrs: found with vpcId but no loadBalancerSubnetIds, so the load balancer is internal. Set loadBalancerSubnetIds to public subnets, or remove allowedCidrs",
        )
    if (share := _share_of_internet(s.allowed_cidrs)) and not s.https and not s.allow_http_from_anywhere:
        add(
            "allowedCidrs",
            "certificateArn",
            "domain",
            text=f"allowedCidrs: found {share} over plain HTTP, which would send API keys unencrypted. Set certificateArn or domain, or smaller networks; or confirm it with allowHttpFromAnywhere: true",
        )
    if s.nat_gateways is NatGateways.NONE and not s.vpc_id and s.target is Target.ECS:
        add(
            "natGateways",
            "vpcId",
            text="natGateways: found none; the engine could download neither its image nor the model. Set single or per-zone, or an existing network with vpcId",
        )
    if s.monthly_budget_usd and not s.alarm_email:
        add(
            "monthlyBudgetUsd",
            "alarmEmail",
            text=f"monthlyBudgetUsd: found {s.monthly_budget_usd}, but no address for warnings. Set alarmEmail",
        )
    if s.port == 80 and s.https:
        add(
            "port",
            "certificateArn",
            "domain",
            text="port: found 80 with a certificate; port 80 only redirects then. Set port: 443, or remove it",
        )
    return found
