"""Programs of `dev_cluster` start without an interpreter's imports each: see `tests.support.programs`.

A `conftest.py` or module that imports the fixture `programs` uses it, but for modules with `REAL_PROGRAMS = True`.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandwich_node.dev.cluster import ChildProcess, DevCluster
from tests.support.programs import run_command, start_program

_start = ChildProcess.start


async def _run_cli(cluster: DevCluster, *arguments: str) -> tuple[int, str]:
    """See `DevCluster.run_cli`."""
    env = {**cluster.env, "SANDWICH_ETCD": cluster.etcd_urls}
    code, output, _ = await run_command(*arguments, env=env, directory=cluster.directory, merged=True)
    return code, output


async def _start_child(
    name: str, words: list[str], *, directory: Path, env: Mapping[str, str], cwd: Path | None = None
) -> ChildProcess:
    """See `ChildProcess.start`. Programs of other versions start by themselves."""
    program = Path(words[0])
    if program.parent != Path(sys.executable).parent:
        return await _start(name, words, directory=directory, env=env, cwd=cwd)
    log = directory / f"{name}.log"
    log.touch()
    process = await start_program(
        program.name, words[1:], env=env, directory=cwd or Path.cwd(), stdout=str(log), stderr=str(log), own_group=True
    )
    return ChildProcess(name, log, process)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def programs(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "REAL_PROGRAMS", False):
            patch.setattr(DevCluster, "run_cli", _run_cli)
            patch.setattr(ChildProcess, "start", _start_child)
        yield
