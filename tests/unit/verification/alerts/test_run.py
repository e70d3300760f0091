"""How a drill is made and judged, on virtual time: a Prometheus whose alerts fire and clear at given times."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from verification.alerts import __main__ as program
from verification.alerts.drills import LASTING, Drill, Stage
from verification.alerts.field import DrillError, Field
from verification.alerts.firings import Firings
from verification.alerts.prometheus import asked
from verification.alerts.report import Outcome
from verification.alerts.run import HOLD_S, Watch, beside, drill_all
from verification.simulation.loop import run_virtual

STATE, PAST = "SandwichNodeDown", "SandwichGaps"
FIELD = cast(Field, None)
LATE_S = 0.5
"""How much later than it happens a drill may see something: it looks at Prometheus, and at what that said."""
assert STATE in LASTING
assert PAST not in LASTING


class Script:
    """Alerts fire so many seconds after the cause began, and clear so many after it or after the end of it began."""

    def __init__(self, fires_s: dict[str, float], *, clears_s: float | None = None, after_end_s: float = 4.0) -> None:
        self.fires_s = fires_s
        self.clears_s = clears_s
        self.after_end_s = after_end_s
        self.began = self.ended = float("inf")

    @asynccontextmanager
    async def fault(self, field: Field) -> AsyncIterator[None]:
        """Beginning it and ending it take long."""
        self.began = asyncio.get_running_loop().time()
        await asyncio.sleep(10.0)
        yield
        self.ended = asyncio.get_running_loop().time()
        await asyncio.sleep(20.0)

    async def ask(self) -> Any:
        """What Prometheus answers."""
        time = asyncio.get_running_loop().time()
        end = self.ended + self.after_end_s if self.clears_s is None else self.began + self.clears_s
        firing = [name for name, after in self.fires_s.items() if self.began + after <= time < end]
        return {"alerts": [{"labels": {"alertname": name}, "state": "firing"} for name in firing]}


def drilled(drill: Drill, ask: Any, *, at_once: bool = False) -> list[Outcome]:
    outcomes: list[Outcome] = []
    stage = Stage("stage", bots=(), drills=(drill,), rates={}, at_once=at_once)
    run_virtual(drill_all(stage.drills, stage, FIELD, Watch(ask), outcomes, lambda _: None))
    return outcomes


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("fires_s", [3.0, 15.0], ids=["while it is caused", "later"])
def test_times_count_from_the_beginning_of_the_cause_and_of_its_end(fires_s: float, at_once: bool) -> None:
    script = Script({STATE: fires_s})
    (outcome,) = drilled(Drill((STATE,), "x", script.fault), script.ask, at_once=at_once)
    assert outcome.passed, outcome
    assert outcome.fired_s == pytest.approx(fires_s, abs=LATE_S)
    assert outcome.cleared_s == pytest.approx(script.after_end_s, abs=LATE_S)


def test_what_comes_before_a_cause_does_not_count() -> None:
    script = Script({STATE: 3.0})

    async def before(field: Field) -> None:
        await asyncio.sleep(75.0)

    (outcome,) = drilled(Drill((STATE,), "x", script.fault, before=before), script.ask)
    assert script.began >= 75.0
    assert outcome.fired_s == pytest.approx(3.0, abs=LATE_S)


@pytest.mark.parametrize("clears_s", [5.0, 10.0 + HOLD_S / 2], ids=["while others are waited for", "while it is held"])
def test_an_alert_about_a_state_may_not_clear_while_its_cause_lasts(clears_s: float) -> None:
    script = Script({STATE: 3.0}, clears_s=clears_s)
    (outcome,) = drilled(Drill((STATE,), "x", script.fault), script.ask)
    assert outcome.too_early
    assert not outcome.passed


def test_what_prometheus_said_before_the_end_of_a_cause_is_no_proof_that_the_alert_lasted() -> None:
    script = Script({STATE: 3.0}, clears_s=11.0)

    async def slowly() -> Any:
        found = await script.ask()
        await asyncio.sleep(HOLD_S + 1.0)
        return found

    (outcome,) = drilled(Drill((STATE,), "x", script.fault), slowly)
    assert outcome.too_early


def test_an_alert_about_what_happened_may() -> None:
    script = Script({PAST: 3.0}, clears_s=5.0)
    (outcome,) = drilled(Drill((PAST,), "x", script.fault), script.ask)
    assert outcome.passed
    assert outcome.cleared_s == 0.0


def test_an_alert_that_never_fires_or_never_clears_fails_its_drill() -> None:
    never = Script({})
    (outcome,) = drilled(Drill((STATE,), "x", never.fault), never.ask)
    assert (outcome.fired_s, outcome.cleared_s, outcome.passed) == (None, None, False)
    always = Script({STATE: 3.0}, after_end_s=1e9)
    (outcome,) = drilled(Drill((STATE,), "x", always.fault), always.ask)
    assert (outcome.cleared_s, outcome.passed) == (None, False)


def test_a_prometheus_that_does_not_answer_is_asked_again_and_one_that_never_does_is_the_drills_trouble() -> None:
    script, asks = Script({STATE: 3.0}), 0

    async def at_times() -> Any:
        nonlocal asks
        asks += 1
        return await script.ask() if asks % 2 else None

    (outcome,) = drilled(Drill((STATE,), "x", script.fault), at_times)
    assert outcome.passed, outcome

    async def never() -> Any:
        return None

    (outcome,) = drilled(Drill((STATE,), "x", script.fault), never)
    assert "Prometheus answers" in outcome.trouble


def test_a_watch_that_fails_ends_the_run_and_what_ended_before_is_kept() -> None:
    script, outcomes = Script({STATE: 3.0}), list[Outcome]()
    drills = [Drill((STATE,), "x", script.fault), Drill((PAST,), "never fires", Script({}).fault)]

    async def ask() -> Any:
        if outcomes:
            raise KeyError("labels")
        return await script.ask()

    with pytest.raises(ExceptionGroup) as failed:
        run_virtual(drill_all(drills, Stage("s", (), tuple(drills), {}), FIELD, Watch(ask), outcomes, lambda _: None))
    assert failed.group_contains(KeyError)
    assert [outcome.alert for outcome in outcomes] == [STATE]


def test_an_alert_that_fires_as_well_is_of_the_drills_application_or_of_none() -> None:
    of_app, of_none = Drill((STATE,), "x", Script({}).fault, "a"), Drill((STATE,), "x", Script({}).fault)
    assert [beside(of_app, (PAST, app)) for app in ("a", "", "b")] == [True, True, False]
    assert [beside(of_none, (PAST, app)) for app in ("a", "", "b")] == [True, True, True], "it runs alone"
    assert not beside(of_none, (STATE, "a"))


def test_the_first_time_that_an_alert_fires_counts_and_the_last_that_it_clears() -> None:
    firings, alert = Firings(), (STATE, "")
    for at, firing in ((1.0, True), (2.0, False), (5.0, True), (6.0, True), (7.0, False), (8.0, True)):
        firings.saw({alert} if firing else set(), asked=at - 0.1, answered=at)
        if at == 7.0:
            assert firings.cleared(alert) == 7.0
    assert firings.cleared(alert) is None
    assert firings.began(0.0) == {alert: 1.0}
    assert firings.began(2.0) == {alert: 5.0}
    assert firings.began(9.0) == {}
    assert firings.looked == 7.9


@pytest.mark.parametrize(
    ("status", "body", "data"),
    [
        (200, '{"status": "success", "data": {"alerts": []}}', {"alerts": []}),
        (200, '{"status": "success"}', None),
        (503, '{"status": "error", "errorType": "timeout", "error": "x", "data": {"alerts": []}}', None),
        (503, "not ready", None),
        (200, "[]", None),
        (200, "{}", None),
    ],
)
async def test_an_answer_is_its_data_and_a_bad_one_is_none(status: int, body: str, data: Any) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/alerts", answer)
    async with TestServer(app) as server, ClientSession() as http:
        assert await asked(http, str(server.make_url("/alerts"))) == data


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DrillError("x"), ExceptionGroup("x", [KeyError("labels")])])
def test_a_run_that_breaks_off_shows_what_it_had(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(stage: Stage, wanted: object, outcomes: list[Outcome], say: object) -> None:
        outcomes.append(Outcome(PAST, "x", 60.0, fired_s=1.0, cleared_s=2.0))
        raise error

    monkeypatch.setattr(program, "run", broken)
    monkeypatch.setattr(program, "is_installed", lambda: True)
    monkeypatch.setattr(sys, "argv", ["alert-check", "--only", PAST, "--only", STATE])
    if isinstance(error, ExceptionGroup):
        with pytest.raises(ExceptionGroup):
            program.main()
    else:
        assert program.main() in (2, 130)
    printed = capsys.readouterr().out
    assert f"| `{PAST}` | x | 60 | 1 s | 2 s | |" in printed
    assert f"{STATE}: its drill did not end\n1 of 2 alerts fired and cleared" in printed
