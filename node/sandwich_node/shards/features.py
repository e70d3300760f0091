"""What a shard does with events beside publishing them: the cache, guild prefixes, and invite tracking."""

import asyncio

from sandwich_coordinator.ids import Fence
from sandwich_node import ipc
from sandwich_node.cache.group_switch import PreviousShards
from sandwich_node.cache.handover_drain import LeftBehind
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.events.enrich import ShardEnricher
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.prefixes import GuildPrefixes
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rpc.shard import ShardCommands
from sandwich_node.shards.caching import ShardCaching
from sandwich_node.shards.intake import ShardIntake
from sandwich_node.shards.invite_tracking import ShardInviteTracking
from sandwich_node.shards.services import WorkerServices


class ShardFeatures:
    """Opens what the worker and the application's options provide, and follows changes of the options."""

    def __init__(
        self,
        start: ipc.StartShard,
        services: WorkerServices,
        intake: ShardIntake,
        publisher: ShardPublisher,
        commands: ShardCommands,
    ) -> None:
        self._start = start
        self._services = services
        self._intake = intake
        self._publisher = publisher
        self._commands = commands
        self._options = start.options
        self._caching: ShardCaching | None = None
        self._invites: ShardInviteTracking | None = None
        self._state = State.NEW

    async def open(
        self,
        config: ShardConfig,
        taken_over: Checkpoint,
        group: asyncio.TaskGroup,
        *,
        before: PreviousShards | None = None,
        was_withheld: bool = False,
    ) -> None:
        """Begin, before the first event that counts. `taken_over`: how the shard's last owner left it.

        `before`: the group that the shard's own replaces at this moment. `was_withheld`: until now the shard published
        nothing, so that no owner before followed invites.
        """
        self._open_cache(config, taken_over, before, group)
        await self._open_invites(None if was_withheld else taken_over, group)
        self._publisher.enricher = self._enricher()

    def _open_cache(
        self, config: ShardConfig, taken_over: Checkpoint, before: PreviousShards | None, group: asyncio.TaskGroup
    ) -> None:
        services, start = self._services, self._start
        if services.cache is None:
            return
        writer = CacheWriter(
            shard=start.key,
            fence=Fence(start.fence),
            bot=self._intake.bot,
            intents=start.intents,
            settings=self._options.cache,
        )
        self._caching = self._intake.caching = ShardCaching(
            writer,
            services.cache,
            config,
            services.http,
            group,
            commands=self._commands,
            send=services.send,
            rng=services.rng,
            caught_up=self._publisher.mark,
            taken_over=taken_over,
            before=before,
            state=self._state,
            room=services.room,
        )

    async def _open_invites(self, taken_over: Checkpoint | None, group: asyncio.TaskGroup) -> None:
        services = self._services
        if services.rests is None:
            return
        invites = ShardInviteTracking(self._start, services.rests, services.cache, self._intake, self._publisher, group)
        await invites.open(self._options.invites, taken_over)
        # The options and the state may have changed meanwhile.
        invites.follow(self._options.invites)
        invites.state_changed(self._state)
        self._invites = invites

    def _enricher(self) -> ShardEnricher:
        cache, rules = self._services.cache, self._intake.rules
        prefixes = None
        if cache is not None and rules.prefixes is not None:
            namespace = self._options.cache.namespace_of(self._start.key.app)
            prefixes = GuildPrefixes(cache, namespace, clock=asyncio.get_running_loop().time)
        feed = self._caching.feed if self._caching is not None else None
        return ShardEnricher(rules, feed, prefixes, self._invites.lookup if self._invites is not None else None)

    def follow(self, options: ipc.ShardOptions) -> None:
        """Follow changed options from the next event on."""
        self._options = options
        self._intake.rules = EventFilter(options.events, self._intake.bot)
        if self._caching is not None:
            self._caching.follow(options.cache)
        if self._invites is not None:
            self._invites.follow(options.invites)
        if self._publisher.enricher is not None:
            self._publisher.enricher = self._enricher()

    def gateway_moved(self, url: str) -> None:
        """The gateway has another address."""
        if self._caching is not None:
            self._caching.gateway_moved(url)

    def identify_granted(self) -> bool:
        """The shard's turn to IDENTIFY came; True when a resync of the cache takes it."""
        return self._caching is not None and self._caching.identify_granted()

    def state_changed(self, state: State) -> None:
        """The shard's connection changed its state."""
        self._state = state
        for part in self._parts:
            part.state_changed(state)

    def cache_numbers(self) -> ipc.CacheNumbers | None:
        """The cache's figures as of now; None when nothing is cached."""
        return self._caching.numbers() if self._caching is not None else None

    def invite_numbers(self) -> ipc.InviteNumbers | None:
        """Invite tracking's figures as of now; None when joins were never tracked here."""
        return self._invites.numbers() if self._invites is not None else None

    @property
    def _parts(self) -> list[ShardCaching | ShardInviteTracking]:
        return [part for part in (self._caching, self._invites) if part is not None]

    def reading_ended(self) -> None:
        """The shard reads no more: no event waits for an invite any longer."""
        if self._invites is not None:
            self._invites.part()

    async def drained(self) -> None:
        """Wait until everything is written."""
        for part in self._parts:
            await part.drained()

    def stop(self) -> None:
        """Write nothing more."""
        for part in self._parts:
            part.stop()

    def left_at(self, stored: Checkpoint) -> LeftBehind | None:
        """As `leave`, for a chain that has ended with this checkpoint."""
        return self._caching.left_at(stored) if self._caching is not None else None

    async def leave(self) -> LeftBehind | None:
        """What the cache still lacks of the stream, to be written after the shard has ended here; None for nothing."""
        return await self._caching.leave(self._publisher) if self._caching is not None else None
