import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repeat import failed, line, run

TESTS = """
import pytest
@pytest.fixture
def broken(): raise RuntimeError
def test_a(): pass
@pytest.mark.parametrize("n", [1, 2])
def test_b(n): assert n == 1
def test_c(broken): pass
"""


def test_a_line_says_how_a_run_ended_how_long_it_took_and_what_failed() -> None:
    assert line(3, 10, 251.4, 0, []) == "3/10  passed  251 s"
    assert line(4, 10, 7.0, 1, ["a::b", "c"]) == "4/10  FAILED (exit code 1)  7 s  a::b  c"


@pytest.fixture(autouse=True)
def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests' pytest runs need no plugins, and start faster without."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize("how", [TESTS, "import nowhere_to_be_found"], ids=["tests", "collection"])
def test_the_names_include_failed_tests_and_broken_fixtures(tmp_path: Path, how: str) -> None:
    (tmp_path / "test_it.py").write_text(how)
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    code = run([*command, f"--junitxml={report}", str(tmp_path)], tmp_path / "log")
    assert code == (1 if how == TESTS else 2)
    assert failed(report) == (["test_it.py::test_b[2]", "test_it.py::test_c"] if how == TESTS else ["test_it"])
    assert "test_it.py" in (tmp_path / "log").read_text()


def test_a_run_without_a_report_has_no_names(tmp_path: Path) -> None:
    assert failed(tmp_path / "nothing.xml") == []


def test_the_program_fails_when_a_run_failed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "tests.support.repeat", "--count", "2", "--", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    _, first, second = done.stdout.splitlines()
    assert first.startswith("1/2  FAILED (exit code 1)")
    assert second.endswith("test_it.py::test_b[2]  test_it.py::test_c")
