"""Runs `sandwich` again and again, each time in a process of its own that has everything imported.

Listens on the Unix socket that its only argument names. A connection sends a line of JSON: arguments, env, directory,
and the files `stdin`, `stdout`, `stderr`. It is answered a line with the pid, and one with the exit code at the end.
"""

import json
import os
import signal
import socket
import sys
from typing import Any

import sandwich_coordinator.cli.app_access
import sandwich_coordinator.cli.remove_app
import sandwich_coordinator.cli.render
import sandwich_coordinator.cli.tail_remote
import sandwich_coordinator.cli.webhook_access  # noqa: F401
from sandwich_coordinator.cli.main import main
from sandwich_node.dev.embedded import die_with_parent


def serve(path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        while True:
            connection, _ = listening.accept()
            with connection:
                if os.fork() == 0:
                    listening.close()
                    _run(connection)


def _run(connection: socket.socket) -> None:
    code: Any = 99
    try:
        die_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        connection.sendall(f"{os.getpid()}\n".encode())
        request = json.loads(connection.makefile("rb").readline())
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.dup2(os.open(request["stdin"], os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["sandwich", *request["arguments"]]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(f"{code}\n".encode())
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
