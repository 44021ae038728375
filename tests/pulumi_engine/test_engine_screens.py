"""What a person reads: refusals, outputs, the summary of ``make up``, names of stacks, credentials that fail."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from smoke_tests.stack import flat
from tests.pulumi_engine.scene import COMPONENT, Ran, Scene

CANARY = "hf_canarycanarycanary0"
SHOWN_CHARACTERS = 150  # of a text, by the CLI
# As pulumi-aws and the AWS SDK for Go word them.
STATUS_403 = "operation error STS: GetCallerIdentity, https response error StatusCode: 403, RequestID: 0a1b, api error "
FAILURES = {
    f"{STATUS_403}ExpiredToken: The security token included in the request is expired": "profile corp have expired. Run: aws sso login --profile corp",
    f"{STATUS_403}InvalidClientTokenId: The security token included in the request is invalid.": "AWS rejected the credentials of AWS profile corp",
    "No valid credential sources found. Error: failed to refresh cached credentials, no EC2 IMDS role found": "there are no AWS credentials for profile corp",
}  # fmt: skip


def errors(ran: Ran) -> list[str]:
    """The errors of a run, without the severity."""
    return [line.partition(": ")[2] for line in ran.diagnostics if "error" in line.partition(":")[0]]


def test_a_refusal_is_its_own_lines_and_nothing_else(scene: Scene) -> None:
    ran = scene.init("dev", {"gpu": "v100"}).run("preview", ok=False)
    (message,) = errors(ran)
    assert message.splitlines()[0] == "stack dev: 1 problem in its settings"
    assert "unhandled error" not in ran.output
    assert "Traceback" not in ran.output


def test_a_plan_that_does_not_fit_is_refused_the_same_way(scene: Scene) -> None:
    ran = scene.init("dev", {"model": "Qwen/Qwen3-32B-FP8"}).up(ok=False)
    (message,) = errors(ran)
    assert message.startswith("gpu: Qwen/Qwen3-32B-FP8 does not fit")
    assert scene.resources() == []


def test_a_bug_of_ours_shows_its_traceback(scene: Scene) -> None:
    scene.init("dev")
    (scene.project / "infra").unlink()
    program = scene.project / "infra"
    program.mkdir()
    (program / "__main__.py").write_text("def broken():\n    raise KeyError('ours')\n\n\nbroken()\n")
    ran = scene.run("preview", ok=False)
    assert "in broken" in ran.output
    assert "KeyError: 'ours'" in ran.output


def test_every_problem_is_named_at_once_whatever_its_type(scene: Scene) -> None:
    scene.init("dev")
    for key, value in {"maxReplicas": "two", "accessLogs": "perhaps", "allowedCidrs": "203.0.113.0/24"}.items():
        scene.run("config", "set", key, value)
    scene.run("config", "set", "engineArgs", "--", "--max-logprobs=64")
    (message,) = errors(scene.run("preview", ok=False))
    assert len(message.splitlines()) == 5
    assert "pulumi config set --path 'allowedCidrs[0]' 203.0.113.0/24" in message
    assert "pulumi config set --path 'engineArgs[0]' -- --max-logprobs=64" in message


def test_secrets_in_plain_text_are_refused_and_not_repeated(scene: Scene) -> None:
    scene.init("dev")
    plain = {
        "apiKeys": "apiKeys", "hfToken": "hfToken", "aws:secretKey": "aws:secretKey", "owner": "hfToken",
        "engineEnvironment[0]": "hfToken", "hftoken": "hfToken",
    }  # fmt: skip
    for key in plain:
        scene.run("config", "set", "--plaintext", "--path", key, f"HF_TOKEN={CANARY}" if "[" in key else CANARY)
    ran = scene.run("preview", ok=False)
    (message,) = errors(ran)
    for key, secret in plain.items():
        (line,) = [line for line in message.splitlines() if line.startswith(f"  - {key.partition('[')[0]}: ")]
        assert f"pulumi config set --secret {secret}" in line
        assert key == "hftoken" or "because it was stored in a file" in line
    assert CANARY not in ran.output


def test_the_same_secrets_encrypted_are_taken(scene: Scene) -> None:
    scene.init("dev", {"apiKeys": "alice=sk-1", "hfToken": CANARY})
    scene.run("config", "set", "--secret", "aws:secretKey", "x")
    assert scene.run("preview").code == 0
    scene.run("config", "rm", "apiKeys")
    scene.run("config", "set", "--secret", "--path", "apiKeys.alice", "sk-1")
    assert scene.run("preview").code == 0


def test_make_up_ends_with_how_to_use_what_it_made(scene: Scene) -> None:
    scene.init("dev")
    done = make(scene, "up", "STACK=dev", "YES=1")
    outputs = scene.outputs()
    assert list(outputs) == ["endpoint", "getApiKey", "howToOpen", "model", "openaiBaseUrl", "stackDetails"]
    for text in (outputs["getApiKey"], *outputs["howToOpen"].values()):
        assert len(text) <= SHOWN_CHARACTERS
        assert text in done.stdout
    screen = done.stdout[done.stdout.index("Outputs:") :]
    assert screen.index("endpoint") < screen.index("getApiKey") < screen.index("stackDetails")
    summary = done.stdout[done.stdout.index("stack dev is up") :]
    details = flat(outputs)
    active, idle = (float(details[name]) for name in ("usdPerHourActive", "usdPerHourIdle"))
    for told in (
        outputs["endpoint"], "make api-key STACK=dev", f"curl {outputs['openaiBaseUrl']}/chat/completions",
        f"${active:.3f} an hour", f"${idle:.3f} idle", "make destroy STACK=dev",
    ):  # fmt: skip
        assert told in summary
    assert max(len(line) for line in summary.splitlines()) <= SHOWN_CHARACTERS
    assert details["clusterName"].startswith("vllm-dev-gpu-")
    # Whoever is not signed in to AWS gets a line, not a traceback.
    key = make(scene, "api-key", "STACK=dev", ok=False)
    assert re.search(r"^error: cannot read the API key .*aws sso login", key.stderr)
    assert "Traceback" not in key.stderr


@pytest.mark.whole_matrix
def test_a_branchs_stack_lives_a_whole_life(scene: Scene) -> None:
    scene.init("team_a", of="dev").up()
    assert scene.up().unchanged
    scene.destroy()
    assert scene.resources() == []


@pytest.mark.whole_matrix
def test_any_name_that_pulumi_takes_is_let_through_under_names_of_its_own(scene: Scene) -> None:
    prefixes = set()
    for stack in ("rel-1.2", "rel-1-2", "feature.branch-xyz", "_x", "f" * 100):
        ran = scene.init(stack, of="dev").run("preview")
        (cluster,) = [step for step in ran.steps if step.type == "aws:ecs/cluster:Cluster"]
        assert cluster.inputs["tags"]["Stack"] == stack
        prefixes.add(cluster.name)
    assert len(prefixes) == 5


@pytest.mark.whole_matrix
def test_a_stack_without_a_file_deploys_the_defaults(scene: Scene) -> None:
    scene.init("fresh")
    assert any("pulumi config set aws:region" in line for line in scene.run("preview").diagnostics)
    scene.run("config", "set", "aws:region", "us-east-1")
    ran = scene.up()
    assert not any("aws:region" in line for line in ran.diagnostics)
    scene.run("stack", "init", "team", "--copy-config-from", "fresh")
    scene.run("stack", "select", "organization/vllm-endpoint/team")
    assert scene.run("preview").code == 0


def test_credentials_that_fail_are_one_line(scene: Scene) -> None:
    # The stack has credentials of its own, so that the provider is the first to ask AWS.
    scene.init("dev", {"aws:accessKey": "AKIA"})
    for message, line in FAILURES.items():
        fails = json.dumps([{"op": "invoke", "urn": "getCallerIdentity", "message": message}])
        (told,) = errors(scene.run("preview", ok=False, STANDIN_FAIL=fails, AWS_PROFILE="corp"))
        assert line in told
        assert told.endswith("Without an account: make plan STACK=dev")
        assert "\n" not in told


def test_a_profile_that_does_not_exist_is_refused_before_the_provider_starts(scene: Scene) -> None:
    scene.init("dev", {"aws:profile": "corp"})
    (told,) = errors(scene.run("preview", ok=False))
    assert told.startswith("AWS profile corp does not exist on this machine. Run: aws configure sso --profile corp")


def test_an_account_that_is_not_allowed_is_refused(scene: Scene) -> None:
    scene.init("dev")
    scene.run("config", "set", "--path", "aws:allowedAccountIds[0]", "999999999999")
    (told,) = errors(scene.up(ok=False))
    assert "belongs to account 123456789012, which is not in aws:allowedAccountIds" in told
    assert [row["type"] for row in scene.resources() if not row["type"].startswith("pulumi:")] == [COMPONENT]
    assert scene.operations() == []


def make(scene: Scene, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``make`` in the scene's folder, neither of its outputs a terminal; the virtual environment is taken as ready."""
    done = subprocess.run(
        ["make", "--old-file=.venv/ready", *arguments], cwd=scene.project, env=scene.environment, capture_output=True, text=True, timeout=150, check=False
    )  # fmt: skip
    assert (done.returncode == 0) == ok, done.stdout[-3000:] + done.stderr
    return done
