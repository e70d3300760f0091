"""Logging: one line a fact, on stderr, with secrets removed whatever was passed in.

The filter is the last line of defence, not the first: tokens are kept out of messages where they are written.
"""

import json
import logging
import re
import sys
from typing import Any

_TOKEN = re.compile(r"[\w-]{23,28}\.[\w-]{6,7}\.[\w-]{27,}")
_URL_SECRET = re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]*(?=@)")
_AUTHORIZATION = re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:bot |bearer )?)[^\s'\",}]+")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Replace whatever looks like a bot token, a URL's credentials or an Authorization header."""
    text = _TOKEN.sub("[token]", text)
    text = _URL_SECRET.sub("[credentials]", text)
    return _AUTHORIZATION.sub(r"\1[redacted]", text)


class _TextFormatter(logging.Formatter):
    """`time level logger: message key=value …`"""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        extra = " ".join(f"{name}={value}" for name, value in _extras(record).items())
        return redact(f"{line}  [{extra}]" if extra else line)


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
        return redact(json.dumps(body, default=str))


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def configure_logging(level: str, *, style: str = "text") -> None:
    """Send all logging to stderr as `style` ("text" or "json"). Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their debug output would carry headers and payloads.
    for noisy in ("aiohttp", "asyncio", "nats", "urllib3"):
        logging.getLogger(noisy).setLevel(max(logging.INFO, root.level))
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
