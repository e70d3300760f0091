"""A real Prometheus (Debian's package `prometheus`) as a child process."""

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from sandwich_node.dev.cluster import ChildProcess
from sandwich_node.dev.ports import free_ports

STOP_S = 20.0
ANSWER_S = 5.0
SHIPPED_RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "sandwich.rules.yml"


def is_installed() -> bool:
    """Whether Prometheus and its `promtool` are on the PATH."""
    return all(shutil.which(name) for name in ("prometheus", "promtool"))


@dataclass(frozen=True, slots=True)
class Pace:
    """How often Prometheus scrapes and evaluates, and for how long it uses a value that came last."""

    interval: str = "1s"
    lookback: str = "5m"


@asynccontextmanager
async def prometheus(
    directory: Path, rules: Path, targets: Sequence[str], *, env: Mapping[str, str], pace: Pace | None = None
) -> AsyncIterator[str]:
    """A Prometheus with these rules that scrapes these addresses; yields the URL of its API.

    `directory` must not exist; its log is there.
    """
    pace = pace or Pace()
    config = {
        "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), pace.interval),
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "sandwich", "static_configs": [{"targets": list(targets)}]}],
    }
    directory.mkdir()
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    words = ["prometheus", f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}"]
    words += [f"--web.listen-address=127.0.0.1:{port}", f"--query.lookback-delta={pace.lookback}"]
    child = await ChildProcess.start("prometheus", words, directory=directory, env=env)
    try:
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        await child.stop(STOP_S)


async def asked(http: aiohttp.ClientSession, url: str, **params: str) -> Any:
    """The data of an answer of Prometheus. None: it does not answer in time, or with an error, or with no JSON."""
    try:
        async with http.get(url, params=params, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as response:
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return answer.get("data") if isinstance(answer, dict) and answer.get("status") == "success" else None
