"""pydantic's errors as messages for operators. Pure; no message repeats a value."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

TEXT_CHARACTERS_MAX: Final = 400

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
