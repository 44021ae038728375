"""The second stage of `make local`, in `.venv-local`: plan, weights, engine, gateway; then wait for Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.local import check, folders, gateway, preflight, weights
from image.local.arguments import engine_command
from image.local.banner import banner, stand_in_line
from image.local.engine import Engine
from image.local.environments import environments
from image.local.failures import LocalError, reason
from image.local.machine import Machine, look
from image.local.options import Options, parse
from image.local.processes import Child
from image.local.progress import Progress
from image.local.stand_in import make_stand_in
from image.local.stopping import Stopped, exit_code_of, stop_on_signals
from image.local.supervision import Supervisor
from image.local.torchvision import add_torchvision
from infra.planning import PlanError, make_plan
from infra.planning.catalog.models import UnknownModelError, fetch_config
from infra.planning.plan import ServingPlan
from infra.settings_problems import SettingsError
from infra.stack_files import load_stack, parse_overrides

WATCH_SECONDS = 0.25


@dataclass
class Running:
    """What serves, and how it came up."""

    plan: ServingPlan
    machine: Machine
    base_url: str
    version: str
    stand_in_because: str
    model_folder: Path
    supervisor: Supervisor
    engine_python: Path
    engine_environment: Mapping[str, str]
    gateway: Child
    first_token_seconds: float

    @property
    def model(self) -> str:
        """The name it is served under."""
        return self.plan.served_model_name


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped, or check and stop; the exit code says whether that went well."""
    options = parse(arguments)
    progress = Progress(started=options.started)
    progress.seconds["install"] = options.installing
    serving = False
    try:
        with stop_on_signals():
            plan = _plan(options, progress)
            if options.check:
                return check.run(options, progress, lambda: served(plan, options, progress))
            with served(plan, options, progress) as running:
                serving = True
                print(_banner(running), flush=True)
                _watch(running)
    except LocalError as error:
        progress.fail(str(error))
        return 1
    except Stopped as stopped:
        progress.say("stopped; nothing is left running")
        return 0 if serving else exit_code_of(stopped)
    finally:
        shutil.rmtree(folders.temporary_folder(), ignore_errors=True)
    return 1


@contextlib.contextmanager
def served(plan: ServingPlan, options: Options, progress: Progress) -> Iterator[Running]:
    """Engine and gateway while the block runs; afterwards the gateway drains, then both are gone.

    Raises:
        LocalError: something did not come up.
    """
    machine = look()
    local, engine_environment = environments(machine.has_gpu)
    model_folder, because = _model(plan, machine, options, engine_environment.python, progress)
    if plan.architecture.sees and not machine.has_gpu:
        add_torchvision(engine_environment, progress)
    engine_port = preflight.free_port()
    command = engine_command(plan, machine, model_folder, bool(because), engine_port, preflight.compiler())
    for note in command.notes:
        progress.say(f"  plan: {note}")
    log = folders.LOGS / "engine.log"
    log.unlink(missing_ok=True)
    program: list[str | Path] = [engine_environment.python, "-m", "vllm.entrypoints.openai.api_server"]
    engine = Engine(program, command.arguments, engine_port, command.environment, log)
    key = gateway.make_key()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(engine.stop, progress)
        engine.start()
        engine.wait_ready(progress, plan.capacity.startup_timeout_seconds)
        progress.phase("ready", "the gateway starts")
        idle = _idle_seconds(plan, options, progress)
        supervisor = Supervisor(engine, folders.REPLICAS, progress, plan.capacity.startup_timeout_seconds, idle)
        cleanup.callback(supervisor.close)
        version = engine.version()
        metrics_port = preflight.free_port()
        info = gateway.information(plan, machine, version, because) | {"engineArguments": list(command.options)}
        variables = gateway.environment(plan, options.port, metrics_port, supervisor.url, info)
        front = gateway.start(local.python, variables, options.port, progress)
        cleanup.callback(_drain, front, progress)
        base_url = f"http://127.0.0.1:{options.port}/v1"
        cleanup.callback(folders.ENDPOINT.unlink, missing_ok=True)
        folders.ENDPOINT.write_text(f"{base_url.removesuffix('/v1')}\n")
        gateway.first_token(base_url, plan.served_model_name, key)
        seconds = progress.elapsed()
        progress.end("first token")
        yield Running(
            plan, machine, base_url, version, because, model_folder, supervisor, engine_environment.python,
            command.environment, front, seconds,
        )  # fmt: skip


