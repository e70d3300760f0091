"""Nodes that answer an application's requests over NATS, for tests of the HTTP API."""

import json
from typing import Any

import msgspec
from nats.aio.msg import Msg

from sandwich_sdk.wire.rpc import RpcError, encode_error, encode_result

GUILD, USER = "81384788765712384", "80351110224678912"
OTHER = "81384788765712385"


class Cluster:
    """Answers requests of applications as nodes do, on one NATS.

    requests  those that it got
    error     of every answer; None: of none
    errors    of the answers of an application
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.error: RpcError | None = None
        self.errors: dict[str, RpcError] = {}

    async def answer(self, message: Msg) -> None:
        _, app, _, verb = message.subject.split(".")
        self.requests.append((app, verb, json.loads(message.data)))
        try:
            answer = encode_result(msgspec.json.encode(self._result(app, verb)))
        except RpcError as error:
            answer = encode_error(error)
        await message.respond(answer)

    def _result(self, app: str, verb: str) -> Any:
        if (error := self.error or self.errors.get(app)) is not None:
            raise error
        if verb == "where_is_guild" and app == "music":
            raise RpcError("not_found", "application music is not in this guild")
        found: dict[str, Any] = {
            "where_is_guild": {"group": 0, "shard": 1, "bot": "1"},
            "mutual_guilds": {app: [GUILD] if app == "music" else [OTHER, GUILD]},
            "fetch_guild": {"id": GUILD, "name": "Discord Testers", "icon": "abc"},
            "fetch_channels": [{"id": "1", "name": "general"}],
            "fetch_role": {"id": "7", "name": "mods"},
            "fetch_members": {"members": [{"user": {"id": USER}}], "complete": True},
            "fetch_user": {"id": USER, "username": "ada"},
            "permissions": {"permissions": "8"},
            "request_members": {"members": [], "presences": [], "not_found": [], "count": 3},
            "request_sounds": {"guild_id": GUILD, "soundboard_sounds": []},
            "request_channel_info": {"guild_id": GUILD, "channels": []},
            "update_presence": {"shards": 4, "failed": {"2": "closed"}},
            "update_voice_state": {"state": {}, "server": {}},
            "relay": {"id": "own:1"},
        }
        if verb not in found:
            raise RpcError("not_found", "it is not in the cache")
        return found[verb]
