"""The alert drills without processes: every alert has one, and only durations differ from the shipped rules."""

from collections import Counter
from typing import Any

import pytest
import yaml

from verification.alerts.drills import LASTING, STAGES, drilled
from verification.alerts.prometheus import SHIPPED_RULES
from verification.alerts.report import Outcome, table
from verification.alerts.run import concerns
from verification.alerts.shortened import durations, milliseconds, shape, shortened, shortened_query


def rules(document: Any) -> list[dict[str, Any]]:
    return [rule for group in document["groups"] for rule in group["rules"]]


def but_durations(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if name not in ("expr", "for")}


def test_every_alert_has_one_drill_and_every_drill_an_alert() -> None:
    shipped = [rule["alert"] for rule in rules(yaml.safe_load(SHIPPED_RULES.read_text()))]
    assert Counter(drilled()) == Counter(shipped)


def test_an_alert_that_waits_and_compares_with_no_earlier_value_is_about_a_state() -> None:
    shipped = rules(yaml.safe_load(SHIPPED_RULES.read_text()))
    waits = {rule["alert"] for rule in shipped if "for" in rule}
    compares = {rule["alert"] for rule in shipped if " offset " in rule["expr"]}
    assert waits - compares <= LASTING <= waits


def test_drills_that_run_together_have_an_application_each() -> None:
    for stage in STAGES:
        apps = {bot.app for bot in stage.bots}
        assert apps == set(stage.rates)
        assert len({bot.token.split(".")[0] for bot in stage.bots}) == len(apps), "an application id each"
        assert all(drill.app in apps | {""} for drill in stage.drills)
        if stage.at_once:
            assert sorted(drill.app for drill in stage.drills) == sorted(apps)


@pytest.mark.parametrize("factor", sorted({stage.factor for stage in STAGES}))
def test_a_shortened_rule_differs_by_its_durations_alone_and_each_is_divided(factor: float) -> None:
    shipped = yaml.safe_load(SHIPPED_RULES.read_text())
    for was, now in zip(rules(shipped), rules(shortened(shipped, factor)), strict=True):
        assert but_durations(now) == but_durations(was)
        assert shape(now["expr"]) == shape(was["expr"])
        for before, after in zip(
            [*durations(was["expr"]), *([was["for"]] if "for" in was else [])],
            [*durations(now["expr"]), *([now["for"]] if "for" in now else [])],
            strict=True,
        ):
            assert milliseconds(after) == pytest.approx(milliseconds(before) / factor, abs=0.5)


def test_no_duration_of_a_shipped_rule_is_overlooked() -> None:
    for rule in rules(yaml.safe_load(SHIPPED_RULES.read_text())):
        written = rule["expr"].count("[") + rule["expr"].count(" offset ")
        in_selectors = rule["expr"].count('=~"[')
        assert len(durations(rule["expr"])) == written - in_selectors, rule["alert"]


def test_thresholds_and_names_stay() -> None:
    assert shortened_query('rate(a_5m{b="10m"}[1h30m] offset 2m) > 5', 60) == (
        'rate(a_5m{b="10m"}[90000ms] offset 2000ms) > 5'
    )


@pytest.mark.parametrize("text", ["", "5", "m", "1y", "5m "])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        milliseconds(text)


def test_an_alert_of_another_application_does_not_count() -> None:
    drill = STAGES[0].drills[0]
    (name,) = drill.alerts
    assert concerns(drill, (name, drill.app))
    assert not concerns(drill, (name, "another"))


def test_the_table_names_what_did_not_fire_or_clear() -> None:
    good = Outcome("A", "cause", 60.0, fired_s=1.0, cleared_s=2.0, others=["B"])
    early = Outcome("E", "x", 60.0, fired_s=1.0, cleared_s=0.0, too_early=True)
    text = table([good, Outcome("C", "x", 60.0), Outcome("D", "x", 60.0, fired_s=1.0), early], ["F"])
    assert "| `A` | cause | 60 | 1 s | 2 s | `B` |" in text
    assert "| `E` | x | 60 | 1 s | too early | |" in text
    assert text.split("\n\n")[1].splitlines() == [
        "C: it did not fire",
        "D: it did not clear",
        "E: fired after 1 s, and cleared while the cause lasted",
        "F: its drill did not end",
        "1 of 5 alerts fired and cleared",
    ]
