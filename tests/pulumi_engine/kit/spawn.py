"""Stands for a forked process (spawner.py) at the engine: the engine's child, its signals and its exit status."""

import array
import json
import os
import signal
import socket
import sys


def main() -> int:
    """Hand arguments, environment, folder and open files over; wait for the end."""
    parent = os.getppid()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.environ["SCENE_SPAWNER"])
    wanted = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109
    text = json.dumps(wanted).encode()
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    connection.sendmsg([len(text).to_bytes(4, "big")], files)
    connection.sendall(text)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: connection.send(bytes([caught])))
    connection.settimeout(0.5)
    while os.getppid() == parent:  # a killed engine does not end its plugins
        try:
            status = connection.recv(1)
        except TimeoutError:
            continue
        return status[0] if status else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
