"""Asking a node over HTTP: the request is signed, and the answer must be its own (`access.node_signatures`)."""

import asyncio
import os
import time
from collections.abc import Mapping

import aiohttp
from yarl import URL

from sandwich_coordinator.access.node_signatures import ANSWER_HEADER, authorization, is_answer, nonce_at
from sandwich_coordinator.addresses import node_url
from sandwich_coordinator.network_errors import network_words
from sandwich_coordinator.types import NodeRecord

TIMEOUT_S = 1.0
BYTES_MAX = 32 * 1024 * 1024


class NodeSilent(Exception):
    """A node did not answer; the message says why, in words for an operator."""


class NotAuthentic(NodeSilent):
    """The answer is not the node's. `body`: what was said there, by whoever it is."""

    def __init__(self, body: bytes) -> None:
        super().__init__("its answer is not authentic")
        self.body = body


async def ask_node(
    http: aiohttp.ClientSession,
    record: NodeRecord,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
    bytes_max: int = BYTES_MAX,
) -> bytes:
    """The body of a node's answer to GET `path`. A node of an older version has no key: it is asked plainly.

    Raises NodeSilent.
    """
    try:
        # What a reverse proxy in front of the node takes off is not signed.
        wanted = URL(path).with_query(query).raw_path_qs
        url = URL(f"{node_url(record.address, record.tls)}{wanted}", encoded=True)
        nonce, headers = nonce_at(int(time.time() * 1000), os.urandom(16)), {}
        if record.status_key:
            headers["Authorization"] = authorization(record.status_key, "GET", wanted, nonce)
        async with (
            asyncio.timeout(timeout_s),
            # Pinned: a certificate that this node made for itself is as good as one of a CA.
            http.get(url, headers=headers, allow_redirects=False, ssl=_pinned(record.tls)) as response,
        ):
            body = await _body(response, bytes_max)
    except aiohttp.ServerFingerprintMismatch:
        raise NodeSilent("its TLS certificate is not the one that it registered") from None
    except TimeoutError:
        raise NodeSilent(f"no answer in {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NodeSilent(network_words(error)) from None
    except ValueError:
        raise NodeSilent("its address cannot be used") from None
    mac = response.headers.get(ANSWER_HEADER, "")
    if record.status_key and not is_answer(record.status_key, nonce, response.status, body, mac):
        if response.status == 200:
            raise NotAuthentic(body)
        raise NodeSilent(f"HTTP {response.status}, and the answer is not authentic")
    if response.status != 200:
        raise NodeSilent(f"HTTP {response.status}")
    return body


def _pinned(fingerprint: str) -> aiohttp.Fingerprint | bool:
    return aiohttp.Fingerprint(bytes.fromhex(fingerprint)) if fingerprint else True


async def _body(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise NodeSilent("its answer is too large")
    return bytes(body)
