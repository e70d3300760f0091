"""A minimal gateway client for tests. It shows each payload as received."""

import zlib
from typing import Any, Self

import aiohttp
import msgspec
import zstandard

DEADLINE_S = 30.0


class GatewayClient:
    """One socket to the gateway. `receive` returns the next payload as a dict, or raises Closed."""

    def __init__(self, url: str, *, compress: str = "", query: str = "v=10&encoding=json", path: str = "/") -> None:
        self._url = f"{url}{path}?{query}" + (f"&compress={compress}" if compress else "")
        self._zlib = zlib.decompressobj()
        self._zstd = zstandard.ZstdDecompressor().decompressobj()
        self._compress = compress
        self.raw: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        self.socket = await self._http.ws_connect(self._url, max_msg_size=0, compress=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close(code=4000)
        await self._http.close()

    async def receive(self) -> dict[str, Any]:
        message = await self.socket.receive(timeout=DEADLINE_S)
        if message.type is aiohttp.WSMsgType.TEXT:
            data = message.data.encode()
        elif message.type is aiohttp.WSMsgType.BINARY:
            data = self._inflate(message.data)
        else:
            raise Closed(self.socket.close_code)
        self.raw.append(data)
        decoded: dict[str, Any] = msgspec.json.decode(data)
        return decoded

    def _inflate(self, data: bytes) -> bytes:
        if self._compress == "zstd-stream":
            return self._zstd.decompress(data)
        return self._zlib.decompress(data) if self._compress == "zlib-stream" else zlib.decompress(data)

    async def until(self, name: str) -> dict[str, Any]:
        """The next dispatch of this name (or control payload `op<N>`); skips payloads before it."""
        while True:
            payload = await self.receive()
            if name in (payload["t"], f"op{payload['op']}"):
                return payload

    async def close_code(self) -> int | None:
        """Reads until the server closes; returns the close code."""
        try:
            while True:
                await self.receive()
        except Closed as closed:
            return closed.code

    async def send(self, op: int, d: Any) -> None:
        await self.socket.send_bytes(msgspec.json.encode({"op": op, "d": d}))

    async def identify(self, token: str, *, shard: tuple[int, int] | None = None, **fields: Any) -> None:
        await self.send(2, identify_payload(token, shard=shard, **fields))

    async def resume(self, token: str, session_id: str, seq: int) -> None:
        await self.send(6, {"token": token, "session_id": session_id, "seq": seq})


class Closed(Exception):
    """The server closed."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


def identify_payload(token: str, *, shard: tuple[int, int] | None = None, **fields: Any) -> dict[str, Any]:
    """The `d` of IDENTIFY, by default with all intents."""
    d: dict[str, Any] = {"token": token, "properties": {"os": "linux", "browser": "test", "device": "test"}}
    d |= {"intents": 53608447} | fields
    return d | ({"shard": list(shard)} if shard else {})
