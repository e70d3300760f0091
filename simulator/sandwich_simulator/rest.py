"""The part of Discord's REST API that a gateway client needs, under /api/v10 (and /api/v9)."""

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from .actions.invites import drop_expired
from .clock import Now
from .entities import Json
from .gateway import Bot, Event, Gateway
from .identify_rules import bare_token
from .intents import GUILD_MEMBERS, GUILD_PRESENCES, MESSAGE_CONTENT
from .mix import ActionContext, message_of
from .oauth2 import OAuth2
from .rest_rules import RestLimits, Verdict
from .visibility import MANAGE_CHANNELS, MANAGE_GUILD, VIEW_AUDIT_LOG, permissions_of
from .world import GuildState

CONTENT_CHARACTERS_MAX = 2000
_FLAGS = {GUILD_PRESENCES: 1 << 12, GUILD_MEMBERS: 1 << 14, MESSAGE_CONTENT: 1 << 18}
Handler = Callable[[Bot, web.Request, Now], Awaitable[Any]]
METADATA = frozenset({"uses", "max_uses", "max_age", "temporary", "created_at"})


class ApiError(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"message": message, "code": code}


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response. Discord names the type without a charset, and discord.py compares it literally."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def application(bot: Bot) -> Json:
    """The application object; its flags show the granted privileged intents."""
    flags = sum(flag for bit, flag in _FLAGS.items() if bot.config.allowed_intents & bit)
    owner = bot.world.person(0)
    return {
        "id": bot.id,
        "name": bot.config.name,
        "icon": None,
        "description": "",
        "summary": "",
        "type": None,
        "bot_public": True,
        "bot_require_code_grant": False,
        "verify_key": "0" * 64,
        "flags": flags,
        "owner": owner,
        "team": None,
        "rpc_origins": [],
        "tags": [],
        "redirect_uris": [],
        "interactions_endpoint_url": None,
        "role_connections_verification_url": None,
        "approximate_guild_count": len(bot.world.guild_ids),
    }


def shown_invite(guild: GuildState, invite: Json, *, metadata: bool) -> Json:
    """An invite in the format of the REST lists."""
    channel = guild.channels[invite["channel_id"]]
    shown = ("id", "name", "splash", "banner", "description", "icon", "features", "verification_level")
    more = ("vanity_url_code", "nsfw_level", "premium_subscription_count")
    return {
        **{key: value for key, value in invite.items() if metadata or key not in METADATA},
        "guild": {key: guild.base[key] for key in (*shown, *more)},
        "channel": {key: channel[key] for key in ("id", "name", "type")},
    }


