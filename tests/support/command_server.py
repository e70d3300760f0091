"""Runs `sandwich` again and again, each time in a process of its own that has everything imported.

Reads requests from stdin, a line of JSON each: number, arguments, env, directory, place (with the file `in`). Writes
`out` and `err` there, and then a line with the number and the exit code.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import sandwich_coordinator.cli.app_access
import sandwich_coordinator.cli.remove_app
import sandwich_coordinator.cli.render
import sandwich_coordinator.cli.tail_remote
import sandwich_coordinator.cli.webhook_access  # noqa: F401
from sandwich_coordinator.cli.main import main


def serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        if os.fork() == 0:
            _run(json.loads(line))


def _run(request: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    answers, place = os.dup(1), Path(request["place"])
    code: Any = 99
    try:
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.dup2(os.open(place / "in", os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT), number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["sandwich", *request["arguments"]]
        main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(answers, f"{request['number']} {code}\n".encode())
        os._exit(0)


if __name__ == "__main__":
    serve()
