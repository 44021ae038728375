"""A process that has the SDKs imported and forks whatever Python the engine starts: half of an ``up`` is importing them.

The engine starts a language host, a program and a provider for each package on every call. ``kit/python`` hands each over to
here, with its arguments, environment, folder and open files. The fork imports the program and the provider itself; only
libraries are shared. It ends when the process that stands for it at the engine ends, however that was killed.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

AWS = (
    "acm appautoscaling autoscaling budgets cloudcontrol cloudwatch ec2 ecr ecs efs iam lambda_ lb route53 s3 scheduler "
    "secretsmanager servicediscovery sns ssm vpc wafv2"
)
LIBRARIES = (
    "grpc", "pydantic", "yaml", "boto3", "botocore.session", "pulumi", "pulumi.runtime.proto.plugin_pb2", "pulumi.runtime.proto.provider_pb2_grpc",
    "pulumi.runtime.proto.language_pb2_grpc", "pulumi_random", "pulumi_docker_build", "pulumi_aws",
    *(f"pulumi_aws.{name}" for name in AWS.split()),
)  # fmt: skip
KIT_PROVIDER = "tests.pulumi_engine.kit.provider"


def serve(address: str) -> None:
    """Fork for each connection, and answer with the exit status; until standard input ends."""
    for name in LIBRARIES:
        getattr(importlib.import_module(name), "any", None)  # Pulumi's packages are loaded with their first attribute
    gc.collect()
    gc.freeze()
    gc.disable()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(address)
    listening.listen(128)
    ended, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = selectors.DefaultSelector()
    for source in (sys.stdin.fileno(), listening.fileno(), ended):
        waiting.register(source, selectors.EVENT_READ)
    children: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        sources = {key.fd for key, _ in waiting.select()}
        if sys.stdin.fileno() in sources:
            return
        if ended in sources:
            os.read(ended, 4096)
            _reap(children)
        if listening.fileno() in sources:
            connection, _ = listening.accept()
            if (child := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in children.values():
                    other.close()
                listening.close()
                waiting.close()
                _become(connection)
            children[child] = connection


def _reap(children: dict[int, socket.socket]) -> None:
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with children.pop(child) as connection, contextlib.suppress(OSError):
            connection.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))


def _become(connection: socket.socket) -> None:
    """Be the process that was asked for: its files, folder, environment and arguments."""
    status = 1
    os.setpgid(0, 0)
    try:
        files, text = array.array("i"), b""
        length, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_LEN(3 * files.itemsize))
        while missing := int.from_bytes(length, "big") - len(text):
            text += connection.recv(missing)
        files.frombytes(ancillary[0][2])
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        wanted: dict[str, Any] = json.loads(text)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        os.chdir(wanted["folder"])
        threading.Thread(target=_leave_with, args=(connection,), daemon=True).start()
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        _run(wanted["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _leave_with(connection: socket.socket) -> None:
    """End when the process at the engine does; until then pass on the signals that it got."""
    while number := connection.recv(1):
        os.kill(os.getpid(), number[0])
    os.killpg(0, signal.SIGKILL)  # with whatever it started: the language host its program


def _run(arguments: list[str]) -> None:
    # What starts Python again (the language host its program) comes back here.
    sys.executable = str(Path(__file__).with_name("python"))
    sys.argv = arguments
    if arguments[0].endswith("/provider.py"):
        sys.path.insert(0, os.environ["SCENE_ROOT"])
        os.getppid = lambda: 1  # the kit's watch over its parent: ours watches over it
        runpy.run_module(KIT_PROVIDER, run_name="__main__", alter_sys=False)
    else:
        if "--run" not in arguments:
            os.getppid = lambda: 1
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
