"""The check of the words: it refuses those of the glossary, and only as whole words."""

import re

import pytest

from tests.tidy.prose import REFUSED, findings
from tests.tidy.test_docs import DOCS


def test_the_glossary_and_the_check_refuse_the_same_words() -> None:
    table = (DOCS / "reference/glossary.md").read_text().partition("## Words not used")[2]
    listed = re.findall(r"^\| ([a-z, ]+) \|", table, re.MULTILINE)
    assert {word for row in listed if row != "not" for word in row.split(", ")} == set(REFUSED)


@pytest.mark.parametrize("text", ["a shard stands", "Stand by", "wishes_of_operators", "(wished)"])
def test_a_refused_word_is_found_in_prose_and_in_names(text: str) -> None:
    assert [(found.path, found.line) for found in findings("page.md", f"first line\n{text}\n")] == [("page.md", 2)]


@pytest.mark.parametrize("text", ["understand", "standard", "standby", "the standing order", "wishful", "told_total"])
def test_other_words_that_hold_its_letters_are_not(text: str) -> None:
    assert list(findings("page.md", text)) == []
