"""What Discord says about an application's token: how to connect, how many session starts are left, whose it is."""

from collections.abc import Callable

from sandwich_coordinator.sealing import SealingError
from sandwich_coordinator.types import BudgetRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.configuration import OpenSecret
from sandwich_node.agent.dependencies import DiscordApi


class TokenLookup:
    """Asks for the leader. `open_secret` unseals tokens; `wall` gives Unix seconds."""

    def __init__(
        self,
        discord: DiscordApi,
        *,
        view: Callable[[], ClusterView | None],
        open_secret: OpenSecret,
        wall: Callable[[], float],
    ) -> None:
        self._discord = discord
        self._view = view
        self._open_secret = open_secret
        self._wall = wall

    async def budget(self, app: str) -> BudgetRecord:
        """The budget of an application's token. Raises DiscordApiError; ValueError when the token cannot be read."""
        view = self._view()
        record = view.apps[app].record if view is not None and app in view.apps else None
        if record is None:
            raise ValueError("the application is gone")
        try:
            token = self._open_secret(app, record.token)
        except SealingError as error:
            raise ValueError(str(error)) from None
        gateway = await self._discord.gateway_bot(token)
        user = await self._discord.current_user(token)
        now = self._wall()
        return BudgetRecord(
            url=gateway.url,
            shards=gateway.shards,
            total=gateway.total,
            remaining=gateway.remaining,
            reset_at=now + gateway.reset_after_s,
            max_concurrency=gateway.max_concurrency,
            fetched_at=now,
            bot_id=user.id,
            bot_name=user.name,
        )
