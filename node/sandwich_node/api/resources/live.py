"""The streams: what changes in the cluster."""

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_node.api.live.cluster_changes import Scope
from sandwich_node.api.live.event_stream import EVENT_STREAM
from sandwich_node.api.models import Model
from sandwich_node.api.routing import Call, Route, Stream

TAG = "live"


class ChangesQuery(Model):
    """Where to go on. Browsers send the header `Last-Event-ID` instead when they connect again."""

    last_event_id: str = Field(default="", max_length=64, description="The id of the last event that was read.")


async def _changes(call: Call) -> Stream:
    live = call.cluster.live_parts()
    live.changes.places.check()
    after = call.headers.get("last-event-id", "")[:64] or call.query.last_event_id
    return Stream(live.changes.read(Scope.of(call.identity), after), EVENT_STREAM)


ROUTES = (
    Route(
        method="GET",
        path="/changes",
        summary="What changes in the cluster, as server-sent events",
        description=(
            "The first event is `snapshot`, or `resumed` after a `Last-Event-ID` that any node gave; then `changes` "
            "and, every five seconds, `figures`. An id that is too old gets a snapshot. A reader that does not keep up "
            "is cut off; a stream ends after 15 minutes, and its reader connects again."
        ),
        role=Role.VIEWER,
        handler=_changes,
        tag=TAG,
        query=ChangesQuery,
        media_type=EVENT_STREAM,
        errors=("unavailable",),
    ),
)
