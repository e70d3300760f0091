"""The control API under /_sim/: the simulator's methods as JSON over HTTP. It only parses and forwards."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from .config import BotConfig, ConfigError

if TYPE_CHECKING:
    from .simulator import Simulator

JOURNAL_SLICE = 5_000
_CHANGEABLE = ("token", "recommended_shards", "max_concurrency", "allowed_intents", "remaining", "shard_multiple")
Handler = Callable[[dict[str, Any]], Awaitable[Any]]


class ControlApi:
    """Routes of one simulator."""

    def __init__(self, simulator: "Simulator") -> None:
        self._simulator = simulator

    def add_to(self, app: web.Application) -> None:
        """Registers the routes."""
        sim = self._simulator
        gets: dict[str, Handler] = {
            "stats": lambda q: sim.stats(),
            "sessions": lambda q: sim.sessions(q.get("bot")),
            "ledger": lambda q: sim.ledger(bot=q.get("bot"), kind=q.get("kind")),
            "quiescent": lambda q: sim.quiescent(),
            "guild": lambda q: sim.guild_state(q["bot"], q["guild_id"], as_seen=q.get("as") == "seen"),
            "joins": lambda q: sim.joins(q["bot"]),
            "guilds": lambda q: sim.guild_ids(q["bot"], int(q.get("shard", 0)), int(q.get("count", 1))),
        }
        posts: dict[str, Handler] = {
            "traffic": lambda b: sim.set_traffic(float(b["rate"]), b.get("bot")),
            "pause_traffic": lambda b: sim.pause_traffic(),
            "happen": lambda b: sim.act(b["bot"], int(b["events"]), b.get("seed")),
            "burst": lambda b: sim.burst(**b),
            "join": self._join,
            "invite": self._invite,
            "delete_invite": lambda b: sim.delete_invite(**b),
            "permit": lambda b: sim.permit(**b),
            "emit": self._emit,
            "raw": self._raw,
            "faults": lambda b: sim.fault(b.pop("kind"), **b),
            "bots": self._bots,
            "gateway": lambda b: sim.set_gateway(**b),
            "login": self._login,
        }
        for name, handler in gets.items():
            app.router.add_get(f"/_sim/{name}", _wrap(handler))
        for name, handler in posts.items():
            app.router.add_post(f"/_sim/{name}", _wrap(handler))
        app.router.add_get("/_sim/journal", self._journal)

    async def _login(self, body: dict[str, Any]) -> Any:
        return {"client_id": await self._simulator.set_login(**body)}

    async def _join(self, body: dict[str, Any]) -> Any:
        return {"user_id": await self._simulator.join_member(**body)}

    async def _invite(self, body: dict[str, Any]) -> Any:
        return {"code": await self._simulator.make_invite(**body)}

    async def _emit(self, body: dict[str, Any]) -> Any:
        megabytes = body.pop("big_guild_mb", None)
        if megabytes is not None:
            return {"guild_id": await self._simulator.big_guild(bot=body["bot"], megabytes=float(megabytes))}
        return await self._simulator.emit(**body)

    async def _raw(self, body: dict[str, Any]) -> int:
        encoded = body.pop("base64", None)
        data = None if encoded is None else base64.b64decode(encoded, validate=True)
        return await self._simulator.send_raw(data=data, **body)

    async def _bots(self, body: dict[str, Any]) -> Any:
        if "bot" not in body:
            return {"bot": await self._simulator.add_bot(BotConfig(**body))}
        name = body.pop("bot")
        unknown = set(body) - set(_CHANGEABLE)
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        await self._simulator.change_bot(name, **body)
        return {"bot": self._simulator.gateway.bot_named(name).id}

    async def _journal(self, request: web.Request) -> web.StreamResponse:
        gateway = self._simulator.gateway
        try:
            name = request.query.get("bot")
            bot_id = None if name is None else gateway.bot_named(name).id
            since = int(request.query.get("since", "0"))
        except (KeyError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.headers["X-Journal-Length"] = str(end := len(gateway.journal))
        await response.prepare(request)
        for start in range(since, end, JOURNAL_SLICE):
            until = min(start + JOURNAL_SLICE, end)
            lines = [msgspec.json.encode(e) for e in gateway.journal.entries(bot=bot_id, since=start, until=until)]
            if lines:
                await response.write(b"\n".join(lines) + b"\n")
        return response


def _wrap(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            body = dict(request.query) if request.method == "GET" else _object(await request.read())
            answer = await handler(body)
        except (KeyError, ValueError, TypeError, ConfigError, binascii.Error) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        document = answer if isinstance(answer, dict | list) else {"ok": True, "count": answer}
        return web.Response(body=msgspec.json.encode(document), content_type="application/json")

    return handle


def _object(body: bytes) -> dict[str, Any]:
    decoded = msgspec.json.decode(body) if body else {}
    if not isinstance(decoded, dict):
        raise ValueError("a JSON object is expected")
    return decoded
