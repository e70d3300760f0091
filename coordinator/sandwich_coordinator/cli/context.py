"""The stored settings, as commands read them."""

import msgspec

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.trust import check_settings

__all__ = ["CommandError", "Connection"]


def read_settings(connection: Connection, item: KeyValue, key: ClusterKey | None) -> ClusterSettings:
    """The cluster's settings as stored; with a key only if it authenticates them.

    Raises CommandError when they cannot be read, SealingError when the key is another one or another writer changed
    them.
    """
    try:
        settings = ClusterSettings.decode(item.value)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CommandError(f"the stored configuration cannot be read: {error}", 1) from None
    if key is not None:
        check_settings(settings, connection.keys.cluster, key)
    return settings
