"""What the leader asks Discord about a token, and what it may ask with."""

import asyncio
from dataclasses import replace

import pytest

from sandwich_coordinator.discord_api import CurrentUser, GatewayBot
from sandwich_coordinator.sealing import ClusterKey, SealingError
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node.agent.configuration import secret_opener
from sandwich_node.agent.token_lookup import TokenLookup


class FakeDiscord:
    """Answers each request and keeps the tokens that it was asked with."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def gateway_bot(self, token: str) -> GatewayBot:
        self.tokens.append(token)
        return GatewayBot(url="wss://g", shards=2, total=1000, remaining=7, reset_after_s=60.0, max_concurrency=1)

    async def current_user(self, token: str) -> CurrentUser:
        self.tokens.append(token)
        return CurrentUser(id="9", name="bot")


def lookup(discord: FakeDiscord, key: ClusterKey | None, token: str) -> TokenLookup:
    record = AppRecord(app="bot", token=token, token_hash="h", intents=1)
    view = replace(ClusterView(keys=Keys()), apps={"bot": Entry(record, 1, 1, 0)})
    return TokenLookup(discord, view=lambda: view, open_secret=secret_opener(key), wall=lambda: 100.0)


def test_the_budget_of_a_token_has_the_reset_as_a_time_and_the_user_of_the_bot() -> None:
    discord = FakeDiscord()
    budget = asyncio.run(lookup(discord, None, "plain:t").budget("bot"))
    assert (budget.url, budget.remaining, budget.fetched_at, budget.reset_at) == ("wss://g", 7, 100.0, 160.0)
    assert (budget.bot_id, budget.bot_name) == ("9", "bot")
    assert discord.tokens == ["t", "t"]


def test_discord_is_not_asked_for_an_application_that_is_gone_or_has_a_token_that_cannot_be_opened() -> None:
    discord = FakeDiscord()
    with pytest.raises(ValueError, match="gone"):
        asyncio.run(lookup(discord, None, "plain:t").budget("other"))
    with pytest.raises(ValueError, match="no cluster key"):
        asyncio.run(lookup(discord, None, "v1:sealed:token").budget("bot"))
    assert discord.tokens == []


def test_a_node_with_a_cluster_key_takes_no_secret_that_is_stored_in_plain() -> None:
    assert secret_opener(None)("bot", "plain:t") == "t"
    key = ClusterKey.generate()
    with pytest.raises(SealingError):
        secret_opener(key)("bot", "plain:t")
    assert secret_opener(key)("bot", key.seal("bot", "t")) == "t"
