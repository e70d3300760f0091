"""What a server says about itself and an operator must know."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with what to do. `blocks`: the server does not do now what it is needed for."""

    text: str
    blocks: bool = False
