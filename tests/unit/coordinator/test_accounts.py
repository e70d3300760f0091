"""The configuration for nats-server with an account for each application."""

import subprocess
import sys
from pathlib import Path

import pytest

from sandwich_coordinator.cli import accounts
from sandwich_coordinator.cli.main import main
from tests.support.account_nats import documented

READY = Path(__file__).parents[3] / "deploy" / "nats.conf"
SERVER = Path(sys.executable).parent / "nats-server"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sandwich", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def check(path: Path, **passwords: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SERVER, "-t", "-c", path], env=passwords, capture_output=True, text=True, timeout=30, check=False
    )


def test_an_account_imports_what_the_docs_list_and_requests() -> None:
    listed = {line.replace("<app>", "bot").replace("<group>@<p>", "*") for line in documented()}
    listed = {line.replace("<group>", "*") for line in listed}
    assert {subject for subject, _ in accounts.services("bot")} == listed | {"sandwich.bot.rpc.*"}


def test_no_import_can_create_change_or_delete() -> None:
    subjects = [subject for subject, _ in accounts.services("bot") if ".API." in subject]
    verbs = {subject.partition(".API.")[2].partition(".SANDWICH")[0] for subject in subjects}
    assert verbs == {"STREAM.INFO", "STREAM.MSG.GET", "CONSUMER.INFO", "CONSUMER.MSG.NEXT"}


def test_the_ready_file_is_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "nats-config", "welcomer") == 0
    assert capsys.readouterr().out == READY.read_text()


def test_the_ready_file_is_accepted_by_nats_server() -> None:
    done = check(READY, NATS_NODE_PASSWORD="n1", NATS_OPERATOR_PASSWORD="o1", NATS_WELCOMER_PASSWORD="w1")
    assert done.returncode == 0, done.stderr
    assert check(READY, NATS_NODE_PASSWORD="n1", NATS_OPERATOR_PASSWORD="o1").returncode != 0


def test_many_applications_are_accepted_by_nats_server(tmp_path: Path) -> None:
    names = ["a", "b-c", "0", "x" * 32]
    (tmp_path / "nats.conf").write_text(accounts.server_config(names, store=str(tmp_path / "a b"), listen="[::1]:4222"))
    users = [*names, accounts.NODE_USER, accounts.OPERATOR_USER]
    done = check(tmp_path / "nats.conf", **{accounts.password_variable(user): "secret" for user in users})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("apps", [["Bot"], ["a.b"], ['a"'], ["a", "a"], ["a-b", "a_b"], ["node"], ["operator"]])
def test_names_that_cannot_have_an_account_are_refused(apps: list[str]) -> None:
    with pytest.raises(ValueError):
        accounts.server_config(apps, store="/data")


@pytest.mark.parametrize("option", ["--store", "--listen"])
def test_values_that_would_break_the_syntax_of_the_file_are_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "nats-config", "bot", option, 'x" }') == 2
    assert "quotes" in capsys.readouterr().err
