"""The gateway with real vLLM on this machine: scaled to zero and back, killed during a stream, replaced under load.

    .venv/bin/python -m benchmarks.gateway.real_engine

Starts make local with SCALE_DOWN_MINUTES=1 (without a GPU: vLLM's CPU build), sends requests with the OpenAI SDK without
retries, and stops it. Takes about five minutes. The exit status is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from openai import APIError, AsyncOpenAI

from benchmarks.reports import publish
from local import folders
from local.leash import descendants
from local.preflight import free_port

TOKENS = 48
SECONDS = 600.0
SERVER = "vllm.entrypoints.openai.api_server"


class Local:
    """A running `make local`, controlled from outside."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, output: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._output = output

    async def says(self, words: str, since: int = 0) -> int:
        """Wait until the words are printed after the first `since` characters. Returns where they end."""
        await self.until(lambda: words in self._output.read_text()[since:], words)
        return since + self._output.read_text()[since:].index(words) + len(words)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition. Raises TimeoutError after ten minutes, or when the runner has exited."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline or self.process.returncode is not None:
                raise TimeoutError(f"waited for {what}; {self._output.read_text()[-2000:]}")
            await asyncio.sleep(0.1)

    def info(self) -> Any:
        """The gateway's /info."""
        with urllib.request.urlopen(f"{self.url}/info", timeout=10) as answer:  # noqa: S310 - loopback
            return json.load(answer)

    def client(self) -> AsyncOpenAI:
        """An SDK client without retries and with a long timeout."""
        key = folders.API_KEY.read_text().strip()
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=SECONDS)


def engines() -> dict[int, list[str]]:
    """The vLLM servers that run from this folder: process id -> command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            program = words[0].startswith(str(folders.ENGINE_ENVIRONMENT))
            if program and SERVER in words and "--port" in words:
                found[int(folder.name)] = words[:-1]
    return found


def environment_of(pid: int) -> dict[str, str]:
    """The environment of a process."""
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def starts() -> int:
    """The number of times vLLM was started."""
    return (folders.LOGS / "engine.log").read_text(errors="replace").count("non-default args")


async def ask(client: AsyncOpenAI, model: str, number: int, stream: bool, tokens: int = TOKENS) -> str:
    """Send a request. Returns what is wrong with the response; empty if it is complete."""
    messages: Any = [{"role": "user", "content": f"Request {number}: hello!"}]
    extra = {"ignore_eos": True}
    try:
        if not stream:
            whole = await client.chat.completions.create(
                model=model, messages=messages, max_tokens=tokens, extra_body=extra
            )
            counted = whole.usage.completion_tokens if whole.usage else 0
        else:
            counted = 0
            answer = await client.chat.completions.create(
                model=model, messages=messages, max_tokens=tokens, extra_body=extra, stream=True,
                stream_options={"include_usage": True},
            )  # fmt: skip
            async for chunk in answer:
                counted = chunk.usage.completion_tokens if chunk.usage else counted
    except APIError as error:
        return f"{type(error).__name__}: {error.message}"
    return "" if counted == tokens else f"{counted} tokens of {tokens}"


async def to_zero_and_back(local: Local, model: str) -> dict[str, Any]:
    """Wait until the stack is scaled to zero, then send twenty requests at once."""
    await local.says("scaled to zero")
    state, running = local.info()["state"], len(engines())
    before, began = starts(), time.monotonic()
    async with local.client() as client:
        wrong = await asyncio.gather(*(ask(client, model, number, number % 2 == 0) for number in range(20)))
    info = local.info()
    return {
        "state_when_idle": state,
        "vllm_processes_when_idle": running,
        "requests": len(wrong),
        "not_whole": [word for word in wrong if word],
        "vllm_starts": starts() - before,
        "seconds": round(time.monotonic() - began, 1),
        "cold_start": info["cold_start"],
        "goals": {
            "nothing ran": state == "cold" and running == 0,
            "woken once": starts() - before == 1,
            "all answered": not any(wrong),
        },
    }


async def killed_under_a_stream(local: Local, model: str) -> dict[str, Any]:
    """Kill all of vLLM's processes during a stream, then send a request."""
    async with local.client() as client:
        messages: Any = [{"role": "user", "content": "Count."}]
        stream = await client.chat.completions.create(
            model=model, messages=messages, max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
        )
        chunks, error = 0, None
        try:
            async for _ in stream:
                chunks += 1
                if chunks == 20:
                    for server in engines():
                        for pid in [server, *descendants(server)]:
                            os.kill(pid, signal.SIGKILL)
        except APIError as broken:
            error = broken.message
        began = time.monotonic()
        after = await ask(client, model, 0, stream=False)
    return {
        "chunks_before_the_end": chunks,
        "told": error,
        "next_request": after or "whole",
        "seconds_until_answered": round(time.monotonic() - began, 1),
        "goals": {"told of the break": bool(error), "brought back": after == ""},
    }


