import pytest

from sandwich_coordinator.cli.main import command_words, hoist


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cluster", "apply", "-f", "cluster.yml"], "sandwich cluster apply"),
        (["app", "set", "welcomer", "route=secret"], "sandwich app set welcomer"),
        (["--etcd", "http://h:1", "token", "create", "ci", "--role", "admin"], "sandwich token create ci"),
        (["token", "create", "--etcd=http://h:1", "ci", "--cluster", "x"], "sandwich token create ci"),
        (["token", "create", "--role", "admin", "ci"], "sandwich token create"),
        (["user", "set", "x" * 100], "sandwich user set " + "x" * 64),
        ([], "sandwich"),
    ],
)
def test_the_audit_log_has_the_first_words_of_a_command(arguments: list[str], words: str) -> None:
    assert command_words(hoist(arguments)) == words
