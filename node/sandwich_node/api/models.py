"""The base of what the API reads and writes."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Model(BaseModel):
    """Base of all models. Unknown keys are refused with their path; nothing is changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Empty(Model):
    """No fields: a route without query parameters."""


class DryRun(Model):
    """Whether to show what a change would do, and write nothing."""

    dry_run: bool = Field(default=False, description="Show what would change; write nothing.")


class PageQuery(Model):
    """The query parameters of a list."""

    limit: int = Field(default=100, ge=1, le=1000, description="At most so many items.")
    after: str = Field(default="", max_length=512, description="`next` of the page before.")


class Page(Model, Generic[T]):
    """A part of a list. `next` is the value of `after` for the following page; null on the last one."""

    items: list[T]
    next: str | None = None


class Outcome(Model):
    """How a change ended that takes time. Not `reached`: it is stored and goes on; `detail` says what is open."""

    reached: bool
    detail: str = ""
    progress: list[dict[str, Any]] = []


class FieldError(Model):
    """What is wrong with one value of a request."""

    path: str
    message: str


class ProblemDetails(Model):
    """Why a request failed (RFC 9457). `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] = []