def png(colour: bytes, size: int = 64) -> bytes:
    """A square image of one colour (red, green and blue as bytes)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = (b"\0" + colour * size) * size
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class RestApi:
    """The routes. Each request is checked for its token, rate limits and active faults."""

    def __init__(self, gateway: Gateway, clock: Callable[[], Now], oauth2: OAuth2) -> None:
        self._gateway = gateway
        self._clock = clock
        self._oauth2 = oauth2
        self._limits = RestLimits()

    def add_to(self, app: web.Application) -> None:
        """Registers the routes."""
        routes: dict[str, Handler] = {
            "GET /gateway/bot": self._gateway_bot,
            "GET /users/@me": self._me,
            "GET /applications/@me": self._application,
            "GET /oauth2/applications/@me": self._application,
            "GET /guilds/{guild}": self._guild,
            "GET /guilds/{guild}/invites": self._invites,
            "GET /guilds/{guild}/vanity-url": self._vanity_url,
            "GET /channels/{channel}/invites": self._channel_invites,
            "GET /channels/{channel}/messages": self._messages,
            "POST /channels/{channel}/messages": self._post_message,
        }
        for version in ("v10", "v9"):
            app.router.add_get(f"/api/{version}/gateway", self._open_gateway)
            for route, handler in routes.items():
                method, path = route.split(" ")
                app.router.add_route(method, f"/api/{version}{path}", self._wrap(route, handler))
        app.router.add_route("*", "/api/{tail:.*}", self._not_found)
        app.router.add_get("/avatars/{user}/{hash:[0-9a-f]{32}}.png", self._avatar)

    def _fault(self, request: web.Request) -> web.Response | None:
        status = self._gateway.faults.http_status(_path_of(request), self._clock().mono)
        return None if status is None else json_response({"message": "fault", "code": 0}, status=status)

    async def _not_found(self, request: web.Request) -> web.Response:
        return self._fault(request) or json_response({"message": "404: Not Found", "code": 0}, status=404)

    async def _avatar(self, request: web.Request) -> web.Response:
        """In place of cdn.discordapp.com: a square in the colour that the hash begins with."""
        colour = bytes.fromhex(request.match_info["hash"][:6])
        return web.Response(body=png(colour), content_type="image/png")

    async def _open_gateway(self, request: web.Request) -> web.Response:
        return self._fault(request) or json_response({"url": self._gateway.url})

    def _wrap(self, route: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            half_s = self._gateway.faults.http_delay_s(_path_of(request), self._clock().mono) / 2
            await asyncio.sleep(half_s)
            answer = await self._answer(route, handler, request)
            await asyncio.sleep(half_s)
            return answer

        return handle

    async def _answer(self, route: str, handler: Handler, request: web.Request) -> web.Response:
        if (fault := self._fault(request)) is not None:
            return fault
        if route == "GET /users/@me" and self._oauth2.is_of_user(request):
            return await self._oauth2.me(request)
        now = self._clock()
        bot = self._gateway.bot_of_token(bare_token(request.headers.get("Authorization", "")))
        if bot is None:
            return json_response({"message": "401: Unauthorized", "code": 0}, status=401)
        verdict = self._judge(bot, route, request, now)
        if not verdict.allowed:
            body = {
                "message": "You are being rate limited.",
                "retry_after": round(verdict.retry_after_s, 3),
                "global": verdict.is_global,
            }
            self._gateway.note("violation", "rest_429", now=now, bot=bot, detail=route)
            return json_response(body, status=429, headers=verdict.headers)
        try:
            answer = await handler(bot, request, now)
        except ApiError as error:
            return json_response(error.body, status=error.status, headers=verdict.headers)
        return json_response(answer, headers=verdict.headers)

    def _judge(self, bot: Bot, route: str, request: web.Request, now: Now) -> Verdict:
        if not self._gateway.config.rest_limits:
            return Verdict(True, 0.0, False, {})
        major = next(iter(request.match_info.values()), "")
        return self._limits.judge(who=bot.id, route=route, major=major, now=now.mono, wall_s=now.wall_ns / 1e9)

    async def _gateway_bot(self, bot: Bot, request: web.Request, now: Now) -> Json:
        return {
            "url": self._gateway.url,
            "shards": bot.config.recommended_shards,
            "session_start_limit": {
                "total": bot.budget.limit,
                "remaining": bot.budget.remaining(now.mono),
                "reset_after": bot.budget.reset_after_ms(now.mono),
                "max_concurrency": bot.config.max_concurrency,
            },
        }

    async def _me(self, bot: Bot, request: web.Request, now: Now) -> Json:
        return bot.world.me | {"verified": True, "mfa_enabled": True, "flags": 0, "locale": "en-US", "email": None}

    async def _application(self, bot: Bot, request: web.Request, now: Now) -> Json:
        return application(bot)

    def _find_guild(self, bot: Bot, request: web.Request) -> GuildState:
        name = request.match_info["guild"]
        if not name.isdecimal() or not bot.world.has_guild(int(name)):
            raise ApiError(404, "Unknown Guild", 10004)
        return bot.world.guild(int(name))

    async def _guild(self, bot: Bot, request: web.Request, now: Now) -> Json:
        guild = self._find_guild(bot, request)
        lists = {name: list(getattr(guild, name).values()) for name in ("roles", "emojis", "stickers")}
        return guild.base | lists

    async def _invites(self, bot: Bot, request: web.Request, now: Now) -> list[Json]:
        guild = self._find_guild(bot, request)
        held = self._need(bot, guild, MANAGE_GUILD | VIEW_AUDIT_LOG)
        drop_expired(guild, now.wall_ms)
        return [shown_invite(guild, i, metadata=bool(held & MANAGE_GUILD)) for i in guild.invites.values()]

    async def _channel_invites(self, bot: Bot, request: web.Request, now: Now) -> list[Json]:
        guild, channel_id = self._find_channel(bot, request), request.match_info["channel"]
        if not guild.sees(bot.id, channel_id):
            raise ApiError(403, "Missing Access", 50001)
        self._need(bot, guild, MANAGE_CHANNELS)
        drop_expired(guild, now.wall_ms)
        found = [invite for invite in guild.invites.values() if invite["channel_id"] == channel_id]
        return [shown_invite(guild, invite, metadata=True) for invite in found]

    async def _vanity_url(self, bot: Bot, request: web.Request, now: Now) -> Json:
        guild = self._find_guild(bot, request)
        self._need(bot, guild, MANAGE_GUILD)
        return {"code": guild.base["vanity_url_code"], "uses": guild.vanity_uses}

    def _need(self, bot: Bot, guild: GuildState, any_of: int) -> int:
        """The bot's permissions in the guild. Raises ApiError when it has none of `any_of`."""
        held = permissions_of(guild, bot.id)
        if not held & any_of:
            raise ApiError(403, "Missing Permissions", 50013)
        return held

    def _find_channel(self, bot: Bot, request: web.Request) -> GuildState:
        channel_id = request.match_info["channel"]
        guild = bot.world.guild_of_channel(channel_id)
        if guild is None:
            raise ApiError(404, "Unknown Channel", 10003)
        return guild

    async def _messages(self, bot: Bot, request: web.Request, now: Now) -> list[Json]:
        guild, channel_id = self._find_channel(bot, request), request.match_info["channel"]
        return [message for message in reversed(guild.messages) if message["channel_id"] == channel_id]

    async def _post_message(self, bot: Bot, request: web.Request, now: Now) -> Json:
        guild, channel_id = self._find_channel(bot, request), request.match_info["channel"]
        content = await _content_of(request)
        action = ActionContext(bot.world, guild, bot.world.rng, now.wall_ms)
        message = message_of(action, channel_id, bot.id, content)
        self._gateway.publish(bot, Event("MESSAGE_CREATE", message, int(guild.id)), now)
        return {key: value for key, value in message.items() if key not in ("guild_id", "member")}


def _path_of(request: web.Request) -> str:
    return request.path.removeprefix("/api/v10").removeprefix("/api/v9")


async def _content_of(request: web.Request) -> str:
    try:
        body = msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise ApiError(400, "The request body contains invalid JSON.", 50109) from error
    content = body.get("content") if isinstance(body, dict) else None
    if not isinstance(content, str) or not 0 < len(content) <= CONTENT_CHARACTERS_MAX:
        raise ApiError(400, "Cannot send an empty message", 50006)
    return content
