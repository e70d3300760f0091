"""`make profile`: which functions of a worker use its CPU, under steady traffic or in a burst.

    make profile                                             # 64 shards, 2,000 events a second, without the cache
    make profile ARGS="--load 4/2000 --cache"
    make profile ARGS="--load 2/0 --burst 100000 --cache"

"own" is the share of samples in the function itself and in what it calls that is not Python; "whole" includes the
Python functions that it calls. See benchmarks/sampling/sitecustomize.py for how samples are taken.
"""

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.processes import cpu_s, until, until_quiet
from benchmarks.steady import APP, WARM_UP_S, Load, steady_cluster, worker_pid

SAMPLING = Path(__file__).with_name("sampling")


def measure(load: Load, *, cache: bool, seconds: float, burst: int) -> None:
    """Print the table."""
    with TemporaryDirectory() as directory:
        found = Path(directory, "samples.json")
        env = {"PYTHONPATH": str(SAMPLING), "PYTHON_WORKER_SAMPLES": str(found)}
        used = asyncio.run(_sample(load, env, os.fspath(found), cache=cache, seconds=seconds, burst=burst))
        _print(json.loads(found.read_text()), used)


async def _sample(load: Load, env: dict[str, str], found: str, *, cache: bool, seconds: float, burst: int) -> float:
    """Have samples written to `found`; returns the seconds of CPU that the worker used meanwhile."""
    async with steady_cluster(load, cache=cache, env=env) as cluster:
        worker = await worker_pid(cluster)
        if not burst:
            await cluster.simulator("traffic", {"rate": load.rate})
            await asyncio.sleep(WARM_UP_S)
        before = cpu_s(worker)
        os.kill(worker, signal.SIGUSR1)
        if burst:
            await cluster.simulator("burst", {"bot": APP, "events": burst // load.shards, "shards": "all"})
            await until_quiet(worker)
        else:
            await asyncio.sleep(seconds)
        os.kill(worker, signal.SIGUSR2)
        used = cpu_s(worker) - before
        await until(lambda: asyncio.to_thread(os.path.exists, found), 20)
        return used


def _print(samples: dict[str, Any], used_s: float, rows: int = 40) -> None:
    own, whole = samples["own"], samples["whole"]
    total = sum(own.values())
    print(f"The worker used {used_s:.2f} s of CPU; {total} samples.\n")
    print("| own | whole | function |\n|---|---|---|")
    for name in sorted(own, key=own.get, reverse=True)[:rows]:
        print(f"| {own[name] / total:.1%} | {whole[name] / total:.1%} | {_short(name)} |")
    print("\n| whole | function |\n|---|---|")
    for name in sorted(whole, key=whole.get, reverse=True)[:rows]:
        print(f"| {whole[name] / total:.1%} | {_short(name)} |")


def _short(name: str) -> str:
    path, line, function = name.rsplit(":", 2)
    return f"{'/'.join(Path(path).parts[-2:])}:{line} {function}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker_profile", description=__doc__)
    parser.add_argument("--load", type=Load.parse, default=Load(64, 2000), help="SHARDS/RATE")
    parser.add_argument("--cache", action="store_true", help="with the cache")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long steady traffic is sampled")
    parser.add_argument("--burst", type=int, default=0, help="sample one burst of so many events instead")
    arguments = parser.parse_args()
    measure(arguments.load, cache=arguments.cache, seconds=arguments.seconds, burst=arguments.burst)
