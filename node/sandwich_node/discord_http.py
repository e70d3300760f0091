"""The HTTP session for Discord: its REST API and its gateway, directly or through a proxy."""

import aiohttp


def discord_session(proxy: str = "") -> aiohttp.ClientSession:
    """A session of the running loop. `proxy`: an http:// or https:// URL; "": none, whatever the environment says.

    Names are resolved by the loop alone (`names.py`), whatever resolver is installed. Through a proxy TLS reaches from
    here to Discord (CONNECT): the proxy sees host names and no token.
    """
    connector = aiohttp.TCPConnector(limit=0, resolver=aiohttp.ThreadedResolver(), use_dns_cache=False)
    return aiohttp.ClientSession(connector=connector, proxy=proxy or None, trust_env=False)
