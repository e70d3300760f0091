"""What of the environment the node passes on, and what of it the node does not use. Pure.

The node's environment may hold the cluster key, tokens and passwords, under names that the operator chooses
(`token: {env: X}`). A worker needs none: secrets come to it over its socket. So it gets the variables named here and no
other.
"""

from collections.abc import Mapping

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "NO_COLOR", "TZ", "TMPDIR", "TEMP", "TMP"),
        *("LANG", "LANGUAGE", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "JOURNAL_STREAM"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "OPENSSL_MODULES"),
        *("RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES"),
    }
)
_PREFIXES = ("LC_", "PYTHON", "MALLOC_", "GLIBC_", "COVERAGE_", "COV_CORE_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY")


def for_worker(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker process."""
    return {name: value for name, value in environment.items() if name in _NAMES or name.startswith(_PREFIXES)}


def unused_proxies(environment: Mapping[str, str]) -> list[str]:
    """The proxy variables that are set. Only their names: a proxy's URL may hold a password."""
    return sorted(name for name, value in environment.items() if name.upper() in _PROXIES and value)
