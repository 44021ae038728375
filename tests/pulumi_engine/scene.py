"""One stack in a folder and a state of its own, driven by Pulumi's real CLI."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infra.settings import PROJECT, secret_keys

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(os.environ.get("PULUMI_ENGINE", ROOT.parent / "shared" / "pulumi_engine" / "pulumi"))
KIT = Path(__file__).with_name("kit")
LIMIT_SECONDS = 240


@dataclass(frozen=True)
class Step:
    """What the engine did, or at a preview would do, to one resource."""

    op: str  # create, update, delete, replace, create-replacement, delete-replaced, same, read, ...
    type: str
    urn: str
    changed: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The resource's name in the program."""
        return self.urn.rsplit("::", 1)[-1]


COMPONENT = "vllm-endpoint:index:VllmEndpoint"


@dataclass(frozen=True)
class Ran:
    """One call of the CLI that has ended."""

    arguments: tuple[str, ...]
    code: int
    output: str  # standard output and error, in the order in which they were written
    events: tuple[dict[str, Any], ...]

    @property
    def steps(self) -> list[Step]:
        """Every step of the engine that changes something, in the order in which they began; providers left out."""
        found = []
        for event in self.events:
            metadata = event.get("resourcePreEvent", {}).get("metadata")
            if not metadata or metadata["op"] in ("same", "read", "refresh"):
                continue
            if metadata["type"].startswith("pulumi:"):
                continue
            changed = tuple(metadata.get("diffs") or metadata.get("keys") or ())
            inputs = (metadata.get("new") or metadata.get("old") or {}).get("inputs") or {}
            found.append(Step(metadata["op"], metadata["type"], metadata["urn"], changed, inputs))
        return found

    def steps_of(self, *ops: str) -> list[str]:
        """The names of the resources that were given one of these steps."""
        return [step.name for step in self.steps if step.op in ops]

    @property
    def unchanged(self) -> bool:
        """Whether nothing was created, updated, replaced or deleted; but every deploy moves the end of ``ttlHours``."""
        return self.code == 0 and all(step.changed == ("startDate",) for step in self.steps)

    @property
    def diagnostics(self) -> list[str]:
        """What the program and the engine said at the severity warning or error, without colours."""
        said = []
        for event in self.events:
            told = event.get("diagnosticEvent")
            if told and told.get("severity") in ("warning", "error", "info#err"):
                said.append(f"{told['severity']}: {told['message'].strip()}")
        return said


