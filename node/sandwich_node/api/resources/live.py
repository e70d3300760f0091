"""The streams: what changes in the cluster, and what its applications publish."""

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.event_filter import EventFilter
from sandwich_node.api.live.cluster_changes import Scope
from sandwich_node.api.live.event_stream import EVENT_STREAM
from sandwich_node.api.models import Model
from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.routing import Call, Route, Stream

TAG = "live"
_ID = r"^([0-9]{1,20})?$"


class ChangesQuery(Model):
    """Where to go on. Browsers send the header `Last-Event-ID` instead when they connect again."""

    last_event_id: str = Field(default="", max_length=64, description="The id of the last event that was read.")


async def _changes(call: Call) -> Stream:
    live = call.cluster.live_parts()
    live.changes.places.check()
    after = call.headers.get("last-event-id", "")[:64] or call.query.last_event_id
    return Stream(live.changes.read(Scope.of(call.identity), after), EVENT_STREAM)


class EventsQuery(Model):
    """Which events. `type`: names, with commas between; `GUILD_*` is every name that begins so."""

    app: str = Field(max_length=64, description="The application.")
    type: str = Field(default="", max_length=1000, description="Only these types, such as MESSAGE_*,GUILD_CREATE.")
    guild: str = Field(default="", pattern=_ID, description="Only events of this guild.")
    channel: str = Field(default="", pattern=_ID, description="Only events of this channel.")
    user: str = Field(default="", pattern=_ID, description="Only events by or about this user.")
    text: str = Field(default="", max_length=256, description="Only events whose text has this, in any case.")


async def _events(call: Call) -> Stream:
    query: EventsQuery = call.query
    live, apps = call.cluster.live_parts(), call.cluster.view().apps
    if query.app not in apps or not call.identity.sees(query.app):
        raise ApiError("not-found", f"there is no application {query.app}")
    live.events.places.check()
    wanted = EventFilter(
        types=frozenset(kind.strip().upper() for kind in query.type.split(",") if kind.strip()),
        guild=query.guild,
        channel=query.channel,
        user=query.user,
        text=query.text,
    )
    return Stream(await live.events.watch(query.app, wanted), EVENT_STREAM)


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
    Route(
        method="GET",
        path="/events",
        summary="Events of an application as they are published, as server-sent events",
        description=(
            "From now on: `event` has an event as it is in the application's stream. `gap`: events were lost. "
            "`skipped`: so many were left out, because there are more than 100 a second or they are read too slowly. "
            "For watching; a bot reads the stream itself. Events hold what people write: hence the role."
        ),
        role=Role.OPERATOR,
        handler=_events,
        tag=TAG,
        query=EventsQuery,
        media_type=EVENT_STREAM,
        errors=("not-found", "unavailable", "refused"),
    ),
)
