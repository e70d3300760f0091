"""Start of the commands: with few imports, and without a traceback on Ctrl-C."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandwich_coordinator.cli.main import main

HEAVY = {
    "aiohttp", "asyncio", "cryptography", "etcd3", "msgspec", "nats", "prometheus_client", "pydantic", "redis", "rich",
    "ssl", "uvloop", "yaml", "zstandard",
}  # fmt: skip
ENTRIES = ("sandwich_coordinator.cli.entry", "sandwich_node.entry")
LOADED = (
    "import sys, importlib\n"
    "sys.argv[0] = 'program'\n"
    "try: importlib.import_module({entry!r}).main()\n"
    "except SystemExit as end: code = end.code or 0\n"
    "print('\\n' + ' '.join(sorted(sys.modules)))\n"
    "sys.exit(code)\n"
)


def python(code: str, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_and_version_load_no_libraries_of_commands(entry: str, arguments: list[str]) -> None:
    done = python(LOADED.format(entry=entry), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(done.stdout.splitlines()[-1].split())
    assert sorted(HEAVY & loaded) == []
    assert sorted(name for name in loaded if name.startswith("sandwich_node.") and name.count(".") > 1) == []
    assert len([name for name in loaded if name.startswith("sandwich_")]) < 30


@pytest.mark.parametrize("group", ["cluster", "node", "shard", "app", "guild", "user", "dead"])
def test_help_of_a_group_loads_no_libraries_either(group: str) -> None:
    done = python(LOADED.format(entry=ENTRIES[0]), group, "--help")
    assert done.returncode == 0
    assert sorted((HEAVY - {"pydantic"}) & set(done.stdout.splitlines()[-1].split())) == []


@pytest.mark.parametrize("arguments", [[], ["cluster"], ["node"], ["shard"], ["app"], ["guild"], ["user"], ["dead"]])
def test_a_command_without_its_subcommand_shows_help_and_ends_with_0(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sandwich", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: {' '.join(['sandwich', *arguments])} ")
    assert "Commands:" in said.out


MOMENTS = {
    "while it is imported": "os.kill(os.getpid(), signal.SIGINT)\ndef main(): print('never')\n",
    "where the import swallows it": (
        "try: os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException: pass\ndef main(): print('never')\n"
    ),
    "before the work begins": "def main():\n    os.kill(os.getpid(), signal.SIGINT)\n    print('never')\n",
    "in the work": (
        "from sandwich_coordinator.cli.options import run\n"
        "async def work():\n    os.kill(os.getpid(), signal.SIGINT)\n    import asyncio\n    await asyncio.sleep(60)\n"
        "def main(): run(work())\n"
    ),
    "at the end": (
        "import atexit\n"
        "from sandwich_coordinator.cli.entry import interruptible\n"
        "def main():\n    interruptible()\n    atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_with_130_and_without_a_traceback(moment: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import os, signal\n" + MOMENTS[moment])
    done = python(
        "import sys; sys.path.insert(0, '.')\nfrom sandwich_coordinator.cli.entry import start; start('program')",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_ignored_sigint_stays_ignored(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\ndef main(): print('done')\n"
    )
    done = python(
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nimport sys; sys.path.insert(0, '.')\n"
        "from sandwich_coordinator.cli.entry import start; start('program')",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_worker_ignores_ctrl_c_before_it_imports_anything_heavy() -> None:
    source = (Path(__file__).parents[3] / "node" / "sandwich_node" / "worker_main.py").read_text()
    assert source.index("signal.SIG_IGN") < source.index("import asyncio")


@pytest.mark.parametrize(
    ("words", "at", "offered"),
    [("sandwich cl", "1", {"cluster"}), ("sandwich node dr", "2", {"drain"}), ("sandwich tail --type MESSAGE_D", "3",
     {"MESSAGE_DELETE", "MESSAGE_DELETE_BULK"})],
)  # fmt: skip
def test_the_shell_completes_commands_and_event_types(words: str, at: str, offered: set[str]) -> None:
    done = python(
        "from sandwich_coordinator.cli.entry import main; main()",
        _SANDWICH_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=at,
    )
    assert (set(done.stdout.split()), done.stderr) == (offered, "")


@pytest.mark.parametrize("entry", ENTRIES)
def test_completion_can_be_installed(entry: str) -> None:
    done = python(f"from {entry} import main; main()", "--help")
    assert "--install-completion" in done.stdout