@contextlib.asynccontextmanager
async def load(local: Local, model: str, workers: int) -> AsyncIterator[list[tuple[float, str]]]:
    """Send requests without a pause until the block ends. Yields (seconds, what is wrong) of each."""
    done: list[tuple[float, str]] = []
    leaving = asyncio.Event()

    async def work(client: AsyncOpenAI, number: int) -> None:
        while not leaving.is_set():
            began = time.monotonic()
            wrong = await ask(client, model, number, stream=(number + len(done)) % 2 == 0)
            done.append((time.monotonic() - began, wrong))

    async with local.client() as client, asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(work(client, number))
        try:
            yield done
        finally:
            leaving.set()


async def replaced_under_load(local: Local, model: str, second_log: Path) -> dict[str, Any]:
    """Add a second vLLM, remove and stop the first, add it again and remove the second; no request may fail.

    Each is removed from the gateway's file of replicas before it is stopped, as ECS removes a task from Cloud Map.
    """
    (first, command) = next(iter(engines().items()))
    environment = environment_of(first)
    port = free_port()
    command[command.index("--port") + 1] = str(port)
    address = folders.REPLICAS.read_text()

    def publish(text: str) -> None:
        new = folders.REPLICAS.with_suffix(".new")
        new.write_text(text)
        new.replace(folders.REPLICAS)

    def replicas(known: int, ready: int) -> bool:
        return bool(local.info()["replicas"] == {"known": known, "ready": ready})

    async with load(local, model, workers=4) as done:
        with second_log.open("wb") as log:
            second = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=environment)
        try:
            publish(f"{address}http://127.0.0.1:{port}\n")
            await local.until(lambda: replicas(2, 2), "the second engine")
            both = len(done)
            publish(f"http://127.0.0.1:{port}\n")
            await local.until(lambda: replicas(1, 1), "the first to leave")
            began = starts()
            os.kill(first, signal.SIGTERM)
            await local.until(lambda: starts() > began, "the runner to start the first again")
            await local.until(lambda: folders.REPLICAS.read_text() == address, "the first to be back")
            await local.until(lambda: replicas(1, 1), "the first to be ready")
            alone = len(done)
            second.send_signal(signal.SIGTERM)  # it completes its running requests
            await second.wait()
            await local.until(lambda: len(done) > alone + 8, "some more answers")
        finally:
            if second.returncode is None:
                second.kill()
                await second.wait()
    lost = [wrong for _, wrong in done if wrong]
    return {
        "requests": len(done),
        "before_the_second_was_ready": both,
        "lost": lost,
        "slowest_seconds": round(max(seconds for seconds, _ in done), 2),
        "goals": {"none lost": not lost},
    }


async def run(folder: Path) -> dict[str, Any]:
    """Run all three on one `make local`."""
    port, output = free_port(), folder / "make-local.log"
    command = [sys.executable, "-m", "local", "--port", str(port), "--scale-down-minutes", "1"]
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, cwd=folders.ROOT)
    local = Local(process, port, output)
    try:
        await local.says("Ctrl-C stops.")
        model = local.info()["model"]
        found = {
            "model": model,
            "runs_on": local.info()["runsOn"],
            "engine_version": local.info()["engine_version"],
            "to_zero_and_back": await to_zero_and_back(local, model),
            "killed_under_a_stream": await killed_under_a_stream(local, model),
            "replaced_under_load": await replaced_under_load(local, model, folder / "second.log"),
        }
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    found["left_running"] = len(engines())
    return found


def main() -> int:
    """Run the scenarios. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    arguments = parser.parse_args()
    folders.LOGS.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    report: dict[str, Any] = {"schema": 1, "commit": commit.stdout.strip(), **asyncio.run(run(folders.LOGS))}
    publish(report, arguments.out)
    goals = [goal for part in report.values() if isinstance(part, dict) for goal in part["goals"].values()]
    return 0 if all(goals) and report["left_running"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
