"""pydantic's errors as messages for operators. Pure; no message repeats a value."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from sandwich_coordinator.config import SECTIONS

TEXT_CHARACTERS_MAX: Final = 400
KEY_SHOWN: Final = 64

KeyPath = tuple[str | int, ...]

_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "is required",
        "string_type": "must be text: put it in quotes",
        "string_unicode": "has a lone surrogate (half of a character)",
        "string_too_short": "must have {min_length} characters or more",
        "string_too_long": "must have at most {max_length} characters",
        "bool_type": "must be true or false",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "tuple_type": "must be a list: [A, B]",
        "list_type": "must be a list: [A, B]",
        "dict_type": "must be a mapping of names: {{NAME: ...}}",
        "model_type": "must be a mapping: {{KEY: VALUE}}",
        "literal_error": "must be {expected}",
        "greater_than_equal": "must be {ge} or more",
        "less_than_equal": "must be {le} or less",
        "invalid_key": "is not text: put the key in quotes",
    }
)
_ALIKE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "int_parsing": "int_type",
        "int_from_float": "int_type",
        "int_parsing_size": "int_type",
        "bool_parsing": "bool_type",
        "float_parsing": "float_type",
        "finite_number": "float_type",
        "string_sub_type": "string_type",
        "model_attributes_type": "model_type",
        "mapping_type": "dict_type",
    }
)


def mistake_text(item: Mapping[str, Any]) -> str:
    """The message for one entry of `ValidationError.errors()`."""
    kind, context = _ALIKE.get(item["type"], item["type"]), item.get("ctx", {})
    if kind in ("too_short", "too_long"):
        least = kind == "too_short"
        bound = context["min_length" if least else "max_length"]
        text = f"must have {bound} {'entry' if bound == 1 else 'entries'} {'or more' if least else 'at most'}"
    elif kind == "string_too_short" and context["min_length"] == 1:
        text = "must not be empty"
    elif words := _WORDS.get(kind):
        text = words.format(**context)
    else:
        text = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 3] + "..."


def _unknown_key(path: KeyPath) -> str:
    general = tuple("*" if isinstance(part, int) else part for part in path[:-1])
    if len(general) > 1 and general[0] == "apps":
        general = ("apps", "*", *general[2:])
    model = SECTIONS.get(general)
    known = [name for name in model.model_fields if name != "literal"] if model else []
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    return "unknown key" + (f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})" if known else "")


def described(error: ValidationError, under: KeyPath = ()) -> list[str]:
    """What is wrong, a line for each mistake with the path of its key. `under`: the path of the checked part."""
    return [f"{dotted(path)}: {text}" for path, text in mistakes(error, under)]


def mistakes(error: ValidationError, under: KeyPath = ()) -> list[tuple[KeyPath, str]]:
    """The path of each key that is wrong, and how. `under`: the path of the checked part."""
    found: list[tuple[KeyPath, str]] = []
    for item in error.errors(include_input=False, include_url=False):
        path = (*under, *(part for part in item["loc"] if part != "[key]"))
        text = _unknown_key(path) if item["type"] == "extra_forbidden" else mistake_text(item)
        if item["type"] == "too_short" and any(known[: len(path)] == path for known, _ in found):
            # The wrong entries are listed already; that too few are left is no second mistake.
            continue
        found.append((path, text))
    return found


def dotted(path: KeyPath) -> str:
    """A path as an operator writes it: `apps.a.events.ignore[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part[:KEY_SHOWN]}" for part in path).lstrip(".")
