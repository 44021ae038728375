"""An endpoint for each pull request: `python preview_environment.py up 123`, and `... down 123` when it is closed.

Drives the stack-file program of this repository with Pulumi's Automation API. The only thing that it adds is the stack's
configuration. Needs the Pulumi CLI, AWS credentials, and `pip install -r requirements.txt` of the repository.
"""

import sys
from pathlib import Path

from pulumi import automation as auto

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "aws:region": "us-east-1",
    "vllm-endpoint:model": "Qwen/Qwen3-4B-Instruct-2507",
    "vllm-endpoint:gpu": "a10g",
    "vllm-endpoint:scaleDownMinutes": "5",
    # If a pull request is forgotten, AWS itself scales its endpoint to zero after a day.
    "vllm-endpoint:ttlHours": "24",
}


def stack_of(pull_request: str) -> auto.Stack:
    """The stack of a pull request, created if it does not exist, with its configuration."""
    stack = auto.create_or_select_stack(stack_name=f"pr-{pull_request}", work_dir=str(ROOT))
    stack.set_all_config({key: auto.ConfigValue(value) for key, value in SETTINGS.items()})
    return stack


def up(pull_request: str) -> str:
    """Deploy the endpoint of a pull request and return its base URL for the OpenAI SDK."""
    result = stack_of(pull_request).up(on_output=print)
    return str(result.outputs["openaiBaseUrl"].value)


def down(pull_request: str) -> None:
    """Remove the endpoint of a pull request and its stack."""
    stack = stack_of(pull_request)
    stack.destroy(on_output=print)
    stack.workspace.remove_stack(stack.name)


def main(arguments: list[str]) -> int:
    """Do what the command line asks for."""
    try:
        match arguments:
            case ["up", number] if number.isdecimal():
                print(f"base URL: {up(number)}")
            case ["down", number] if number.isdecimal():
                down(number)
            case _:
                print("usage: preview_environment.py up|down PULL_REQUEST_NUMBER", file=sys.stderr)
                return 2
    except auto.ConcurrentUpdateError:
        print("error: another run is changing this endpoint; run this again when it has ended", file=sys.stderr)
        return 1
    except auto.CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
