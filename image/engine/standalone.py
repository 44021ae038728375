"""``python3 -m image.engine.standalone``: gateway and engine in one container, for ``docker run``, RunPod and the like.

The gateway listens on PORT (8000) from the start and holds requests while vLLM loads; vLLM listens only on 127.0.0.1. If
one of the two exits, the other is stopped and the container exits, so that its restart policy applies. SIGTERM stops the
gateway first, which drains, then vLLM; a second SIGTERM, or one before vLLM runs, stops both at once.
"""

from __future__ import annotations

from image.engine.init import become_child

if __name__ == "__main__":
    become_child()  # before the imports below: as PID 1, this process does not receive SIGTERM yet

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from image.engine.arguments import EngineError, last_value, settle, values
from image.engine.environment_names import WITHOUT_EFFECT
from image.engine.prepare import say
from image.engine.usage import help_if_asked

ENGINE_PORT, METRICS_PORT = 8001, 9090
DEFAULT_SHUTDOWN_SECONDS = 600
# vLLM exits a few seconds after its last request.
SPARE_SECONDS = 15.0
POLL_SECONDS = 0.2
GATEWAYS_OWN = ("--uds", "--ssl-", "--root-path", "--headless", "--grpc")
"""Arguments with which vLLM would not answer the gateway over HTTP."""
ENTRYPOINT = "image.engine"
STOPPED_EARLY = 128 + signal.SIGTERM
# Requests that the gateway holds for an engine that is not started are not worth a wait.
EARLY_SECONDS = 0.5
_KEYS = ("VLLM_API_KEY", "API_KEY")


def gateway_environment(
    environment: Mapping[str, str], model: str, port: int, aliases: Sequence[str] = ()
) -> dict[str, str]:
    """The gateway's environment; GATEWAY_* variables that are already set take precedence.

    Raises:
        EngineError: neither a key nor GATEWAY_KEYS is set.
    """
    told = {name: value for name, value in environment.items() if value.strip() and name != "HF_TOKEN"}
    key = next((name for name in _KEYS if name in told), None)
    if "GATEWAY_KEYS" not in told and key is None:
        raise EngineError(
            "VLLM_API_KEY: not set; set it to the key that clients must send, or GATEWAY_KEYS=none to accept every request"
        )
    packages = [told[name] for name in ("ENGINE_GATEWAY_PACKAGES", "PYTHONPATH") if name in told]
    defaults = {
        "GATEWAY_MODEL": model,
        **({"GATEWAY_ALIASES": ",".join(aliases)} if aliases else {}),
        "GATEWAY_DISCOVERY": f"fixed:http://127.0.0.1:{ENGINE_PORT}",
        "GATEWAY_PORT": str(port),
        "GATEWAY_METRICS_PORT": str(METRICS_PORT),
        "GATEWAY_KEYS": f"env:{key}",
    }
    return defaults | told | ({"PYTHONPATH": os.pathsep.join(packages)} if packages else {})


class StoppedError(Exception):
    """A stop signal arrived before vLLM was started."""


class Pair:
    """The gateway's and the engine's processes."""

    def __init__(self) -> None:
        self.gateway: subprocess.Popen[bytes] | None = None
        self.engine: subprocess.Popen[bytes] | None = None
        self.asked = 0

    def on_signal(self, *_: object) -> None:
        """Handle a stop signal; the second one stops at once."""
        self.asked += 1
        if self.engine is None and self.asked == 1:
            raise StoppedError

    def ended(self) -> str | None:
        """Which of the two exited, as text; None if both run."""
        for name, process in (("the gateway", self.gateway), ("vLLM", self.engine)):
            if process and (code := process.poll()) is not None:
                return f"{name} exited with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
        return None

    def is_preparing(self) -> bool:
        """Whether the container was asked to stop and vLLM is not running yet: the process is still the entrypoint."""
        if not self.asked or self.engine is None:
            return bool(self.asked)
        try:
            words = Path(f"/proc/{self.engine.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return ENTRYPOINT.encode() in words

    def stop(self, engine_seconds: float) -> None:
        """Stop both, the gateway first. No process of theirs is left."""
        # The gateway exits by itself after GATEWAY_DRAIN_TIMEOUT_SECONDS.
        order = [(self.gateway, math.inf), (self.engine, engine_seconds)]
        if self.is_preparing():
            order = [(self.engine, EARLY_SECONDS), (self.gateway, EARLY_SECONDS)]
        for process, seconds in order:
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                deadline = time.monotonic() + seconds
                while process.poll() is None and self.asked < 2 and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)
        for process in (self.gateway, self.engine):
            if process and process.poll() is None:
                process.kill()
                process.wait()


