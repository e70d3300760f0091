"""Checks of Discord ids in input. Pure."""

from collections.abc import Iterable
from typing import Final

ID_MAX: Final = 2**64 - 1
ID_DIGITS_MAX: Final = 20


def is_snowflake(text: str) -> bool:
    """Whether `text` is an id as Discord writes it: decimal digits without a leading zero, at most 64 bits."""
    # Only the longest are compared as numbers: there may be thousands of them.
    is_number = text.isascii() and text.isdecimal() and text[0] != "0"
    return is_number and (len(text) < ID_DIGITS_MAX or (len(text) == ID_DIGITS_MAX and int(text) <= ID_MAX))


def snowflake(value: str | int, *, what: str = "id") -> str:
    """The id as it is stored in Redis. Raises ValueError naming `what` for anything that is not a snowflake."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not is_snowflake(text):
        shown = repr(value)
        raise ValueError(f"{what} {shown if len(shown) <= 40 else shown[:37] + '...'} is not a Discord id")
    return text


def snowflakes(values: Iterable[bytes] | None) -> list[str]:
    """The ids among the members of a set or the fields of a hash; anything else was written by another program."""
    found = (value.decode("ascii", "replace") for value in values or ())
    return [text for text in found if is_snowflake(text)]
