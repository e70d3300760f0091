"""What `--json` prints: versioned, numbers as numbers, and errors as JSON too."""

import json
import sys

import msgspec
import pytest

from sandwich_coordinator.cli import main, output
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.render import to_json
from tests.unit.coordinator.test_health import answer, cluster


def test_an_object_has_the_version_of_its_schema_and_a_table_is_an_array(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json({"moves": []})
    assert json.loads(capsys.readouterr().out) == {"v": 1, "moves": []}
    output.show_json([{"node": "a"}])
    assert json.loads(capsys.readouterr().out) == [{"node": "a"}]
    output.show_json_document({"version": 1})
    assert json.loads(capsys.readouterr().out) == {"version": 1}


def test_the_status_has_the_documented_keys_and_numbers_are_numbers() -> None:
    snapshot = cluster(answers={"a": answer("a", leader=True), "b": "no answer in 1 s"})
    status = json.loads(msgspec.json.encode(to_json(snapshot)))
    assert set(status) == {
        "cluster", "healthy", "problems", "leader", "etcd_version", "nodes", "pins", "apps", "starts", "departed",
        "consumers", "failovers", "losses",
    }  # fmt: skip
    (found,) = status["problems"]
    assert found == {
        "code": "node-unreachable",
        "severity": "critical",
        "subject": "node/b",
        "summary": "node b does not answer (no answer in 1 s)",
        "advice": "see that its address is reachable from here",
        "since": None,
        "nodes": [],
    }
    (app,), (node, _) = status["apps"], status["nodes"]
    for value in (app["guilds"], app["shards_wanted"], app["session_starts_left"], app["shards"]["live"]):
        assert type(value) is int
    assert all(isinstance(node[name], int | float) for name in ("shards", "workers", "events_per_s", "rss_bytes"))


@pytest.mark.parametrize(
    ("raised", "exit_code", "code"),
    [
        (CommandError("there is no node x", 1), 1, "refused"),
        (CommandError("NATS does not answer"), 2, "unavailable"),
        (main._UsageError("no such option"), 2, "usage"),
    ],
)
def test_an_error_is_json_too_when_json_is_asked_for(
    raised: Exception,
    exit_code: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(**_: object) -> None:
        raise raised

    monkeypatch.setattr(main, "app", fails)
    monkeypatch.setattr(sys, "argv", ["sandwich", "node", "list", "--json"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    shown = capsys.readouterr()
    error = {"code": code, "message": str(raised)}
    assert (ended.value.code, json.loads(shown.err)) == (exit_code, {"v": 1, "error": error})
    assert shown.out == "", "results only"
    monkeypatch.setattr(sys, "argv", ["sandwich", "node", "list", "--", "--json"])
    with pytest.raises(SystemExit):
        main.main()
    assert capsys.readouterr().err.startswith("sandwich: ")
