"""Command line: `python -m smoke_tests.summary --stack dev`: the summary that ``make up`` prints at the end.

It lists the endpoint, how to get its key, a first request, the cost per hour now and idle, and how to stop.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from infra.command_line import run
from smoke_tests.errors import TargetError
from smoke_tests.options import add_endpoint_name, add_stack, new_parser
from smoke_tests.stack import aws_client, read_stack


def main(arguments: list[str] | None = None) -> int:
    """Print the summary and return 0; print a one-line error and return 1 if the stack cannot be read."""
    parser = new_parser("smoke_tests.summary", "How to use a deployed stack.")
    add_stack(parser, required=True)
    add_endpoint_name(parser)
    options = parser.parse_args(arguments)
    try:
        stack = read_stack(options.stack, options.endpoint_name, read_key=False)
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(options.stack, stack.outputs, running_replicas(stack.outputs), stack.identity.endpoint))
    return 0


def summary(stack: str, outputs: Mapping[str, Any], running: int | None, endpoint_name: str = "") -> str:
    """Return the summary of an endpoint.

    Args:
        stack: the stack, as the user named it.
        outputs: the endpoint's.
        running: the number of running replicas, None if it is not known.
        endpoint_name: the component's name, if another program declares it.
    """
    key = f"make api-key STACK={stack}"
    asking = f"make -s api-key STACK={stack}"
    if endpoint_name:
        key = asking = (
            f"python -m smoke_tests.api_key --stack {shlex.quote(stack)} --endpoint-name {shlex.quote(endpoint_name)}"
        )
    body = {"model": outputs["model"], "messages": [{"role": "user", "content": "Hello!"}]}
    ways = outputs.get("howToOpen") or {}
    rows = [
        ("endpoint", [str(outputs["endpoint"])]),
        ("key", [key]),
        ("ask", [
            f"curl {outputs['openaiBaseUrl']}/chat/completions \\",
            f'  -H "Authorization: Bearer $({asking})" -H "Content-Type: application/json" \\',
            f"  -d {shlex.quote(json.dumps(body))}",
        ]),
        *([("open", [f"reachable from inside the network only. To open it, set one of these, then {'pulumi' if endpoint_name else 'make'} up again:", *map(str, ways.values())])] if ways else []),
        ("cost", [_cost(outputs, running)]),
        ("stop", [f"remove {endpoint_name} from the program, then pulumi up"] if endpoint_name else _stop(stack, outputs)),
    ]  # fmt: skip
    lines = [f"{name if not number else '':10}{line}" for name, texts in rows for number, line in enumerate(texts)]
    return "\n".join(
        ["", f"endpoint {endpoint_name} of stack {stack} is up" if endpoint_name else f"stack {stack} is up", *lines]
    )


def _stop(stack: str, outputs: Mapping[str, Any]) -> list[str]:
    """Return how to destroy the stack. Pulumi refuses to destroy a protected stack, which is one that retains resources."""
    destroy = f"make destroy STACK={stack}"
    if not outputs.get("retainedAtDestroy"):
        return [destroy]
    return [
        "protect: true prevents that. To destroy the stack:",
        f"pulumi config set --stack {stack} protect false; make up STACK={stack}; {destroy}",
    ]


def running_replicas(outputs: Mapping[str, Any]) -> int | None:
    """Return the number of engine replicas that ECS runs now, or None if ECS cannot be queried."""
    if not (outputs.get("clusterName") and outputs.get("engineServiceName")):
        return None
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = aws_client("ecs", outputs).describe_services(
            cluster=outputs["clusterName"], services=[outputs["engineServiceName"]]
        )
        return int(found["services"][0]["runningCount"]) if found["services"] else None
    except (BotoCoreError, ClientError):
        return None


def _cost(outputs: Mapping[str, Any], running: int | None) -> str:
    active, idle = float(outputs["usdPerHourActive"]), float(outputs["usdPerHourIdle"])
    least = int(outputs.get("minReplicas") or 0)
    if active == idle and not running:
        return f"${active:.3f} an hour, always: {max(least, 1)} running"
    each = float(outputs.get("usdPerHourReplica") or 0) if least else active - idle
    minutes = outputs.get("scaleDownMinutes")
    after = f", after {minutes} minutes without a request" if minutes else ""
    if running is None:
        return f"${active:.3f} an hour while the engine runs; ${idle:.3f} idle{after}"
    now = idle + max(0, running - least) * each
    return f"${now:.3f} an hour now ({running} running); ${idle:.3f} idle{after}; ${active:.3f} with {max(least, 1)} running"


if __name__ == "__main__":
    run(main)
