import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandwich_coordinator.webhooks.facts import Notice
from sandwich_coordinator.webhooks.messages import (
    CONTENT_MAX,
    EMBEDS_MAX,
    check_template,
    discord_message,
    generic_message,
    rendered,
    signature,
)


def notice(summary: str = "x is paused", **more: Any) -> Notice:
    fields = {"kind": "apps", "state": "began", "severity": "warning", "at": 1_800_000_000.0, "app": "x", **more}
    return Notice(summary=summary, **fields)


def discord(count: int, template: str = "", missed: int = 0, **more: Any) -> dict[str, Any]:
    body = discord_message([notice(**more)] * count, cluster="main", template=template, missed=missed)
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def test_a_discord_message_has_ten_embeds_and_counts_the_rest() -> None:
    body = discord(47)
    assert (len(body["embeds"]), body["content"]) == (EMBEDS_MAX, "and 37 more")
    assert body["embeds"][0]["title"] == "x is paused"
    assert body["embeds"][0]["timestamp"] == "2027-01-15T08:00:00Z"
    assert discord(1, state="ended")["embeds"][0]["title"] == "Over: x is paused"
    assert discord(1, missed=3)["content"] == "3 notices before this could not be delivered"


@given(st.integers(1, 60), st.text(max_size=3000), st.text(max_size=3000))
def test_discord_messages_stay_within_the_limits(count: int, summary: str, advice: str) -> None:
    body = discord(count, summary=summary, advice=advice)
    texts = [
        text for embed in body["embeds"] for text in (embed["title"], embed["description"], embed["footer"]["text"])
    ]
    assert sum(map(len, texts)) <= 6000
    assert all(len(embed["title"]) <= 256 for embed in body["embeds"])
    lines = discord(count, "$summary $advice", summary=summary, advice=advice)["content"]
    assert len(lines) <= CONTENT_MAX


def test_lines_of_a_template_fill_the_message_and_count_the_rest() -> None:
    content = discord(100, "[$severity] $summary in $cluster", summary="y" * 150)["content"]
    *lines, last = content.split("\n")
    assert lines == [f"[warning] {'y' * 150} in main"] * len(lines)
    assert last == f"and {100 - len(lines)} more"


def test_no_notice_mentions_anyone_and_a_template_may_mention_roles() -> None:
    assert discord(1, summary="@everyone <@&123456789012345678>")["allowed_mentions"] == {"parse": [], "roles": []}
    body = discord(1, "<@&123456789012345678> $summary", summary="<@&999999999999999999>")
    assert body["allowed_mentions"] == {"parse": [], "roles": ["123456789012345678"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("$nothing", "no placeholder $nothing"), ("5 $", "write $$"), ("${summary", "write $$"), ("x" * 501, "500")],
)
def test_a_template_is_checked(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("$", r"\$")):
        check_template(text)


def test_values_are_never_read_as_a_template_and_are_plain() -> None:
    assert check_template("$$ ${app}: $summary") == "$$ ${app}: $summary"
    text = rendered("$$ ${app}: $summary", notice("$cluster {0.__class__} %s\x1b[2J"), "main")
    assert text.startswith("$ x: $cluster {0.__class__} %s")
    assert text.isprintable()


def test_a_generic_message_is_signed_as_the_guide_says() -> None:
    body = generic_message([notice()] * 102, cluster="main", template="$app!", missed=1, sent_at=5.0)
    decoded = json.loads(body)
    assert (len(decoded["notices"]), decoded["more"], decoded["missed"], decoded["cluster"]) == (100, 2, 1, "main")
    assert decoded["notices"][0]["text"] == "x!"
    expected = hmac.new(b"secret", b"1800000000." + body, hashlib.sha256).hexdigest()
    assert signature("secret", 1_800_000_000, body) == f"v1={expected}"
