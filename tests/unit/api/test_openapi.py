"""The OpenAPI document and the reference page follow from the table of routes."""

import re
from pathlib import Path

import pytest

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.api.live.event_stream import EVENT_STREAM
from sandwich_node.api.openapi import VARIABLES, codes_of, document, operation_id
from sandwich_node.api.problem_details import KINDS
from sandwich_node.api.reference import page
from sandwich_node.api.routing import Route
from sandwich_node.api.server import FOLLOW_S_MAX
from sandwich_node.api.table import ROUTES
from tests.support.api import api_over

REFERENCE = Path(__file__).parents[3] / "docs/reference/http-api.md"
every_route = pytest.mark.parametrize("route", ROUTES, ids=operation_id)
DOCUMENT = document(ROUTES, "1")


def test_the_reference_page_is_that_of_the_table() -> None:
    made = page(ROUTES)
    assert REFERENCE.read_text() == made, "python -m sandwich_node.api.reference > docs/reference/http-api.md"


def test_every_route_has_its_own_place() -> None:
    places = [(route.method, route.path) for route in ROUTES]
    assert len(places) == len(set(places)) == len({operation_id(route) for route in ROUTES})


@every_route
def test_every_status_of_a_route_is_documented_with_an_example(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    statuses = set(operation["responses"])
    assert {str(KINDS[code].status) for code in codes_of(route)} <= statuses
    assert "500" in statuses
    assert ("401" in statuses) == (route.role is not None)
    for status, answer in operation["responses"].items():
        for kind, content in answer.get("content", {}).items():
            if kind in ("application/json", "application/problem+json"):
                assert "example" in content, status
    role = "no identity" if route.role is None else route.role.label
    assert role in operation["description"]


@every_route
def test_the_headers_of_a_route_are_those_that_it_takes(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    patterns = {
        one["name"]: one["schema"].get("pattern", "") for one in operation["parameters"] if one["in"] == "header"
    }
    streams = route.media_type == EVENT_STREAM or route.path == "/snapshot"
    assert ("If-None-Match" in patterns) == ("304" in operation["responses"]) == (route.method == "GET" and not streams)
    assert ("Idempotency-Key" in patterns) == (route.method != "GET")
    assert ("If-Match" in patterns) == route.is_conditional
    assert ("Prefer" in patterns) == route.takes_time
    if route.takes_time:
        assert re.search(patterns["Prefer"], f"wait={FOLLOW_S_MAX:g}")
    assert "busy" in operation["responses"]["503"]["description"]


@every_route
def test_the_examples_of_a_route_are_valid(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    if route.body is not None:
        route.body.model_validate(operation["requestBody"]["content"]["application/json"]["example"])
    if route.result is not None:
        example = operation["responses"][str(route.status)]["content"]["application/json"]["example"]
        route.result.model_validate(example)
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            assert parameter["name"] in VARIABLES


async def test_the_document_needs_no_identity() -> None:
    async with api_over(MemoryStore()) as api:
        api.identity = Identity("anonymous", "", None)
        status, found = await api("GET", "/openapi.json")
    assert (status, found["openapi"]) == (200, "3.1.0")
    assert set(found["paths"]) == {route.path for route in ROUTES}
