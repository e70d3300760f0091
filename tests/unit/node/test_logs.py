"""Secrets never reach the log, whatever was passed to it."""

import json
import logging

import pytest

from sandwich_coordinator.access.identities import WebSession, web_session_text
from sandwich_coordinator.access.records import SignInRecord, token_text
from sandwich_node.logs import configure_logging, redact

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4OQ.GabcdE.abcdefghijklmnopqrstuvwxyz0123456789AB"


@pytest.mark.parametrize(
    "text",
    [TOKEN, f"Bot {TOKEN}", f'{{"token":"{TOKEN}"}}', f"Authorization: Bot {TOKEN}", "nats://user:hunter2@host:4222"],
)
def test_secrets_are_removed(text: str) -> None:
    cleaned = redact(text)
    assert TOKEN not in cleaned
    assert "hunter2" not in cleaned


def test_api_tokens_and_sessions_are_removed_and_the_tokens_id_stays() -> None:
    secret = "s_-9" * 10 + "abc"
    record = SignInRecord(user="1", secret="0" * 64)
    session = web_session_text(WebSession(user="1", name="a", ends_at=1.0), "c", None, record)
    cleaned = redact(f"{token_text('abcdefgh', secret)} and {session}; x")
    assert cleaned == "swt_abcdefgh_[redacted] and [session]; x"


@pytest.mark.parametrize("style", ["text", "json"])
def test_extras_and_exceptions_are_redacted_too(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure_logging("info", style=style)
        try:
            raise RuntimeError(f"no such session {TOKEN}")
        except RuntimeError:
            logging.getLogger("x").exception("failed with %s", TOKEN, extra={"shard": 3, "given": TOKEN})
    finally:
        logging.getLogger().handlers[:], logging.getLogger().level = before
    printed = capsys.readouterr().err
    assert TOKEN not in printed
    assert "RuntimeError" in printed
    if style == "json":
        assert json.loads(printed)["shard"] == 3
    else:
        assert "shard=3" in printed
