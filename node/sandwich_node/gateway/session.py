"""What one owner of a shard hands to the next."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Session:
    """A Discord session. `sequence`: last dispatch taken; `resume_url`: as READY gave it, "" when not known."""

    id: str
    sequence: int
    resume_url: str
