"""The words that this project does not use, and a check that finds them: `python -m tests.tidy.prose [FILE...]`.

The glossary (docs/reference/glossary.md) says what to write instead. Names in code count as well as comments and
documents: `_tell_agent` holds the word "tell". Words inside Discord's, NATS's or etcd's own names are not affected.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

REFUSED = {
    "anew": "again",
    "somebody": "name who: a user, an operator, another writer",
    "anybody": "name who: any client, any writer",
    "nobody": "no one else, no node, no consumer: name who",
    "everybody": "all: name who",
    "tell": "report, send, say",
    "tells": "reports, says",
    "told": "reported, sent, notified",
    "telling": "reporting",
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "stand": "be at, count; stand for: represent",
    "stands": "is at, counts; stands for: represents",
    "wish": "request",
    "wishes": "requests",
    "wished": "requested",
    "vouch": "be authoritative for",
    "vouches": "is authoritative for",
    "hear": "receive",
    "hears": "receives",
    "heard": "received",
    "hearing": "receiving",
    "hair": "give the number",
    "ere": "before",
    "nought": "zero",
    "thereof": "of it",
}
SUFFIXES = frozenset({".py", ".lua", ".md", ".yml", ".toml", ".service", ".mjs", ".go", ".ts", ".tsx"})
EXEMPT = frozenset({"tests/tidy/prose.py", "tests/tidy/test_prose.py", "docs/reference/glossary.md"})
_PUBLIC = re.compile(r"told_total")
"""A field of the status, which keeps its name."""
_WORDS = re.compile(
    r"(?<![A-Za-z])(" + "|".join(sorted(REFUSED, key=len, reverse=True)) + r")(?![A-Za-z])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One refused word. `line` counts from 1."""

    path: str
    line: int
    word: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}: write instead: {REFUSED[self.word.lower()]}"


def findings(path: str, text: str) -> Iterator[Finding]:
    """The refused words in one file's text."""
    for number, line in enumerate(text.splitlines(), start=1):
        for match in _WORDS.finditer(_PUBLIC.sub("", line)):
            yield Finding(path, number, match[1])


def tracked(root: Path) -> Iterable[str]:
    """The repository's files that hold prose or code of ours."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.splitlines() if Path(name).suffix in SUFFIXES and name not in EXEMPT]


def main() -> int:
    """Print each finding; exit code 1 when there is one."""
    root = Path(__file__).parents[2]
    names = sys.argv[1:] or [name for name in tracked(root) if (root / name).is_file()]
    found = [one for name in names for one in findings(name, (root / name).read_text(encoding="utf-8"))]
    for one in found:
        print(one)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
