"""The journal of a run, and the violations in it."""

import asyncio
import hashlib
from dataclasses import dataclass, field


@dataclass(slots=True)
class Journal:
    """What happened, in order, with virtual times; and what went wrong."""

    lines: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something happened."""
        self.lines.append(f"{asyncio.get_running_loop().time():8.3f}  {text}")

    def violate(self, text: str) -> None:
        """Something happened that must not."""
        self.note(f"VIOLATION {text}")
        self.violations.append(self.lines[-1].strip())

    def digest(self) -> str:
        """The same for two runs of which every line is the same."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]
