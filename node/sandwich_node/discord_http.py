"""The HTTP session for Discord: its REST API and its gateway, directly or through a proxy."""

import aiohttp

from sandwich_coordinator.network_errors import Redirected


def no_redirects() -> aiohttp.TraceConfig:
    """A trace that refuses redirects: `ws_connect` follows redirects and has no option against it."""

    async def refuse(*_: object) -> None:
        raise Redirected

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


def discord_session(proxy: str = "") -> aiohttp.ClientSession:
    """A session of the running loop. `proxy`: an http:// or https:// URL; "": none, whatever the environment says.

    Names are resolved by the loop alone (`names.py`), whatever resolver is installed. Through a proxy TLS reaches from
    here to Discord (CONNECT): the proxy sees host names and no token. A redirect is an error: a token goes only where
    the configuration says.
    """
    connector = aiohttp.TCPConnector(limit=0, resolver=aiohttp.ThreadedResolver(), use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector, proxy=proxy or None, trust_env=False, trace_configs=[no_redirects()]
    )
