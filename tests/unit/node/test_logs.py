"""Secrets never reach the log, whatever was passed to it."""

import json
import logging

import pytest

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
