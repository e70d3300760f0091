"""Logging: one line a fact, on stderr, with secrets removed whatever was passed in.

The filter is the last line of defence, not the first: tokens are kept out of messages where they are written. Reasons
and names come from Discord, from consumers and from servers: what they say is made plain, so that none of them can
write a line of its own.
"""

import json
import logging
import re
import sys
from typing import Any

from sandwich_sdk.wire.plain_text import plain_json, plain_text

_TOKEN = re.compile(r"[\w-]{23,28}\.[\w-]{6,7}\.[\w-]{27,}")
_API_TOKEN = re.compile(r"swt_([a-z0-9]{1,32})_[\w-]{20,}")
_SESSION = re.compile(r"sws1\.[\w-]{8,}\.[\w-]{20,}")
_URL_SECRET = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_URL_OPTION = re.compile(r"(?i)([?&][a-z_]*(?:password|passwd|token|secret|auth)[a-z_]*=)[^&\s'\"#]+")
_AUTHORIZATION = re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:bot |bearer )?)[^\s'\",}]+")
_COOKIE = re.compile(r"(?i)(cookie['\"]?\s*[:=]\s*)[^\r\n]+")
_NAMED = re.compile(
    r"(?i)((?:password|passwd|secret|token|session_id)(?:\s*=\s*|['\"]\s*:\s*)['\"]?)(?!\[)[^\s'\",&}\])]+"
)
"""A value that is named as a secret: `password=...`, `"token": "..."`. Prose ("lost its session: ...") is not."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Replace what looks like a token, a session or credentials, or is named as a secret."""
    text = _TOKEN.sub("[token]", text)
    text = _API_TOKEN.sub(r"swt_\1_[redacted]", text)
    text = _SESSION.sub("[session]", text)
    text = _URL_SECRET.sub("[credentials]", text)
    text = _URL_OPTION.sub(r"\1[redacted]", text)
    text = _AUTHORIZATION.sub(r"\1[redacted]", text)
    text = _COOKIE.sub(r"\1[redacted]", text)
    return _NAMED.sub(r"\1[redacted]", text)


class TextFormatter(logging.Formatter):
    """`time level logger: message [key=value …]`; the lines of a traceback follow, each with a mark before it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        extra = " ".join(f"{name}={value}" for name, value in _extras(record).items())
        line = super().formatMessage(record)
        return plain_text(f"{line}  [{extra}]" if extra else line)

    def formatException(self, ei: Any) -> str:
        return _marked(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _marked(super().formatStack(stack_info))

    def format(self, record: logging.LogRecord) -> str:
        # Kept by the record when another handler formatted it before, without the marks.
        record.exc_text = None
        text = redact(super().format(record))
        record.exc_text = None
        return text


def _marked(text: str) -> str:
    """What an exception says may have lines of its own: none of them begins as a line of the log does."""
    return "\n".join(f"  | {plain_text(line)}" for line in text.split("\n"))


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        body: dict[str, Any] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return redact(plain_json(json.dumps(body, default=str)))


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def configure_logging(level: str, *, style: str = "text") -> None:
    """Send all logging to stderr as `style` ("text" or "json"). Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their debug output would carry headers and payloads.
    for noisy in ("aiohttp", "asyncio", "nats", "urllib3"):
        logging.getLogger(noisy).setLevel(max(logging.INFO, root.level))
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
