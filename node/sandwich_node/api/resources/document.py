"""The description of the API for programs."""

from functools import cache
from typing import Any

from pydantic import ConfigDict

from sandwich_node.api.models import Model
from sandwich_node.api.openapi import document
from sandwich_node.api.routing import Call, Route
from sandwich_sdk._version import __version__


class Document(Model):
    """An OpenAPI document; see https://spec.openapis.org/oas/v3.1.1."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


@cache
def whole_document() -> Document:
    """Of all routes."""
    # The table has this route, too.
    from sandwich_node.api.table import ROUTES

    return Document.model_validate(document(ROUTES, __version__))


async def _openapi(_call: Call) -> Document:
    return whole_document()


ROUTES = (
    Route(
        method="GET",
        path="/openapi.json",
        summary="This API as an OpenAPI 3.1 document",
        role=None,
        handler=_openapi,
        tag="api",
        result=Document,
    ),
)
