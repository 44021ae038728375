"""The second stage of `make local`, in `.venv-local`: plan, weights, engine, gateway; then wait for Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.planning.plan import ServingPlan
from infra.web_address import use_no_proxy_for_this_machine
from local import check, folders, gateway, preflight
from local.arguments import engine_command
from local.banner import Shown, banner
from local.choice import choose, planned
from local.engine import Engine
from local.environments import environments
from local.failures import LocalError, one_line, reason
from local.loopback import base_url
from local.machine import look
from local.options import Options, parse
from local.processes import Child
from local.progress import Progress
from local.running import Running
from local.stopping import Stopped, exit_code_of, stop_on_signals
from local.supervision import Supervisor
from local.torchvision import add_torchvision

WATCH_SECONDS = 0.25


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped, or check and stop; returns the exit code."""
    options = parse(arguments)
    use_no_proxy_for_this_machine()
    progress = Progress(started=options.started)
    progress.seconds["install"] = options.installing
    serving = False
    try:
        with stop_on_signals():
            plan = planned(options, progress)
            if options.check:
                return check.run(options, progress, lambda: served(plan, options, progress))
            with served(plan, options, progress) as running:
                serving = True
                print(_banner(running), flush=True)
                _watch(running)
    except LocalError as error:
        progress.fail(str(error))
        return 1
    except OSError as error:
        progress.fail(one_line(error))
        return 1
    except Stopped as stopped:
        progress.say("stopped; nothing is left running")
        return 0 if serving else exit_code_of(stopped)
    finally:
        shutil.rmtree(folders.temporary_folder(), ignore_errors=True)
    return 1


@contextlib.contextmanager
def served(plan: ServingPlan, options: Options, progress: Progress) -> Iterator[Running]:
    """Run engine and gateway during the block. Afterwards the gateway drains, then both are stopped.

    Raises:
        LocalError: a part did not start.
    """
    machine = look()
    local, engine_environment = environments(machine.has_gpu)
    model = choose(plan, machine, options, engine_environment.python, progress)
    plan, model_folder, because = model.plan, model.folder, model.stand_in_because
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
        engine.wait_ready(progress, plan.replicas.startup_timeout_seconds)
        progress.phase("ready", "the gateway starts")
        idle = _idle_seconds(plan, options, progress)
        supervisor = Supervisor(engine, folders.REPLICAS, progress, plan.replicas.startup_timeout_seconds, idle)
        cleanup.callback(supervisor.close)
        version = engine.version()
        metrics_port = preflight.metrics_port(options.port)
        info = gateway.information(plan, machine, version, because) | {"engineArguments": list(command.options)}
        variables = gateway.environment(plan, options.port, metrics_port, supervisor.url, info)
        front = gateway.start(local.python, variables, options.port, progress)
        cleanup.callback(_drain, front, progress)
        url = base_url(options.port)
        cleanup.callback(folders.ENDPOINT.unlink, missing_ok=True)
        folders.ENDPOINT.write_text(f"{url.removesuffix('/v1')}\n")
        gateway.first_token(url, plan.served_model_name, key)
        seconds = progress.elapsed()
        progress.end("first token")
        yield Running(
            plan, machine, url, f"http://127.0.0.1:{metrics_port}/metrics", version, model.deployed_image, because,
            model.note, model_folder, supervisor, engine_environment.python, command.environment, front, seconds,
        )  # fmt: skip


def _idle_seconds(plan: ServingPlan, options: Options, progress: Progress) -> float | None:
    """Idle time after which vLLM is stopped; None, the default, is never, because a local engine costs nothing."""
    if options.scale_down_minutes is None:
        return None
    if plan.replicas.min_replicas > 0:
        progress.say(
            f'  plan: minReplicas is {plan.replicas.min_replicas}: vLLM is not stopped when idle. Set SET="minReplicas=0"'
        )
        return None
    return 60.0 * options.scale_down_minutes


def _watch(running: Running) -> None:
    """Wait for a stop signal; meanwhile, start and stop the engine as needed while the gateway keeps running.

    Raises:
        LocalError: the gateway died.
    """
    gateway_url = running.base_url.removesuffix("/v1")
    while True:
        time.sleep(WATCH_SECONDS)
        if (code := running.gateway.poll()) is not None:
            raise LocalError(f"the gateway exited: {reason(running.gateway.output(), code)}", running.gateway.log)
        running.supervisor.step(gateway_url)


def _drain(front: Child, progress: Progress) -> None:
    progress.phase("stop", "the gateway drains, then vLLM stops; press Ctrl-C again to stop both at once")
    front.stop(gateway.DRAIN_SECONDS + 5, progress.tick)


def _banner(running: Running) -> str:
    shown = Shown(
        running.base_url, running.metrics_url, running.model, running.version, running.deployed_image, running.model_note
    )  # fmt: skip
    return banner(shown, running.machine, running.first_token_seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
