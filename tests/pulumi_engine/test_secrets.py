"""Over a stack's whole life its secrets are in nothing that Pulumi prints, keeps in the clear or passes as an argument."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.pulumi_engine.scene import Ran, Scene, fail

# Long enough that none is in anything by accident.
FIRST_KEY, SECOND_KEY = "sk-canary-first-1f0c2a9be7d34", "sk-canary-second-8d42b6c07ae15"
FIRST_TOKEN, SECOND_TOKEN = "hf_canaryFirst5b9e0d7a31c", "hf_canarySecond0a6f2e84bd1"
GIVEN = (FIRST_KEY, SECOND_KEY, FIRST_TOKEN, SECOND_TOKEN)


class Witness:
    """Runs a stack's commands and keeps whatever others could read: output, events, arguments of processes."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.heard: list[tuple[str, str]] = []

    def run(self, *arguments: str, **options: Any) -> Ran:
        over = threading.Event()
        watch = threading.Thread(target=self._watch_arguments, args=(over,))
        watch.start()
        try:
            ran = self.scene.run(*arguments, **options)
        finally:
            over.set()
            watch.join()
        command = " ".join(arguments)
        self.heard.append((command, ran.output))
        self.heard.append((f"events of {command}", json.dumps(ran.events)))
        return ran

    def _watch_arguments(self, over: threading.Event) -> None:
        while not over.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    arguments = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue  # it has ended
                if "canary" in arguments:
                    self.heard.append(("arguments of a process", arguments))

    def kept(self) -> list[tuple[str, str]]:
        """The files of state, history and backups, and the stack's own."""
        files = [path for path in self.scene.state.rglob("*") if path.is_file()]
        files += list(self.scene.project.glob("Pulumi*.yaml"))
        return [(str(path), path.read_text(errors="replace")) for path in files]

    def leaks(self, *secrets: str) -> list[str]:
        """Where one of these secrets can be read."""
        found = []
        for where, text in [*self.heard, *self.kept()]:
            for secret in secrets:
                if secret in text:
                    at = text.index(secret)
                    found.append(f"{where}: ...{text[max(0, at - 80) : at + 60]}")
        return found


@pytest.fixture
def witness(scene: Scene) -> Witness:
    return Witness(scene)


def test_given_and_generated_secrets_are_nowhere_over_a_whole_life(witness: Witness) -> None:
    scene, run = witness.scene, witness.run
    scene.run("stack", "init", "dev")
    scene.environment["PULUMI_STACK"] = "dev"
    run("config", "set", "--secret", "apiKeys", typed=f"alice={FIRST_KEY}")
    run("config", "set", "--secret", "hfToken", typed=FIRST_TOKEN)
    run("config")
    run("config", "--json")
    run("preview", "--diff")
    run("preview", "--json")
    # The resource that holds the secret fails.
    run("up", "--yes", "--diff", ok=False, **fail("create", "SecretVersion::vllm-dev-secret-api-keys"))
    run("up", "--yes", "--skip-preview", "--diff")
    # Rotation, which fails at first.
    run("config", "set", "--secret", "apiKeys", typed=f"alice={SECOND_KEY}")
    run("config", "set", "--secret", "hfToken", typed=SECOND_TOKEN)
    run("up", "--yes", "--skip-preview", "--diff", ok=False, **fail("create", "SecretVersion::"))
    run("up", "--yes", "--skip-preview", "--diff")
    assert SECOND_KEY in _in_the_cloud(scene)
    assert SECOND_TOKEN in _in_the_cloud(scene)
    run("refresh", "--yes", "--skip-preview", "--diff")
    run("refresh", "--yes", "--skip-preview", "--diff", **scene.lose("SecretVersion::vllm-dev-secret-api-keys"))
    # Neither is given any more: a key is generated.
    run("config", "rm", "apiKeys")
    run("config", "rm", "hfToken")
    run("up", "--yes", "--skip-preview", "--diff")
    generated = _generated(scene)
    assert generated in _in_the_cloud(scene)
    run("preview", "--diff", "--refresh")
    for command in ("export", "output", "history", "graph"):
        run("stack", command, *{"output": ["--json"], "graph": [str(scene.project / "graph.dot")]}.get(command, []))
    run("stack", "--show-urns")
    run("destroy", "--yes", "--skip-preview", "--diff", ok=False, **fail("delete", "secret:Secret::"))
    run("destroy", "--yes", "--diff")
    assert witness.leaks(*GIVEN, generated) == []
    assert (scene.project / "graph.dot").read_text().count("canary") == 0


def _in_the_cloud(scene: Scene) -> str:
    """What the stack's secrets hold: the tests' own view, as an administrator of the account has it."""
    rows = [row for row in scene.cloud().values() if row["kind"] == "SecretVersion"]
    return " ".join(str(row["secretString"]) for row in rows)


def _generated(scene: Scene) -> str:
    found = re.search(r"sk-\w{43}", _in_the_cloud(scene))
    assert found
    return found[0].removeprefix("sk-")


@pytest.mark.whole_matrix
def test_an_update_plan_and_a_kubernetes_stack_hold_no_secret(witness: Witness) -> None:
    scene, run = witness.scene, witness.run
    scene.init("dev", {"apiKeys": f"alice={FIRST_KEY}", "hfToken": FIRST_TOKEN, "target": "kubernetes"})
    plan = scene.project / "plan.json"
    run("preview", "--diff", "--save-plan", str(plan))
    assert not any(secret in plan.read_text() for secret in GIVEN)
    run("up", "--yes", "--skip-preview", "--diff", ok=False, **fail("create", "core/v1:Secret::"))
    run("up", "--yes", "--diff")
    run("config", "set", "--secret", "apiKeys", typed=f"alice={SECOND_KEY}")
    run("up", "--yes", "--diff")
    run("stack", "export")
    run("destroy", "--yes", "--diff")
    assert witness.leaks(*GIVEN) == []


def test_an_error_that_repeats_a_secret_is_masked(witness: Witness) -> None:
    """By the engine, where the secret is repeated as it was set: one bare key, a token; not one key of several."""
    witness.scene.init("dev", {"apiKeys": FIRST_KEY, "hfToken": FIRST_TOKEN})
    document = json.dumps({"SecretString": json.dumps({"default": FIRST_KEY})})
    echoes = {"api-keys": f"InvalidRequestException: {document}", "hub-token": f"{FIRST_TOKEN} is not valid"}
    failures = [
        {"op": "create", "urn": f"SecretVersion::vllm-dev-secret-{part}", "message": message}
        for part, message in echoes.items()
    ]
    options = ("--yes", "--skip-preview", "--continue-on-error")  # or the first failure may leave the other out
    failed = witness.run("up", *options, ok=False, STANDIN_FAIL=json.dumps(failures))
    assert "InvalidRequestException" in failed.output
    assert "[secret] is not valid" in failed.output
    assert witness.leaks(*GIVEN) == []
