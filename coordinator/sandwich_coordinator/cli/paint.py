"""Colours for output. Pure: `output` decides whether a terminal supports them."""

from dataclasses import dataclass

_RESET = "\x1b[0m"
_GOOD = frozenset({"live", "ready", "healthy", "yes", "complete"})
_BAD = frozenset({"failed", "degraded", "lost", "gone", "down"})


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours, or none. The text must be plain already."""

    on: bool = False

    def bold(self, text: str) -> str:
        """A heading."""
        return self._paint("1", text)

    def faint(self, text: str) -> str:
        """Less important text."""
        return self._paint("2", text)

    def bad(self, text: str) -> str:
        """An error."""
        return self._paint("31", text)

    def good(self, text: str) -> str:
        """A good state."""
        return self._paint("32", text)

    def warning(self, text: str) -> str:
        """A warning."""
        return self._paint("33", text)

    def name(self, text: str) -> str:
        """The subject of a line."""
        return self._paint("36", text)

    def state(self, text: str) -> str:
        """A state by its meaning; `text` may be padded."""
        word = text.strip()
        return self.good(text) if word in _GOOD else self.bad(text) if word in _BAD else text

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}{_RESET}" if self.on and text else text


PLAIN = Paint()
