"""A route as a value: what it takes, who may use it, what it returns, and the function that does it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.operations.progress import Progress, ignore
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.models import Empty, Model

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(slots=True)
class Changes:
    """What a request changed, for the audit log. No secret is ever put in."""

    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a route, after all checks.

    cluster   the cluster behind the API
    identity  who asks; its role and its scope of `{app}` are checked already
    path      the variables of the path
    query     an instance of the route's `query`
    body      an instance of the route's `body`; None when it has none
    revision  the etcd revision in `If-Match`; None without the header
    wait_s    how long the caller waits for a change that takes time (`Prefer: wait=N`, RFC 7240); 0: not at all
    report    takes the progress of a change that takes time
    follows   whether the caller gets the progress as it comes
    headers   of the request, by lower-case name
    changes   for the audit log
    client    the address that the request comes from
    """

    cluster: ApiCluster
    identity: Identity
    path: Mapping[str, str] = field(default_factory=dict)
    query: Any = None
    body: Any = None
    revision: int | None = None
    wait_s: float = 0.0
    report: Callable[[Progress], None] = ignore
    follows: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    client: str = ""

    @property
    def app(self) -> str:
        """The `{app}` of the path."""
        return self.path["app"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A result with headers: `revision` becomes the ETag, `status` replaces the route's."""

    result: Model | None
    revision: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on: chunks, written as they come. A reader that does not keep up is cut off."""

    chunks: AsyncIterator[bytes]
    content_type: str


Handler = Callable[[Call], Awaitable[Model | Reply | Stream | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One entry of the table.

    path     below `/api/v1`; variables in braces. With `{app}` the identity's scope must have that application
    role     the least role; None: no identity is needed
    cluster_wide  True: an identity that is limited to applications is refused. A change without `{app}` always is
    query    the query parameters
    body     the request's body; None: there is none
    result   the answer's body; None: none (204)
    takes_time  a change that goes on after it is stored: `Prefer: wait=N` waits for its end, and
                `Accept: application/x-ndjson` gets its progress line by line. `result` is `Outcome` for these, or a
                model with the fields of `Outcome`
    is_of_snapshot  the answer follows from the cluster's snapshot, the request's path and query, and the identity's
                role and scope: while these are the same, so is it
    media_type  of the answer, where it is not JSON: a `Stream`
    is_streamed  the answer is a `Stream` although it is JSON
    audited  which requests of a change are in the audit log: all; some, where programs send many; or none, as it only
             asks. Dry runs that are allowed never are
    """

    method: Method
    path: str
    summary: str
    role: Role | None
    handler: Handler
    tag: str
    query: type[Model] = Empty
    body: type[Model] | None = None
    result: type[Model] | None = None
    status: int = 200
    cluster_wide: bool = False
    takes_time: bool = False
    is_conditional: bool = False
    is_of_snapshot: bool = False
    media_type: str = "application/json"
    is_streamed: bool = False
    audited: Literal["all", "some", "none"] = "all"
    description: str = ""
    errors: tuple[str, ...] = ()

    @property
    def is_change(self) -> bool:
        """Whether a request can change the cluster."""
        return self.method != "GET"

    @property
    def has_etag(self) -> bool:
        """Whether an answer has an ETag: one that is read, in one piece."""
        return not self.is_change and self.media_type == "application/json" and not self.is_streamed

    @property
    def is_of_app(self) -> bool:
        """Whether the path names an application."""
        return "{app}" in self.path
