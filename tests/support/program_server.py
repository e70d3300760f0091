"""Runs our programs again and again, each time in a process of its own that has everything imported.

Listens on the Unix socket that its only argument names. A connection sends a line of JSON, a `Request` of
`tests.support.programs`, with descriptors that the program inherits. It is answered a line with the pid, and one with
the exit code at the end, as `subprocess` has it. A process forked for the connection waits for the program.
"""

import contextlib
import ctypes
import gc
import json
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import sandwich_node.composition.agent  # noqa: F401
from sandwich_coordinator.cli import main as command
from sandwich_node import main as node
from sandwich_node import worker_main
from sandwich_node.dev.embedded import die_with_parent
from sandwich_node.worker_process import WorkerProcess
from sandwich_simulator import main as simulator
from tests.support.programs import DESCRIPTORS_MAX, REQUEST_BYTES_MAX, WORKER, serving_spawn

_PR_SET_NAME = 15
"""prctl(2): the name in /proc/PID/comm. The command line stays that of the server."""


def serve(path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is imported stays for ever. A collection in a program would write to, and so copy, each page of it.
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}.new")
        listening.listen(64)
        # Who finds the socket can connect.
        os.rename(f"{path}.new", path)
        while True:
            connection, _ = listening.accept()
            with connection:
                if os.fork() == 0:
                    listening.close()
                    die_with_parent()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(connection, path)
                    os._exit(0)


def _answer(connection: socket.socket, path: str) -> None:
    received, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, DESCRIPTORS_MAX)
    while not received.endswith(b"\n"):
        more = connection.recv(REQUEST_BYTES_MAX)
        if not more:
            # Who asked is gone.
            return
        received += more
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run(json.loads(received), descriptors, path)
    for descriptor in descriptors:
        os.close(descriptor)
    # Who asked may be gone: the program runs to its end all the same.
    with contextlib.suppress(OSError):
        connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run(request: dict[str, Any], descriptors: list[int], path: str) -> None:
    """Be the program, to its end."""
    code: Any = 1
    ctypes.CDLL(None).prctl(_PR_SET_NAME, request["program"].encode())
    try:
        if request["dies_with_us"]:
            die_with_parent()
        if request["own_group"]:
            os.setpgid(0, 0)
        # A fork has the same numbers to come as every other one.
        random.seed()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.dup2(os.open(request["stdin"], os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            if request[name]:
                os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        for number, descriptor in zip((1, 2), descriptors[1:], strict=False):
            os.dup2(descriptor, number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        sys.argv = [request["program"], *request["arguments"]]
        _main_of(request["program"], descriptors, path)()
        code = 0
    except SystemExit as ended:
        code = 0 if ended.code is None else ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _main_of(program: str, descriptors: list[int], path: str) -> Callable[[], None]:
    if program == WORKER:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.argv[1:] = [str(descriptors[0])]
        return worker_main.main
    if program == "sandwich-node":
        beginning: Any = WorkerProcess.__init__
        beginning.__kwdefaults__["spawn"] = serving_spawn(path)
    return {"sandwich": command.main, "sandwich-node": node.main, "sandwich-simulator": simulator.main}[program]


if __name__ == "__main__":
    serve(sys.argv[1])
