"""`make test-repeat COUNT=10`: runs the whole suite repeatedly, with a line for each run, to find flaky tests.

The output of each run is kept in a temporary directory, which the first line names. Exit code 1 when a run failed.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

STOP_S = 60.0
"""The time for tests to end their processes after Ctrl-C."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="number of runs")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest")
    options = parser.parse_args()
    logs = Path(tempfile.mkdtemp(prefix="sandwich-tests-"))
    print(f"{options.count} runs; their output is in {logs}", flush=True)
    all_passed = True
    for number in range(1, options.count + 1):
        report = logs / f"run-{number}.xml"
        began = time.monotonic()
        code = run(
            [sys.executable, "-m", "pytest", f"--junitxml={report}", *options.pytest], report.with_suffix(".log")
        )
        all_passed &= code == 0
        print(line(number, options.count, time.monotonic() - began, code, failed(report)), flush=True)
    return 0 if all_passed else 1


def run(command: Sequence[str], log: Path) -> int:
    """Run a command; returns its exit code. Ctrl-C is passed to the tests, which then have time to clean up."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(STOP_S)
        raise


def failed(report: Path) -> list[str]:
    """Names of the failed tests, from a JUnit report; empty without a report."""
    if not report.exists():
        return []
    cases = ElementTree.parse(report).iter("testcase")
    broken = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return list(dict.fromkeys(_name(case.get("classname", ""), case.get("name", "")) for case in broken))


def _name(module: str, test: str) -> str:
    """The test's name in pytest's form. A module that cannot be imported is reported as a test without a module."""
    return f"{module.replace('.', '/')}.py::{test}" if module else test


def line(number: int, count: int, seconds: float, code: int, names: Sequence[str]) -> str:
    """The line printed for a run."""
    words = "passed" if code == 0 else f"FAILED (exit code {code})"
    return "  ".join([f"{number}/{count}", words, f"{seconds:.0f} s", *names])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
