"""One stage: its cluster, its Prometheus, and its drills."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import aiohttp
import yaml

from sandwich_node.dev.cluster import dev_cluster
from sandwich_node.dev.ports import free_ports
from verification.alerts.drills import Drill, Stage
from verification.alerts.field import DrillError, Field, until
from verification.alerts.prometheus import SHIPPED_RULES, Pace, asked, prometheus
from verification.alerts.report import Outcome, in_words
from verification.alerts.shortened import shortened, shorter

FIRE_MAX_S = 150.0
CLEAR_MAX_S = 240.0
QUIET_MAX_S = 120.0
LOOK_S = 0.25

Say = Callable[[str], None]
Alert = tuple[str, str]
"""Name, and the application of its label or ""."""


class Watch:
    """What Prometheus shows as firing, and when each alert was first and last seen (monotonic seconds)."""

    def __init__(self, http: aiohttp.ClientSession, api: str) -> None:
        self._http = http
        self._api = api
        self.firing: set[Alert] = set()
        self.began: dict[Alert, float] = {}
        """Since when an alert fires, or fired last."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            found = await asked(self._http, f"{self._api}/alerts")
            if found is not None:
                now = time.monotonic()
                firing = {
                    (alert["labels"]["alertname"], alert["labels"].get("app", ""))
                    for alert in found["alerts"]
                    if alert["state"] == "firing"
                }
                self.began |= dict.fromkeys(firing - self.firing, now)
                self.firing = firing
            await asyncio.sleep(LOOK_S)

    def of(self, drill: Drill) -> dict[Alert, float]:
        """The drill's alerts that have fired, and since when."""
        return {alert: at for alert, at in self.began.items() if concerns(drill, alert)}


def concerns(drill: Drill, alert: Alert) -> bool:
    """Whether the alert is one that the drill has to fire."""
    return alert[0] in drill.alerts and alert[1] in ("", drill.app)


async def run(stage: Stage, wanted: Collection[str], say: Say) -> list[Outcome]:
    """The stage's drills of the wanted alerts. Raises EmbeddedServerError, DrillError when there is no cluster."""
    drills = [drill for drill in stage.drills if set(drill.alerts) & set(wanted)]
    async with _running(stage) as (field, watch):
        say(f"{stage.name}: {len(drills)} drills")
        if stage.at_once:
            found = await asyncio.gather(*(_drill(drill, stage, field, watch, say) for drill in drills))
        else:
            found = [await _drill(drill, stage, field, watch, say) for drill in drills]
    return [outcome for outcomes in found for outcome in outcomes]


@asynccontextmanager
async def _running(stage: Stage) -> AsyncIterator[tuple[Field, Watch]]:
    ports = dict(zip(stage.nodes, free_ports(len(stage.nodes)), strict=True))
    async with dev_cluster(stage.bots, nodes=0, rate=0.0) as cluster, aiohttp.ClientSession() as http:
        if stage.max_shards:
            cluster.env["SANDWICH_MAX_SHARDS"] = str(stage.max_shards)
        field = Field(cluster, ports, {bot.app: bot.shards or 1 for bot in stage.bots})
        for node in stage.nodes:
            await field.start_node(node)
        await field.all_live()
        for app, rate in stage.rates.items():
            await field.sim("traffic", bot=app, rate=rate)
        rules = cluster.directory / "rules.yml"
        rules.write_text(yaml.safe_dump(shortened(yaml.safe_load(SHIPPED_RULES.read_text()), stage.factor)))
        pace = Pace("1s", shorter("5m", min(stage.factor, 60.0)))
        directory = cluster.directory / "prometheus"
        async with prometheus(directory, rules, field.targets, env=cluster.env, pace=pace) as api:
            # An increase needs a value from before.
            await until("Prometheus has scraped every node", lambda: _scraped(http, api, len(ports)))
            watch = Watch(http, api)
            watching = asyncio.create_task(watch.run())
            try:
                yield field, watch
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching


async def _scraped(http: aiohttp.ClientSession, api: str, nodes: int) -> bool:
    query = f"count(count_over_time(sandwich_uptime_seconds[10s]) >= 3) == {nodes}"
    data = await asked(http, f"{api}/query", query=query)
    return bool(data and data["result"])


async def _drill(drill: Drill, stage: Stage, field: Field, watch: Watch, say: Say) -> list[Outcome]:
    outcomes = {alert: Outcome(alert, drill.cause, stage.factor) for alert in drill.alerts}
    began = time.monotonic()
    try:
        await _quiet(drill, watch)
        fault = drill.fault(field)
        began = time.monotonic()
        async with fault:
            caused = time.monotonic()
            with contextlib.suppress(DrillError):
                await until("all have fired", lambda: _fired(drill, watch, began), FIRE_MAX_S)
            for (alert, _), at in watch.of(drill).items():
                if at >= began:
                    outcomes[alert].fired_s = max(0.0, at - caused)
        ended = time.monotonic()
        await _cleared(drill, watch, ended, outcomes)
    except Exception as error:  # One drill that cannot be made must not end the others.
        for outcome in outcomes.values():
            outcome.trouble = f"{type(error).__name__}: {error}"
    others = _others(drill, watch, began)
    for outcome in outcomes.values():
        outcome.others = others
        say(f"  {outcome.alert}: {outcome.cause}: {in_words(outcome)}")
    return list(outcomes.values())


def _others(drill: Drill, watch: Watch, began: float) -> list[str]:
    since = {alert for alert, at in watch.began.items() if at >= began and alert[1] == drill.app}
    return sorted({alert[0] for alert in since if alert[0] not in drill.alerts})


async def _quiet(drill: Drill, watch: Watch) -> None:
    """Wait until none of the drill's alerts fires: the fault before may have fired it as well."""

    async def quiet() -> bool:
        return not any(concerns(drill, alert) for alert in watch.firing)

    await until(f"{', '.join(drill.alerts)} not firing before the drill", quiet, QUIET_MAX_S)


async def _fired(drill: Drill, watch: Watch, began: float) -> bool:
    return {alert for (alert, _), at in watch.of(drill).items() if at >= began} == set(drill.alerts)


async def _cleared(drill: Drill, watch: Watch, ended: float, outcomes: dict[str, Outcome]) -> None:
    missing = {alert for alert, outcome in outcomes.items() if outcome.fired_s is not None}

    async def clear() -> bool:
        firing = {alert[0] for alert in watch.firing if concerns(drill, alert)}
        for alert in missing - firing:
            outcomes[alert].cleared_s = time.monotonic() - ended
        missing.intersection_update(firing)
        return not missing

    with contextlib.suppress(DrillError):
        await until("all have cleared", clear, CLEAR_MAX_S)
