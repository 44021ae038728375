"""Runs the Pulumi CLI and reads what it prints. Secrets are never requested, so the passphrase is not needed."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from smoke_tests.errors import TargetError

TIMEOUT_SECONDS = 120
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NOT_THE_REASON = ("warning:", "Logging in using", "SDK ")
_SIGN_IN = "run pulumi login, or set PULUMI_ACCESS_TOKEN or PULUMI_BACKEND_URL"
# What the CLI says, and what to do about it.
_ADVICE = (
    (r"^no stack named .* found", "pulumi stack ls lists the stacks, and pulumi stack init makes one"),
    (r"PULUMI_ACCESS_TOKEN must be set|requires logging in|not logged in|invalid access token", _SIGN_IN),
    (r"unable to open state directory", "set PULUMI_BACKEND_URL to the backend of the stack"),
    (r"no Pulumi\.yaml project file found", "give --stack ORG/PROJECT/STACK, or run this in the program's folder"),
    (
        r"organization name must be 'organization'",
        "a backend without Pulumi Cloud has only that organization: give --stack organization/PROJECT/STACK",
    ),
    (r"failed to load checkpoint", "if an update of the stack is running, run this again when it has ended"),
    (r"(?i)passphrase", "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE"),
)


def run_pulumi(arguments: list[str], folder: Path) -> str:
    """Return what `pulumi ARGUMENTS` prints on standard output.

    Args:
        arguments: as on the command line.
        folder: where it runs. Its Pulumi.yaml, if it has one, names the project and the backend.

    Raises:
        TargetError: with one line that says what to do, where that is known.
    """
    command = ["pulumi", *arguments]
    what = " ".join(word for word in command if word not in ("--json", "--non-interactive"))
    try:
        # Without standard input, which may hold a question for the model, and without the notice about newer versions.
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
            stdin=subprocess.DEVNULL, env=os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "true"},
        )  # fmt: skip
    except FileNotFoundError:
        raise TargetError(
            "--stack needs the pulumi command, which is not on the PATH; install it or use --endpoint URL "
            "(for make local: make chat, make key LOCAL=1, make history NAME=local-dev)"
        ) from None
    except subprocess.TimeoutExpired:
        raise TargetError(f"{what} did not finish within {TIMEOUT_SECONDS} s; is `pulumi login` done?") from None
    if done.returncode != 0:
        raise TargetError(_explained(what, _reason(done.stderr) or f"exit code {done.returncode}"))
    return done.stdout


def json_in(text: str) -> Any:
    """The first JSON object in what the CLI printed. Versions of it print warnings before or after the object.

    Raises:
        ValueError: there is none.
    """
    try:
        return json.loads(text or "{}")
    except ValueError:
        for start in re.finditer(r"^\{", text, re.MULTILINE):
            try:
                return json.JSONDecoder().raw_decode(text, start.start())[0]
            except ValueError:
                continue
        raise


def _reason(printed: str) -> str:
    """The line that says why: the first error, else the first line that is neither a warning nor a greeting."""
    lines = [line.strip() for line in _ESCAPE.sub("", printed).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    others = [line for line in lines if not line.startswith(_NOT_THE_REASON)]
    return next(iter([*errors, *others, *lines]), "").removeprefix("error:").strip()


def _explained(what: str, reason: str) -> str:
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, reason)), "")
    told = reason if reason.startswith("no stack named") else f"{what} failed: {reason}"
    return f"{told}; {advice}" if advice else told
