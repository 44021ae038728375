"""Command line: `python -m smoke_tests.api_key --stack dev` prints an API key, and nothing else (``make api-key``).

The key is read where the gateway reads it, with the caller's own credentials: Secrets Manager, or the cluster's Secret.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from infra.command_line import run
from smoke_tests.errors import TargetError
from smoke_tests.options import add_endpoint_name, add_key_name, add_stack, new_parser
from smoke_tests.stack import StackOutputs, read_stack
from smoke_tests.target import first_key

KUBECTL_TIMEOUT_SECONDS = 30


def main(arguments: list[str] | None = None) -> int:
    """Print the key; return 0, or 1 after one line that says what is missing."""
    parser = new_parser("smoke_tests.api_key", "Print an API key of a stack.")
    add_stack(parser, required=True)
    add_endpoint_name(parser)
    add_key_name(parser)
    options = parser.parse_args(arguments)
    try:
        print(choose(keys_document(options.stack, options.endpoint_name), options.name))
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def keys_document(stack: str, endpoint_name: str = "") -> str:
    """Return the document that holds an endpoint's keys. Raises TargetError."""
    known = read_stack(stack, endpoint_name, read_key=False)
    if known.outputs.get("apiKeySecretName"):
        return _from_cluster(known)
    return read_stack(stack, endpoint_name).keys_document or ""


def choose(document: str, name: str = "") -> str:
    """Return the key of `name`, or the only key. Raises TargetError, which never holds a key."""
    try:
        keys = json.loads(document)
    except ValueError:
        keys = None
    if not isinstance(keys, Mapping):
        return first_key(document)
    if not name and len(keys) != 1:
        raise TargetError(
            f"there are {len(keys)} keys; give NAME={next(iter(keys), '...')}, or one of: {', '.join(keys)}"
        )
    name = name or next(iter(keys))
    if name not in keys:
        raise TargetError(f"there is no key named {name}; give NAME= one of: {', '.join(keys)}")
    return first_key(json.dumps({name: keys[name]}))


def _from_cluster(known: StackOutputs) -> str:
    outputs: Mapping[str, Any] = known.outputs
    command = [
        "kubectl", "-n", str(outputs["namespace"]), "get", "secret", str(outputs["apiKeySecretName"]),
        "-o", r"jsonpath={.data.keys\.json}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=KUBECTL_TIMEOUT_SECONDS, check=False)
    except FileNotFoundError:
        raise TargetError("the API key is in the cluster, and kubectl is not on the PATH; install it") from None
    except subprocess.TimeoutExpired:
        raise TargetError(
            f"{' '.join(command)} took more than {KUBECTL_TIMEOUT_SECONDS} s; is the cluster up?"
        ) from None
    if done.returncode != 0:
        raise TargetError(f"{' '.join(command)} failed: {' '.join(done.stderr.split())}")
    return base64.b64decode(done.stdout).decode()


if __name__ == "__main__":
    run(main)