class Scene:
    """A copy of the project in links, with a state, a home and a cloud of its own."""

    def __init__(self, folder: Path, *, root: Path = ROOT, like: Scene | None = None) -> None:
        """An empty state; or that of ``like`` as it is now, so that a deploy is made once and changed in many ways."""
        self.project, self.state = folder / "project", folder / "state"
        self.log_path, self.cloud_path = folder / "operations.jsonl", folder / "cloud.json"
        self.project.mkdir(parents=True)
        if like:
            shutil.copytree(like.state, self.state)
            if like.cloud_path.is_file():
                shutil.copyfile(like.cloud_path, self.cloud_path)
        else:
            self.state.mkdir()
        self.root = root
        for path in (like.project if like else root).iterdir():
            if path.name.startswith("Pulumi"):
                (self.project / path.name).write_bytes(path.read_bytes())
            elif path.name not in (".git", ".local", ".results"):
                (self.project / path.name).symlink_to(path.resolve())
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AWS_", "PULUMI_", "STANDIN_", "PYTEST_"))
        } | {
            "PULUMI_BACKEND_URL": f"file://{self.state}",
            "PULUMI_CONFIG_PASSPHRASE": "scene",
            "PULUMI_DEBUG_COMMANDS": "true",  # --event-log is hidden without it
            "PULUMI_ENGINE_PYTHON": str(KIT / "python"),  # sys.executable, with our additions to the kit's providers
            "SCENE_PYTHON": sys.executable,
            "SCENE_ROOT": str(ROOT),
            "SCENE_SPAWNER": spawner(),
            "PATH": f"{ENGINE.parent}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "STANDIN_LOG": str(self.log_path),
            "STANDIN_CLOUD": str(self.cloud_path),
            "STANDIN_SUBNETS": json.dumps(
                {f"subnet-{kind}{zone}": zone for kind in ("", "public-") for zone in "abcdef"}
            ),
            "AWS_EC2_METADATA_DISABLED": "true",  # no account: said at once, and not after two time-outs
            "HF_ENDPOINT": "http://127.0.0.1:1",  # no hub: the catalog knows the models
        }
        if like:
            self.environment["PULUMI_STACK"] = like.environment["PULUMI_STACK"]
        self._calls = 0

    def run(self, *arguments: str, ok: bool | None = True, typed: str = "", **environment: str) -> Ran:
        """Run ``pulumi ARGUMENTS`` to its end.

        Args:
            arguments: as on the command line.
            ok: whether it must succeed (True) or fail (False); None: either.
            typed: what it reads from standard input.
            environment: variables for this call alone, such as ``STANDIN_FAIL``.
        """
        self._calls += 1
        events = self.log_path.with_name(f"events-{self._calls}.jsonl")
        logged = ("--event-log", str(events)) if arguments[0] in ("up", "preview", "destroy", "refresh") else ()
        process = self.start(*arguments, *logged, **environment)
        try:
            output, _ = process.communicate(typed, timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise
        found = tuple(json.loads(line) for line in events.read_text().splitlines()) if events.is_file() else ()
        ran = Ran(arguments, process.returncode, output, found)
        if ok is not None and (ran.code == 0) != ok:
            raise AssertionError(f"pulumi {' '.join(arguments)}: exit status {ran.code}\n{output[-6000:]}")
        return ran

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``pulumi ARGUMENTS`` in a process group of its own and return at once."""
        return subprocess.Popen(
            [str(ENGINE), *arguments],
            cwd=self.project,
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> None:
        """SIGKILL to the engine and everything that it started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def init(self, stack: str = "dev", settings: Mapping[str, Any] | None = None, *, of: str | None = None) -> Scene:
        """Make the stack, from ``Pulumi.<of>.yaml`` where its own does not exist, with these settings."""
        own = self.project / f"Pulumi.{stack}.yaml"
        if of and not own.exists():
            own.write_bytes((self.root / f"Pulumi.{of}.yaml").read_bytes())
        self.run("stack", "init", stack)
        self.environment["PULUMI_STACK"] = stack
        for key, value in (settings or {}).items():
            self.set(key, value)
        return self

    def set(self, key: str, value: Any) -> None:
        """``pulumi config set`` as a person would: lists by path, secrets encrypted, None removes the key."""
        if value is None or isinstance(value, list | tuple):
            self.run("config", "rm", key, ok=None)
            for number, item in enumerate(value or ()):
                self.run("config", "set", "--path", f"{key}[{number}]", "--", str(item))
            if value is not None and not value:
                self.run("config", "set", "--path", key, "--", "[]")
            return
        if key in SECRET_KEYS:  # typed, so that it is in no list of processes
            self.run("config", "set", "--secret", key, typed=str(value))
            return
        text = str(value).lower() if isinstance(value, bool) else str(value)
        self.run("config", "set", key, "--", text)

    def write(self, settings: Mapping[str, Any], stack: str = "dev") -> None:
        """Put settings into the stack file by hand; None removes one, secrets are encrypted."""
        path = self.project / f"Pulumi.{stack}.yaml"
        content = yaml.safe_load(path.read_text())
        for key, value in settings.items():
            name = f"{PROJECT}:{key}"
            if value is None:
                content["config"].pop(name, None)
            elif key not in SECRET_KEYS:
                content["config"][name] = value
        path.write_text(yaml.safe_dump(content))
        for key in SECRET_KEYS & settings.keys():
            if settings[key] is not None:
                self.set(key, settings[key])

    def up(self, *arguments: str, ok: bool | None = True, **environment: str) -> Ran:
        """``pulumi up`` without the preview, which runs the program once more."""
        return self.run("up", "--yes", "--skip-preview", *arguments, ok=ok, **environment)

    def destroy(self, *arguments: str, ok: bool | None = True, **environment: str) -> Ran:
        """``pulumi destroy`` without the preview."""
        return self.run("destroy", "--yes", "--skip-preview", *arguments, ok=ok, **environment)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets hidden."""
        found: dict[str, Any] = json.loads(self.run("stack", "output", "--json").output)
        return found

    def resources(self) -> list[dict[str, Any]]:
        """What the state holds; the stack itself and providers left out."""
        exported = json.loads(self.run("stack", "export").output)
        kept = exported["deployment"].get("resources") or []
        return [resource for resource in kept if not resource["type"].startswith("pulumi:")]

    @property
    def gone(self) -> bool:
        """Whether neither Pulumi's state nor the cloud holds anything of the stack."""
        return self.resources() == [] and self.cloud() == {}

    def operations(self, *ops: str) -> list[dict[str, Any]]:
        """What reached the providers so far: op, urn, id, started, ended, inputs."""
        if not self.log_path.is_file():
            return []
        rows = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        return [row for row in rows if not ops or row["op"] in ops]

    def cloud(self) -> dict[str, dict[str, Any]]:
        """What exists in the stand-in cloud: id -> kind and inputs."""
        found: dict[str, dict[str, Any]] = json.loads(self.cloud_path.read_text()) if self.cloud_path.is_file() else {}
        return found

    def plant(self, rows: Mapping[str, dict[str, Any]]) -> None:
        """Put things into the cloud that no stack made: id -> kind and inputs."""
        self.cloud_path.write_text(json.dumps(self.cloud() | dict(rows)))

    def lose(self, *parts: str) -> dict[str, Any]:
        """Delete resources behind Pulumi's back, by parts of their urns; the environment in which a refresh finds out."""
        gone = [row for row in self.resources() if any(part in row["urn"] for part in parts)]
        assert len(gone) == len(parts), f"{parts}: found {names(gone)}"
        left = {id_: row for id_, row in self.cloud().items() if id_ not in {row["id"] for row in gone}}
        self.cloud_path.write_text(json.dumps(left))
        return {"STANDIN_DRIFT": json.dumps([{"urn": row["urn"], "gone": True} for row in gone])}


def fail(op: str, *parts: str, message: str = "failed as it was told to") -> dict[str, str]:
    """The environment in which an operation on the first resource of each part of a urn fails, once."""
    return {"STANDIN_FAIL": json.dumps([{"op": op, "urn": part, "message": message, "times": 1} for part in parts])}


@functools.cache
def spawner() -> str:
    """The address of this process's own spawner (kit/spawner.py), which ends with this process."""
    address = str(Path(tempfile.mkdtemp(prefix="scene-")) / "spawner")
    process = subprocess.Popen(
        [sys.executable, str(KIT / "spawner.py"), address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(_end, process, Path(address).parent)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return address


def _end(process: subprocess.Popen[str], folder: Path) -> None:
    process.communicate()  # closes its standard input
    shutil.rmtree(folder, ignore_errors=True)


def stack_settings(stack: str) -> dict[str, Any]:
    """What a stack file of the project says, without its namespace."""
    content = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    return {key.removeprefix(f"{PROJECT}:"): value for key, value in content.items() if key.startswith(PROJECT)}


SECRET_KEYS = secret_keys()


def names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The resources' names, of states or operations."""
    return [str(row["urn"]).rsplit("::", 1)[-1] for row in rows]
