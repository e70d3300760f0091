"""Untrusted text is made plain before it is printed or logged."""

import json
import logging
import sys
import unicodedata
from functools import cache

import pytest

from sandwich_sdk.cache import corruption
from sandwich_sdk.consumer import _log_failure
from sandwich_sdk.errors import Failure, reason
from sandwich_sdk.wire.dead import error_text
from sandwich_sdk.wire.plain_text import plain_json, plain_lines, plain_text

BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
NASTY = "a\x1b[2J\x9b1m\x7f\x00\t\r\nb\x85\u2028\u2029\u202e\u2066\u061c\u200f\ud83d\ufeff"


@cache
def every() -> list[str]:
    """All characters."""
    return [chr(code) for code in range(sys.maxunicode + 1)]


@cache
def unsafe() -> list[str]:
    """Characters that must not be printed as they are."""
    return [c for c in every() if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or ord(c) in BIDI]


def test_every_control_separator_bidi_and_surrogate_character_is_replaced() -> None:
    for character in unsafe():
        assert plain_text(f"a{character}b").isascii()
        assert plain_text(character, mark="?") == "?"
    assert plain_text(NASTY) == (
        "a\\x1b[2J\\x9b1m\\x7f\\x00\\t\\r\\nb\\x85\\u2028\\u2029\\u202e\\u2066\\u061c\\u200f\\ud83d\\ufeff"
    )
    assert len(plain_text(NASTY).splitlines()) == 1
    plain_text(NASTY).encode()


@pytest.mark.parametrize("text", ["", "plain", "café 棋 Привет שלום", "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️", "क्‍ष", "a\u00a0b", "\\x1b"])
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert plain_text(text) == text


def test_plain_lines_keeps_line_feeds() -> None:
    assert plain_lines("a\nb\r\nc\x1b\u2028") == "a\nb\\r\nc\\x1b\\u2028"


def test_escaped_json_decodes_to_the_same_value() -> None:
    value = {NASTY: ["café", "".join(unsafe()[:200]), "\U000e0001"]}
    text = plain_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value
    assert "café" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_anything_can_be_made_plain() -> None:
    assert [plain_text(value) for value in (None, 5, ValueError("a\nb"))] == ["None", "5", "a\\nb"]


def test_errors_in_the_log_and_in_dead_letters_are_one_plain_line(caplog: pytest.LogCaptureFixture) -> None:
    assert reason(OSError(None, NASTY)).isprintable()
    assert error_text(ValueError(NASTY)).isprintable()
    failure = Failure(error=ValueError("x"), event=None, app="music", stream_seq=1, tries=1, given_up=False)
    with caplog.at_level(logging.WARNING):
        corruption.report(f"key {NASTY}", NASTY)
        _log_failure(failure)
    assert [record.getMessage().isprintable() for record in caplog.records] == [True, True]
