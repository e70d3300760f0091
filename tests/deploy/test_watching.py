"""Alert rules and dashboards: what they name exists, the rules pass their tests, and a real Prometheus loads them.

Prometheus is Debian's package `prometheus`; without it the tests that need it are skipped.
"""

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from sandwich_coordinator.cli import render
from sandwich_coordinator.status import NodeStatus
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_node.http.metrics import render_metrics
from tests.e2e.test_main_job import wait_until
from tests.support.served_cluster import programs
from verification.alerts.prometheus import SHIPPED_RULES, asked, is_installed, prometheus

__all__ = ["programs"]
ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RUNBOOK = ROOT / "docs" / "guide" / "runbook.md"
BOT = DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer", guilds=12, shards=2, recommended=2)
needs_prometheus = pytest.mark.skipif(not is_installed(), reason="Debian's package prometheus is not installed")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(SHIPPED_RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Where each query of a rule or a dashboard is, and the query."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for path in sorted(GRAFANA.glob("*.json")):
        model = json.loads(path.read_text())
        for variable in model["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{path.name}, {variable['name']}", variable["query"]
        for panel in model["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}, {panel['title']}", target["expr"]


def exported() -> set[str]:
    """The names of a node's series."""
    page = render_metrics(lambda: NodeStatus(node="a", instance="i", version="1", uptime_s=1.0)).decode()
    return set(re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE))


def names(query: str) -> set[str]:
    return set(re.findall(r"\bsandwich_\w+", query))


def test_every_metric_that_a_rule_or_dashboard_names_is_a_nodes() -> None:
    known = exported()
    assert len(known) > 20
    assert {(where, name) for where, query in queries() for name in names(query) - known} == set()


def test_every_metric_of_a_node_is_in_a_dashboard() -> None:
    shown = {name for where, query in queries() if ".json" in where for name in names(query)}
    assert exported() - shown == {"sandwich_joins_late_total"}, "add a panel in deploy/grafana/build.py"


def test_the_dashboards_are_what_their_source_writes() -> None:
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = {path.name: path.read_text() for path in GRAFANA.glob("*.json")}
    assert written == module.dashboards(), "run: python deploy/grafana/build.py"


def test_every_alert_has_an_entry_in_the_runbook_and_a_test() -> None:
    alerts = [rule["alert"] for rule in rules()]
    assert re.findall(r"^### (Sandwich\w+)$", RUNBOOK.read_text(), re.MULTILINE) == alerts
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/guide/runbook.md#{rule['alert'].lower()}"
    tested = yaml.safe_load((PROMETHEUS / "sandwich.rules.test.yml").read_text())["tests"]
    cases = [case for test in tested for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(alerts), "a rule that no series fires"
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(alerts), "a rule that is never quiet"


@needs_prometheus
@pytest.mark.parametrize(
    "words",
    [("check", "rules", "sandwich.rules.yml"), ("check", "config", "prometheus.example.yml"),
     ("test", "rules", "sandwich.rules.test.yml")],
    ids=" ".join,
)  # fmt: skip
def test_promtool_accepts_the_rules_and_what_their_tests_expect_of_them(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def runnable(query: str) -> str:
    return query.replace("$__rate_interval", "10s").replace("$app", ".*").replace("$instance", ".*")


@pytest.mark.e2e
@needs_prometheus
async def test_a_prometheus_that_scrapes_a_cluster_answers_every_query_and_no_alert_fires() -> None:
    async with dev_cluster((BOT,), nodes=2, rate=50.0) as cluster, aiohttp.ClientSession() as http:

        async def live() -> bool:
            rows = render.shard_rows(await cluster.snapshot(), BOT.app)
            return [row["state"] for row in rows] == ["live", "live"]

        await wait_until(cluster, "all shards live", live)
        nodes = (await cluster.snapshot()).view.nodes
        pages = []
        for entry in nodes.values():
            async with http.get(f"http://{entry.record.address}/metrics") as response:
                pages.append(await response.text())
        targets = [entry.record.address for entry in nodes.values()]
        directory = cluster.directory / "prometheus"
        async with prometheus(directory, SHIPPED_RULES, targets, env=cluster.env) as api:
            await scraped(http, api, cluster)
            found = await asked(http, f"{api}/rules")
            loaded = sorted(rule["name"] for group in found["groups"] for rule in group["rules"])
            assert loaded == sorted(rule["alert"] for rule in rules())
            sampled = {
                sample.name
                for page in pages
                for each in text_string_to_metric_families(page)
                for sample in each.samples
            }
            empty = []
            for where, query in queries():
                if "label_values" in query:
                    continue
                data = await asked(http, f"{api}/query", query=runnable(query))
                assert data is not None, (where, query)
                # A metric that has no series yet, such as one of consumers, has no graph either.
                if ".json" in where and names(query) <= sampled and not data["result"]:
                    empty.append((where, query))
            assert not empty
            firing = await asked(http, f"{api}/query", query='ALERTS{alertstate="firing"}')
            assert [each["metric"]["alertname"] for each in firing["result"]] == []


async def scraped(http: aiohttp.ClientSession, api: str, cluster: DevCluster) -> None:
    """Wait until two scrapes of each node are stored, so that rates have a value, and all rules were evaluated."""

    async def stored() -> bool:
        data = await asked(http, f"{api}/query", query="min(count_over_time(sandwich_uptime_seconds[10s])) >= 3")
        found = await asked(http, f"{api}/rules")
        health = {rule["health"] for group in found["groups"] for rule in group["rules"]} if found else set()
        return bool(data and data["result"]) and health == {"ok"}

    await wait_until(cluster, "Prometheus has scraped the nodes", stored)