def _plan(options: Options, progress: Progress) -> ServingPlan:
    progress.phase("model", f"planning {options.stack}")
    overrides: dict[str, Any] = {}
    if options.model:
        overrides["model"] = options.model

    def fetch(model: str, revision: str) -> Mapping[str, Any]:
        here = weights.is_here(model, revision)
        try:
            return fetch_config(str(weights.folder_of(model, revision)) if here else model, revision)
        except UnknownModelError as error:
            if here or weights.hub_is_reachable():
                raise
            progress.say(f"  plan: {error}: planned with the stand-in's figures")
            return weights.read_config(make_stand_in(folders.MODELS))

    try:
        overrides |= parse_overrides(options.settings, options.stack)
        plan = make_plan(load_stack(options.stack, overrides), fetch=fetch)
    except (SettingsError, PlanError) as error:
        raise LocalError(str(error)) from None
    for warning in plan.warnings:
        progress.say(f"  plan: {warning}")
    return plan


def _model(plan: ServingPlan, machine: Machine, options: Options, python: Path, progress: Progress) -> tuple[Path, str]:
    """The folder of the model, and why it is the stand-in's (empty: it is not)."""
    progress.phase("model", plan.model)
    because = "WEIGHTS=stand-in" if options.weights == "stand-in" else None
    if options.weights == "auto":
        because = weights.obstacle(plan, machine)
    if because is None and not weights.is_here(plan.model, plan.model_revision):
        because = weights.hub_obstacle(plan.model, plan.model_revision) or weights.fetch(plan, python, progress)
    if because is None:
        return weights.folder_of(plan.model, plan.model_revision), ""
    if options.weights == "real":
        raise LocalError(f"the weights of {plan.model} cannot be had: {because}. Leave out WEIGHTS=real for a stand-in")
    progress.say(stand_in_line(plan.model, because))
    return make_stand_in(folders.MODELS, plan.architecture.sees), because


def _idle_seconds(plan: ServingPlan, options: Options, progress: Progress) -> float | None:
    """After how long without a request vLLM is stopped; None: never, as nothing is billed here and nobody asked."""
    if options.scale_down_minutes is None:
        return None
    if plan.capacity.min_replicas > 0:
        progress.say(f'  plan: minReplicas is {plan.capacity.min_replicas}: vLLM stays. Set SET="minReplicas=0"')
        return None
    return 60.0 * options.scale_down_minutes


def _watch(running: Running) -> None:
    """Wait until asked to stop, and have the engine run while it is wanted, the gateway living on.

    Raises:
        LocalError: the gateway died.
    """
    gateway_url = running.base_url.removesuffix("/v1")
    while True:
        time.sleep(WATCH_SECONDS)
        if (code := running.gateway.poll()) is not None:
            raise LocalError(f"the gateway ended: {reason(running.gateway.output(), code)}", running.gateway.log)
        running.supervisor.step(gateway_url)


def _drain(front: Child, progress: Progress) -> None:
    progress.phase("stop", "the gateway finishes what runs, then vLLM ends; Ctrl-C again ends both at once")
    front.stop(gateway.DRAIN_SECONDS + 5, progress.tick)


def _banner(running: Running) -> str:
    return banner(
        running.base_url, running.model, running.version, running.machine, running.first_token_seconds,
        running.stand_in_because,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
