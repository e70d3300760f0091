"""The journal of a run, and the violations in it."""

import asyncio
import hashlib
from dataclasses import dataclass, field


@dataclass(slots=True)
class Journal:
    """The events of a run in order, with virtual times; and the violations."""

    lines: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Record an event."""
        self.lines.append(f"{asyncio.get_running_loop().time():8.3f}  {text}")

    def violate(self, text: str) -> None:
        """Record a violation."""
        self.note(f"VIOLATION {text}")
        self.violations.append(self.lines[-1].strip())

    def digest(self) -> str:
        """A digest of all lines: equal for equal runs."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]