def main() -> int:
    """Run both until one exits or the container is stopped; returns the exit code."""
    pair = Pair()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pair.on_signal)
    grace = DEFAULT_SHUTDOWN_SECONDS + SPARE_SECONDS
    try:
        outer = settle(sys.argv[1:], os.environ)
        if outer.port in (ENGINE_PORT, METRICS_PORT):
            raise EngineError(f"PORT: found {outer.port}, which is taken inside the container; set another")
        arguments = _listening_inside(outer.arguments)
        grace = float(last_value(arguments, "--shutdown-timeout") or 0) + SPARE_SECONDS
        model, *aliases = values(arguments, "--served-model-name") or arguments[:1]
        told = gateway_environment(os.environ, model, outer.port, aliases)
        quiet = {name: value for name, value in outer.environment.items() if name not in _KEYS}
        say(f"the gateway listens on port {outer.port}, and holds requests until vLLM is ready")
        pair.gateway = subprocess.Popen([sys.executable, "-m", "image.gateway"], env=told)
        for line in outer.notes:
            if not line.startswith(WITHOUT_EFFECT):  # the entrypoint says it, whose environment still has them
                say(line)
        if not outer.keeps_cache:
            quiet["VLLM_FAST_BOOT"] = "false"
        pair.engine = subprocess.Popen([sys.executable, "-m", ENTRYPOINT, *arguments], env=quiet)
        while not pair.asked and pair.ended() is None:
            time.sleep(POLL_SECONDS)
        reason = pair.ended()
    except EngineError as error:
        print(f"engine: error: {error}", file=sys.stderr)
        return 2
    except StoppedError:
        reason = None
    finally:
        was_preparing = pair.is_preparing()
        pair.stop(grace)
    if pair.asked:
        say("stopped before vLLM was started" if was_preparing else "stopped")
        return STOPPED_EARLY if was_preparing else 0
    if pair.engine and pair.engine.returncode == 2:
        return 2  # the entrypoint, or vLLM's parser, printed the reason
    print(f"engine: error: {reason}; the container exits, and its restart policy applies", file=sys.stderr)
    return 1


def _listening_inside(arguments: Sequence[str]) -> list[str]:
    """The arguments that make vLLM listen only for the gateway, and finish running requests on a stop signal.

    Cached prompt tokens are reported, as on every other target; arguments that follow can switch that off.
    """
    told, skip = [], False
    for word in arguments:
        if word.startswith("--"):
            flag = word.partition("=")[0]
            if flag.startswith(GATEWAYS_OWN):
                raise EngineError(
                    f"{flag}: the gateway is in front of vLLM here, over HTTP on PORT; remove it, and end TLS before"
                )
            skip = flag in ("--host", "--port", "--api-key")
        if not skip:
            told.append(word)
    told.insert(1, "--enable-prompt-tokens-details")
    told += ["--host", "127.0.0.1", "--port", str(ENGINE_PORT)]
    if last_value(told, "--shutdown-timeout") is None:
        told += ["--shutdown-timeout", str(DEFAULT_SHUTDOWN_SECONDS)]
    return told


if __name__ == "__main__":
    help_if_asked("image.engine.standalone", "Run vLLM and the gateway in one container, with the gateway in front.")
    sys.exit(main())
