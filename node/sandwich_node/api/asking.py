"""Requests of the API to the cluster's own RPC over NATS: any node may be asked, and the right one answers."""

from typing import TYPE_CHECKING, Any

from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.routing import Call

if TYPE_CHECKING:
    from sandwich_sdk.wire.rpc import RpcError

TIMEOUT_S = 5.0
_CODES = {
    "invalid": "invalid",
    "not_found": "not-found",
    "refused": "refused",
    "limited": "too-many-requests",
    "unavailable": "unavailable",
    "timeout": "no-answer",
}
"""From the code of wire contract version 1 (docs/guide/rpc.md) to that of the API."""
ERRORS = tuple(sorted(set(_CODES.values())))
"""What a route that asks can raise."""


async def ask(call: Call, app: str, verb: str, *, timeout_s: float = TIMEOUT_S, **fields: Any) -> Any:
    """The result of one request. Raises ApiError, and Unavailable when NATS does not answer."""
    # Imported here: an agent whose API is not asked for this does not load it.
    from sandwich_sdk.rpc import NotServed, Rpc
    from sandwich_sdk.wire.rpc import RpcError

    async with call.cluster.messaging.client() as client:
        try:
            # `timeout` goes to the cluster with the verbs that take one.
            return await Rpc(app=app, client=client, timeout=timeout_s).ask(verb, **fields)
        except NotServed:
            # The cluster has it: that no shard runs says nothing of what was asked for.
            raise ApiError("unavailable", f"no node serves {app} now: sandwich app list shows its shards") from None
        except RpcError as error:
            raise _problem(error) from None


def _problem(error: "RpcError") -> ApiError:
    return ApiError(_CODES.get(error.code, "unavailable"), error.message, retry_after_s=error.retry_after)
