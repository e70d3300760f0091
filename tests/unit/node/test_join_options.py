"""`sandwich-node join` from the environment alone, as a unit file, a compose file or a pod gives it."""

import os
import subprocess
import sys

from typer.main import get_command

from sandwich_coordinator.cli.main import app as operator_app
from sandwich_node.main import app

JOIN = get_command(app).commands["join"]  # type: ignore[attr-defined]
RENAMED = {"label": "LABELS"}


def refusal(**env: str) -> tuple[int, str]:
    """Exit code and errors of a process with these variables: a joining node changes its logging and its limits."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDWICH_")}
    done = subprocess.run(
        [sys.executable, "-m", "sandwich_node.main", "join"],
        env={**kept, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_every_option_has_the_variable_of_its_name() -> None:
    named = {option.name: option.envvar for option in JOIN.params if option.name != "help"}
    assert named == {name: f"SANDWICH_{RENAMED.get(name, name.upper())}" for name in named}


def test_both_commands_read_the_key_file_and_etcds_options_from_the_same_variables() -> None:
    root = get_command(operator_app)
    apply = root.commands["cluster"].commands["apply"]  # type: ignore[attr-defined]
    params = [*root.params, *apply.params]
    operator = {one.name: one.envvar for one in params if one.envvar and not str(one.name).startswith("api")}
    node = {option.name: option.envvar for option in JOIN.params}
    assert operator.keys() <= node.keys()
    assert operator == {name: node[name] for name in operator}
    assert {
        "key_file",
        "etcd",
        "etcd_user",
        "etcd_password_file",
        "etcd_ca",
        "etcd_cert",
        "etcd_key",
    } <= operator.keys()


def test_what_reads_a_file_says_why_it_cannot_and_not_the_parser_of_options() -> None:
    root = get_command(operator_app)
    apply = root.commands["cluster"].commands["apply"]  # type: ignore[attr-defined]
    files = {
        option.name: option.type_descriptor.parameter_info.readable
        for option in (*root.params, *apply.params, *JOIN.params)
        if option.name.endswith(("key_file", "password_file", "_ca", "_cert", "_key")) and option.name != "api_ca"
    }
    names = {"key_file", "etcd_password_file", "etcd_ca", "etcd_cert", "etcd_key", "tls_cert", "tls_key"}
    assert files == dict.fromkeys(names, False)


def test_every_command_with_a_key_file_reads_it_from_the_variable_but_not_the_one_that_makes_it() -> None:
    found = dict(key_files(get_command(operator_app), "sandwich"))
    assert found.pop("sandwich cluster init") is None, "the variable must not say where a new key goes"
    assert set(found.values()) == {"SANDWICH_KEY_FILE"}


def key_files(command: object, path: str) -> list[tuple[str, object]]:
    inner: dict[str, object] = getattr(command, "commands", {})
    found = [(path, option.envvar) for option in command.params if option.name == "key_file"]  # type: ignore[attr-defined]
    return [*found, *(each for name, one in inner.items() for each in key_files(one, f"{path} {name}"))]


def test_labels_in_the_variable_are_separated_by_spaces() -> None:
    code, error = refusal(SANDWICH_LABELS="region=eu disk=ssd host=x", SANDWICH_INSECURE_PLAINTEXT="1")
    assert code == 1
    assert "'host=x'" in error
    assert "region" not in error


def test_a_variable_that_cannot_be_used_is_refused_by_the_name_of_its_option() -> None:
    code, error = refusal(SANDWICH_WORKERS="many")
    assert code == 2
    assert "--workers" in error


def test_an_empty_variable_is_as_good_as_none() -> None:
    # Compose files and units pass `NAME=` for what an operator left out.
    empty = {str(option.envvar): "" for option in JOIN.params if option.envvar}
    code, error = refusal(**{**empty, "SANDWICH_CLUSTER_KEY": ""})
    assert code == 1
    assert "no cluster key" in error
