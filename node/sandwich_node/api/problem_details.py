"""Errors as RFC 9457 problem details. A code is stable; its text may change. Pure."""

from dataclasses import dataclass

import msgspec
from pydantic import ValidationError

from sandwich_coordinator.config_mistakes import dotted, mistake_text
from sandwich_coordinator.operations import errors
from sandwich_coordinator.sealing import SealingError
from sandwich_coordinator.store.base import StoreAmbiguous, StoreError
from sandwich_node.api.models import FieldError, ProblemDetails
from sandwich_node.logs import redact
from sandwich_sdk.wire.plain_text import plain_lines, plain_text

URN = "urn:sandwich:error:"
DETAIL_MAX = 2000


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    title: str


KINDS = {
    "malformed": _Kind(400, "The request cannot be read"),
    "unauthenticated": _Kind(401, "Who asks is not known"),
    "forbidden": _Kind(403, "This identity may not do that"),
    "not-found": _Kind(404, "There is no such thing"),
    "method-not-allowed": _Kind(405, "The resource does not have this method"),
    "too-slow": _Kind(408, "The request did not arrive in time"),
    "refused": _Kind(409, "Not as things are now"),
    "conflict": _Kind(409, "Another writer was first"),
    "in-progress": _Kind(409, "The same request is being carried out"),
    "stale": _Kind(412, "The resource has changed since it was read"),
    "too-large": _Kind(413, "The request is too large"),
    "media-type": _Kind(415, "The body must be JSON"),
    "invalid": _Kind(422, "A value cannot be used"),
    "too-many-requests": _Kind(429, "Too many requests"),
    "internal": _Kind(500, "The node failed at this request"),
    "busy": _Kind(503, "The node has too much to do"),
    "unavailable": _Kind(503, "A server that is needed does not answer"),
    "outcome-unknown": _Kind(503, "Whether the change was made is unknown"),
    "not-reached": _Kind(504, "Stored, and not reached yet"),
    "no-answer": _Kind(504, "What was asked did not answer in time"),
}


UNKNOWN = frozenset({"outcome-unknown", "no-answer", "internal"})
"""Codes of a change that may have been made."""


class ApiError(Exception):
    """Ends a request. `code`: one of `KINDS`. `retry_after_s`: sent as Retry-After; None: it is not."""

    def __init__(
        self, code: str, detail: str, fields: tuple[FieldError, ...] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fields = fields
        self.retry_after_s = retry_after_s


_OF_OPERATIONS: tuple[tuple[type[Exception], str], ...] = (
    (errors.Stale, "stale"),
    (errors.Conflict, "conflict"),
    (errors.Refused, "refused"),
    (errors.Invalid, "invalid"),
    (errors.NotFound, "not-found"),
    (errors.OutcomeUnknown, "outcome-unknown"),
    (errors.Unavailable, "unavailable"),
    (errors.NotReached, "not-reached"),
    (SealingError, "refused"),
    (StoreAmbiguous, "outcome-unknown"),
    (StoreError, "unavailable"),
    (msgspec.MsgspecError, "refused"),
)
EXPECTED = (errors.OperationError, SealingError, StoreError, msgspec.MsgspecError, ApiError, ValidationError)
"""What a handler may raise. Anything else is a fault of ours: 500, logged."""


def code_of(error: Exception) -> str:
    """The code of an error of an operation."""
    if isinstance(error, ApiError):
        return error.code
    if isinstance(error, ValidationError):
        return "invalid"
    return next((code for kind, code in _OF_OPERATIONS if isinstance(error, kind)), "internal")


def problem_details(error: Exception) -> ProblemDetails:
    """The error as the answer's body. What is not expected says nothing of its cause."""
    code = code_of(error)
    fields: list[FieldError] = []
    if isinstance(error, ApiError):
        fields, detail = list(error.fields), error.detail
    elif isinstance(error, ValidationError):
        fields, detail = field_errors(error), "a value cannot be used"
    else:
        detail = str(error) if code != "internal" else "an internal error; see the node's log"
        if isinstance(error, errors.OperationError) and error.field:
            fields = [FieldError(path=error.field, message=redact(plain_lines(detail))[:DETAIL_MAX])]
    kind = KINDS[code]
    return ProblemDetails(
        type=URN + code,
        title=kind.title,
        status=kind.status,
        code=code,
        detail=redact(plain_lines(detail))[:DETAIL_MAX],
        errors=fields,
    )


def field_errors(error: ValidationError) -> list[FieldError]:
    """What is wrong with each value. A value is never repeated: it may be a secret."""
    return [
        FieldError(
            path=redact(plain_text(dotted(found["loc"])))[:DETAIL_MAX],
            message="unknown key" if found["type"] == "extra_forbidden" else plain_text(mistake_text(found)),
        )
        for found in error.errors(include_url=False, include_input=False)
    ]
