"""Generates what other files say about the components' arguments from `infra.settings`, the one definition of them.

``python -m infra.arguments`` prints the source of `infra.component_args`; ``python -m infra.arguments table`` prints the
tables of docs/component.md. A test holds both files equal to what is printed.
"""

from __future__ import annotations

import argparse
import enum
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import SecretStr
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from infra.inputs import is_input
from infra.settings import SECRET_FIELDS, Settings

COMPONENTS = {
    "VllmEndpoint": "an endpoint on AWS: ECS runs vLLM on GPU instances",
    "VllmEndpointOnKubernetes": "an endpoint on a Kubernetes cluster",
}
# The component itself is the target. Each has no use for the other's own settings.
_ON_AWS_ALONE = frozenset({
    "access_logs", "alarm_email", "allowed_security_group_ids", "capacity", "capacity_reservation_id", "dashboard",
    "docker_hub_credentials_arn", "flow_logs", "gateway_cpu", "hosted_zone", "hosted_zone_id", "kms_key_arn", "load_balancer_subnet_ids",
    "log_retention_days", "monthly_budget_usd", "nat_gateways", "results_bucket", "subnet_ids", "ttl_hours", "vpc_id",
    "waf_requests_per_five_minutes", "warm_pool", "weights_file_system_id", "weights_throughput",
})  # fmt: skip
HEAD = '''"""The arguments of the components. Generated from infra/settings.py by `python -m infra.arguments`: edit that file."""

from collections.abc import Sequence
from typing import TypedDict

import pulumi
'''


def fields_of(component: str) -> dict[str, FieldInfo]:
    """The settings that are arguments of a component, in the order of the stack file's documentation."""
    fields: Mapping[str, FieldInfo] = Settings.model_fields
    if component == "VllmEndpoint":
        return {
            name: field for name, field in fields.items() if name != "target" and not name.startswith("kubernetes_")
        }
    return {name: field for name, field in fields.items() if name != "target" and name not in _ON_AWS_ALONE}


def description(name: str, field: FieldInfo) -> str:
    """A setting's description and default. A component's schema has no field for a default."""
    default = field.get_default(call_default_factory=True)
    if name in SECRET_FIELDS or (default in ("", 0, (), {}) and not isinstance(default, bool)):
        return str(field.description)
    if isinstance(default, bool | enum.Enum):
        default = str(default.value if isinstance(default, enum.Enum) else default).lower()
    return f"{field.description} Default: {default}."


def python_type(name: str, field: FieldInfo) -> str:
    """The type that an argument is annotated with: plain, or an input that may be the output of another resource."""
    base = "str" if name in SECRET_FIELDS else _base(field.annotation)
    if not is_input(field):
        return base
    return f"pulumi.Input[{base.replace('[str]', '[pulumi.Input[str]]')}]"


def _base(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _base(args[0])
    if origin in (Union, types.UnionType):
        return _base(args[0])
    if origin is tuple:
        return f"Sequence[{_base(args[0])}]"
    if origin is Literal:
        return type(args[0]).__name__
    if isinstance(annotation, type):
        for kind in (bool, int, float, str):
            if issubclass(annotation, kind):
                return kind.__name__
        if issubclass(annotation, SecretStr):
            return "str"
    raise TypeError(f"no argument type for {annotation}")


def source() -> str:
    """The source of `infra.component_args`."""
    return HEAD + "".join(_class(component) for component in COMPONENTS)


def _class(component: str) -> str:
    lines = [
        f"class {component}Args(TypedDict, total=False):",
        f'    """Arguments of `{component}`, {COMPONENTS[component]}."""',
        "",
    ]
    for name, field in fields_of(component).items():
        lines += [f"    {name}: {python_type(name, field)}", f'    """{description(name, field)}"""']
    return "\n\n" + "\n".join(lines) + "\n"


def table(component: str) -> Iterator[str]:
    """The lines of a component's table of arguments, in Markdown."""
    yield from ("| argument | type | meaning |", "|---|---|---|")
    for name, field in fields_of(component).items():
        kind = python_type(name, field)
        shown = {"Sequence[str]": "list of str"}.get(kind, kind)
        if is_input(field):
            shown = "Input, list of str" if "Sequence" in kind else "Input, str"
        secret = ", secret" if name in SECRET_FIELDS else ""
        text = description(name, field).replace("|", "\\|")
        yield (
            f"| `{name}` / `{to_camel(name)}` | {shown}{secret} | {text} |"
            if to_camel(name) != name
            else f"| `{name}` | {shown}{secret} | {text} |"
        )


def main(arguments: list[str]) -> int:
    """Print what the arguments ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.arguments", description="Print the components' arguments, generated from the settings."
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("source", "table"),
        default="source",
        help="source: of infra/component_args.py (default); table: the tables of docs/component.md",
    )
    if parser.parse_args(arguments).what == "table":
        for component in COMPONENTS:
            print(f"### {component}", "", *table(component), "", sep="\n")
    else:
        print(source(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
