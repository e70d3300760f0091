"""What `sandwich app` prints about one application. Pure."""

from collections.abc import Iterator
from typing import Any

from sandwich_coordinator.durations import duration
from sandwich_coordinator.intents import intent_names
from sandwich_coordinator.operations.applications import AddedApp
from sandwich_coordinator.operations.bots import Bot
from sandwich_coordinator.operations.export import EffectiveApp


def bot_lines(bot: Bot | None) -> list[str]:
    """What Discord says about a token; nothing when it was not asked."""
    if bot is None:
        return []
    limits = bot.limits
    guilds = f"about {limits.guilds} guilds" if limits.guilds is not None else "guilds not known"
    reset = f", reset in {duration(limits.reset_after_s)}" if limits.reset_after_s else ""
    return [
        f"token of bot {bot.name} ({bot.id}), {guilds}, recommends {limits.recommended} shards, "
        f"{limits.remaining} of {limits.total} session starts left{reset}"
    ]


def added_json(added: AddedApp) -> dict[str, Any]:
    """A new application for JSON."""
    bot, record = added.bot, added.record
    return {
        "app": record.app,
        "intents": intent_names(record.intents),
        "shards": {"count": record.shards.count, "ids": record.shards.ids},
        "paused": record.paused,
        "bot": None
        if bot is None
        else {
            "id": bot.id,
            "name": bot.name,
            "guilds": bot.limits.guilds,
            "shards_recommended": bot.limits.recommended,
            "session_starts_left": bot.limits.remaining,
            "session_starts_total": bot.limits.total,
            "max_concurrency": bot.limits.max_concurrency,
        },
    }


def effective_text(shown: EffectiveApp) -> str:
    """Every value as YAML, a line for each, with a mark on those that have their default."""
    return "\n".join(_lines(shown.values, (), frozenset(shown.defaults)))


def _lines(values: dict[str, Any], under: tuple[str, ...], defaults: frozenset[str]) -> Iterator[str]:
    # Imported here: only this text needs it.
    import yaml

    indent = "  " * len(under)
    for key, value in values.items():
        path = (*under, key)
        if isinstance(value, dict) and value and not _is_leaf(path):
            yield f"{indent}{key}:"
            yield from _lines(value, path, defaults)
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
        mark = "   # default" if ".".join(path) in defaults else ""
        yield f"{indent}{key}: {text.removesuffix(chr(10)).removesuffix(chr(10) + '...')}{mark}"


def _is_leaf(path: tuple[str, ...]) -> bool:
    return path[0] in ("token", "presence") or path[:2] in (("events", "lanes"), ("events", "prefixes"))
