"""One stage: its cluster, its Prometheus, and its drills."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import yaml

from sandwich_node.dev.cluster import dev_cluster
from sandwich_node.dev.ports import free_ports
from verification.alerts.drills import LASTING, Drill, Stage
from verification.alerts.field import DrillError, Field, now, until
from verification.alerts.firings import Alert, Firings
from verification.alerts.prometheus import SHIPPED_RULES, Pace, asked, prometheus
from verification.alerts.report import Outcome, in_words
from verification.alerts.shortened import shortened, shorter

FIRE_MAX_S = 150.0
CLEAR_MAX_S = 240.0
QUIET_MAX_S = 120.0
ANSWER_MAX_S = 30.0
LOOK_S = 0.25
HOLD_S = 3.0
"""How much longer a cause lasts when an alert about a state fires: several evaluations, which could end it."""

Say = Callable[[str], None]


class Watch:
    """Asks Prometheus again and again what fires. `ask`: the data of its `/alerts`, None when there is no answer."""

    def __init__(self, ask: Callable[[], Awaitable[Any]]) -> None:
        self._ask = ask
        self.seen = Firings()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            at = now()
            found = await self._ask()
            if found is not None:
                firing = {
                    (alert["labels"]["alertname"], alert["labels"].get("app", ""))
                    for alert in found["alerts"]
                    if alert["state"] == "firing"
                }
                self.seen.saw(firing, asked=at, answered=now())
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Wait for what fires now. Raises DrillError when Prometheus does not answer."""
        since = now()

        async def looked() -> bool:
            return self.seen.looked >= since

        await until("Prometheus answers", looked, ANSWER_MAX_S)


def concerns(drill: Drill, alert: Alert) -> bool:
    """Whether the alert is one that the drill has to fire."""
    return alert[0] in drill.alerts and alert[1] in ("", drill.app)


def beside(drill: Drill, alert: Alert) -> bool:
    """Whether the alert is another one that the drill's cause may fire.

    An alert of another application is not: drills of applications run together. A drill without an application runs
    alone, and what it causes may be any application's.
    """
    return alert[0] not in drill.alerts and (not drill.app or alert[1] in ("", drill.app))


async def run(stage: Stage, wanted: Collection[str], outcomes: list[Outcome], say: Say) -> None:
    """Make the stage's drills of the wanted alerts, and add what comes of each when it ends.

    Raises EmbeddedServerError, DrillError when there is no cluster.
    """
    drills = [drill for drill in stage.drills if set(drill.alerts) & set(wanted)]
    async with _running(stage) as (field, watch):
        say(f"{stage.name}: {len(drills)} drills")
        await drill_all(drills, stage, field, watch, outcomes, say)


async def drill_all(
    drills: Sequence[Drill], stage: Stage, field: Field, watch: Watch, outcomes: list[Outcome], say: Say
) -> None:
    """Make drills in a stage that runs, and add what comes of each. Raises ExceptionGroup when the watch fails."""

    async def one(drill: Drill) -> None:
        for outcome in await _drill(drill, stage, field, watch):
            outcomes.append(outcome)
            say(f"  {outcome.alert}: {outcome.cause}: {in_words(outcome)}")

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run())
        if stage.at_once:
            async with asyncio.TaskGroup() as together:
                for drill in drills:
                    together.create_task(one(drill))
        else:
            for drill in drills:
                await one(drill)
        watching.cancel()


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
            yield field, Watch(lambda: asked(http, f"{api}/alerts"))


async def _scraped(http: aiohttp.ClientSession, api: str, nodes: int) -> bool:
    query = f"count(count_over_time(sandwich_uptime_seconds[10s]) >= 3) == {nodes}"
    data = await asked(http, f"{api}/query", query=query)
    return bool(data and data["result"])


async def _drill(drill: Drill, stage: Stage, field: Field, watch: Watch) -> list[Outcome]:
    outcomes = {alert: Outcome(alert, drill.cause, stage.factor) for alert in drill.alerts}
    began = now()
    try:
        if drill.before is not None:
            await drill.before(field)
        await _quiet(drill, watch)
        fault = drill.fault(field)
        began = now()
        async with fault:
            with contextlib.suppress(DrillError):
                await until("all have fired", lambda: _all_fired(drill, watch, began), FIRE_MAX_S)
            if LASTING & set(drill.alerts):
                await asyncio.sleep(HOLD_S)
            await watch.look()
            for alert, at in _fired(drill, watch, began).items():
                outcomes[alert[0]].fired_s = at - began
                outcomes[alert[0]].too_early = alert[0] in LASTING and alert not in watch.seen.firing
            ended = now()
        await _cleared(drill, watch, began, ended, outcomes)
    except Exception as error:  # One drill that cannot be made must not end the others.
        for outcome in outcomes.values():
            outcome.trouble = f"{type(error).__name__}: {error}"
    others = sorted({alert[0] for alert in watch.seen.began(began) if beside(drill, alert)})
    for outcome in outcomes.values():
        outcome.others = others
    return list(outcomes.values())


async def _quiet(drill: Drill, watch: Watch) -> None:
    """Wait until none of the drill's alerts fires: the fault before may have fired it as well."""
    await watch.look()

    async def quiet() -> bool:
        return not any(concerns(drill, alert) for alert in watch.seen.firing)

    await until(f"{', '.join(drill.alerts)} not firing before the drill", quiet, QUIET_MAX_S)


def _fired(drill: Drill, watch: Watch, began: float) -> dict[Alert, float]:
    return {alert: at for alert, at in watch.seen.began(began).items() if concerns(drill, alert)}


async def _all_fired(drill: Drill, watch: Watch, began: float) -> bool:
    return {alert[0] for alert in _fired(drill, watch, began)} == set(drill.alerts)


async def _cleared(drill: Drill, watch: Watch, began: float, ended: float, outcomes: dict[str, Outcome]) -> None:
    fired = {alert for alert in _fired(drill, watch, began) if outcomes[alert[0]].fired_s is not None}

    async def clear() -> bool:
        return not fired & watch.seen.firing

    with contextlib.suppress(DrillError):
        await until("all have cleared", clear, CLEAR_MAX_S)
    for alert in fired:
        at = watch.seen.cleared(alert)
        if at is not None:
            # One that is about what happened may clear while its cause lasts.
            outcomes[alert[0]].cleared_s = max(0.0, at - ended)
