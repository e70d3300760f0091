"""The OpenAPI 3.1 document of the API, from the table of routes and its pydantic models. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from sandwich_node.api.models import Model, ProblemDetails
from sandwich_node.api.problem_details import KINDS
from sandwich_node.api.routing import Route

NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
_REF: Final = "#/components/schemas/{model}"
_VARIABLE: Final = re.compile(r"\{(\w+)\}")

DESCRIPTION: Final = """\
The HTTP API of a Sandwich cluster. Every node serves it, over the whole cluster.

Send an API token: `Authorization: Bearer TOKEN`. An identity has a role (viewer, operator, admin) and can be limited to
some applications. Times are Unix seconds; ids of Discord are strings. Errors are problem details (RFC 9457) with a
stable `code`. Lists come in pages: `next` is the value of `after` for the following page.
"""

PATH_PART_MAX: Final = 100
"""Characters of a variable in a path. An address has at most some 8,000 bytes."""

VARIABLES: Final[Mapping[str, tuple[str, str]]] = {
    "app": ("The application's name.", "welcomer"),
    "node": ("The node's name.", "a"),
    "webhook": ("The webhook's name.", "alerts"),
    "shard": ("The shard's number.", "0"),
    "group": ("The consumer group's name.", "default"),
    "number": ("The dead letter's number.", "17"),
    "guild_id": ("The guild's id.", "81384788765712384"),
    "user_id": ("The user's id.", "80351110224678912"),
    "collection": ("A collection of the guild.", "channels"),
    "token": ("The API token's id.", "k3vq7m2x"),
    "user": ("The user's id at Discord.", "80351110224678912"),
    "item_id": ("The id of an item of the collection.", "381870553235193857"),
}
"""Of paths: what they name, and an example."""

EXAMPLES: Final[Mapping[str, Any]] = {
    "app": "welcomer", "apps": ["welcomer"], "name": "welcomer", "cluster": "default", "node": "a", "nodes": ["a"],
    "leader": "a", "address": "10.0.0.5:5469", "version": "1.0.0", "versions": ["1.0.0"], "etcd_version": "3.5.21",
    "token": "MTAwMDAwMDAwMDAwMDAw.GaaaaX.not-a-real-token-0123456789", "bot_id": "80351110224678912",
    "bot_name": "Welcomer", "bot": "80351110224678912", "config": {"intents": ["GUILDS"]},
    "configuration": {"token": {"env": "WELCOMER_TOKEN"}, "intents": ["GUILDS"]},
    "effective": {"intents": ["GUILDS"], "large_threshold": 50}, "defaults": ["large_threshold"],
    "set": {"events.ignore": ["TYPING_START"]}, "path": "events.ignore", "before": [], "after": ["TYPING_START"],
    "at": 1_800_000_000.0, "since": 1_800_000_000.0, "now": 1_800_000_000.0, "started_at": 1_800_000_000.0,
    "created_at": 1_800_000_000.0, "fetched_at": 1_800_000_000.0, "reset_at": 1_800_050_000.0, "paused_at": None,
    "session_starts_reset_at": 1_800_050_000.0, "blocked_until": None, "ids": "0-3", "labels": {"zone": "eu"},
    "shards_failed": [], "pinned_to": None, "source": "b", "target": "a", "cause": "node lost", "how": "resumed",
    "code": "dead-letters", "severity": "warning", "subject": "app/welcomer", "summary": "welcomer: 3 dead letters",
    "advice": "sandwich dead list; then replay or discard them", "problems": {"critical": 0, "warning": 1, "notice": 0},
    "url": "https://discord.com/api/webhooks/123456789012345678/not-a-real-token", "host": "discord.com",
    "ends_in": "oken", "events": ["problems", "nodes"], "min_severity": "warning", "template": "", "secret": "",
    "state": "live", "phase": "active", "reason": "", "error": "", "cache": "complete", "close_code": None,
    "next": None, "change": None, "proposal": None, "progress": [], "after_": "", "guild_id": "81384788765712384",
    "user_id": "80351110224678912", "user_ids": ["80351110224678912"], "channel_id": "381870553235193857",
    "guild": "81384788765712384", "session": "5f0c9a7e", "namespace": "welcomer", "type": "MESSAGE_CREATE",
    "title": "There is no such thing", "detail": "there is no application nope", "status": 404, "start": None,
    "limit": 100, "unmet": None, "replaces": None, "warnings": [], "errors": [], "permissions": "2147483647",
}  # fmt: skip
"""By the name of a field. What is not here has an example by its type."""


def codes_of(route: Route) -> list[str]:
    """Every code of an error that the route can answer with, by status."""
    codes = {"malformed", "invalid", "internal", "busy", *route.errors}
    if route.role is not None:
        codes |= {"unauthenticated", "forbidden", "too-many-requests", "unavailable"}
    if "{" in route.path:
        codes.add("not-found")
    if route.body is not None:
        codes |= {"too-slow", "too-large", "media-type"}
    if route.is_change:
        codes |= {"refused", "conflict", "in-progress", "not-found", "outcome-unknown"}
    if route.is_conditional:
        codes.add("stale")
    if route.takes_time:
        codes.add("not-reached")
    return sorted(codes, key=lambda code: (KINDS[code].status, code))


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole document."""
    models = {model for route in routes for model in (route.body, route.result) if model is not None}
    bodies = {route.body for route in routes}
    modes: list[tuple[type[Model], Any]] = [
        (model, "validation" if model in bodies else "serialization")
        for model in sorted(models | {ProblemDetails}, key=lambda model: model.__name__)
    ]
    refs, definitions = models_json_schema(modes, ref_template=_REF)
    schemas: dict[str, Any] = definitions.get("$defs", {})
    of_model = {model: ref for (model, _), ref in refs.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of_model, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sandwich", "version": version, "description": DESCRIPTION, "license": {"name": "MIT"}},
        "servers": [{"url": "/api/v1"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "An API token."}},
        },
    }


def _operation(route: Route, refs: Mapping[Any, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    role = "Needs no identity." if route.role is None else f"Role: {route.role.label}."
    if route.cluster_wide or (route.role is not None and route.is_change and not route.is_of_app):
        role += " Not for an identity that is limited to applications."
    found: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": f"{route.description}\n\n{role}".strip(),
        "tags": [route.tag],
        "security": [] if route.role is None else [{"token": []}],
        "parameters": [*_variables(route), *_queries(route), *_headers(route)],
        "responses": _responses(route, refs, schemas),
    }
    if route.body is not None:
        schema = refs[route.body]
        found["requestBody"] = {
            "required": any(field.is_required() for field in route.body.model_fields.values()),
            "content": {JSON: {"schema": schema, "example": example_of(schema, schemas)}},
        }
    return found


def operation_id(route: Route) -> str:
    """`get_apps_app_shards` for GET /apps/{app}/shards."""
    return "_".join([route.method.lower(), *re.findall(r"\w+", route.path)])


def _variables(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": VARIABLES[name][0],
            "schema": {"type": "string", "minLength": 1, "maxLength": PATH_PART_MAX},
            "example": VARIABLES[name][1],
        }
        for name in _VARIABLE.findall(route.path)
    ]


def _queries(route: Route) -> list[dict[str, Any]]:
    schema = route.query.model_json_schema()
    found = []
    for name, declared in schema.get("properties", {}).items():
        field = _without_null(declared)
        parameter = {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": {key: value for key, value in field.items() if key not in ("title", "description")},
            "description": field.get("description", _sentence(name)),
        }
        found.append(parameter)
    return found


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A query parameter that may be left out cannot be null."""
    others = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(others) != 1:
        return dict(schema)
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**others[0], **rest}


def _sentence(name: str) -> str:
    return f"Only with this {name.replace('_', ' ')}."


def _headers(route: Route) -> list[dict[str, Any]]:
    found = []
    if route.has_etag:
        text = "An ETag: an answer that is still the same is not sent again (304)."
        found.append(("If-None-Match", text, {"type": "string"}))
    if route.is_conditional:
        text = "The ETag of the resource as it was read; the answer is 412 when it has changed since."
        found.append(("If-Match", text, {"type": "string", "pattern": '^"?[0-9]{1,18}(-[0-9a-f]{16})?"?$'}))
    if route.is_change:
        text = "The same key with the same request, within 24 hours and to any node: carried out once."
        found.append(("Idempotency-Key", text, {"type": "string", "pattern": "^[!-~]{1,255}$"}))
    if route.takes_time:
        text = (
            "`wait=N`: wait N seconds for the end of the change, at most 600, or 3600 with its progress; without it "
            "the answer comes at once."
        )
        found.append(("Prefer", text, {"type": "string", "pattern": "^wait=[0-9]{1,4}$"}))
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
        for name, text, schema in found
    ]


def _responses(route: Route, refs: Mapping[Any, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if route.result is None and route.media_type == JSON:
        found["204"] = {"description": "Done."}
    else:
        schema = refs[route.result] if route.result is not None else {}
        content = {route.media_type: {"schema": schema, "example": example_of(schema, schemas)}}
        if route.media_type != JSON:
            content = {route.media_type: {}}
        if route.takes_time:
            content[NDJSON] = {"schema": {"type": "string"}}
            found["202"] = {"description": "Stored; it goes on.", "content": {JSON: content[JSON]}}
        found[str(route.status)] = {"description": route.summary, "content": content}
        if route.status == 201:
            found["200"] = {"description": "A dry run: nothing was written.", "content": content}
    if route.has_etag:
        found["304"] = {"description": "As the ETag in If-None-Match."}
    by_status: dict[int, list[str]] = {}
    for code in codes_of(route):
        by_status.setdefault(KINDS[code].status, []).append(code)
    for status, codes in by_status.items():
        text = "; ".join(f"`{code}`: {KINDS[code].title}" for code in codes)
        problem = {
            "type": f"urn:sandwich:error:{codes[0]}",
            "title": KINDS[codes[0]].title,
            "status": status,
            "code": codes[0],
            "detail": KINDS[codes[0]].title,
            "errors": [],
        }
        content = {PROBLEM: {"schema": refs[ProblemDetails], "example": problem}}
        found[str(status)] = {"description": text, "content": content}
    return dict(sorted(found.items()))


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "") -> Any:
    """A value that the schema allows: by the field's name, else by its type."""
    if name in EXAMPLES and _fits(EXAMPLES[name], schema):
        return EXAMPLES[name]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "default" in schema:
        return schema["default"]
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], schemas, name)
    match schema.get("type"):
        case "object" if "properties" in schema:
            return {key: example_of(field, schemas, key) for key, field in schema["properties"].items()}
        case "object":
            inner = schema.get("additionalProperties")
            return {"live": example_of(inner, schemas)} if isinstance(inner, dict) and inner else {}
        case "array":
            return [example_of(schema.get("items", {}), schemas, name)]
        case "integer":
            return max(4, schema.get("minimum", 0))
        case "number":
            return 2.5
        case "boolean":
            return False
        case "string":
            return "0-3" if name == "shards" else "text"
        case _:
            return None


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether an example by name has the field's type: two models may use one name for different things."""
    options: Iterable[Mapping[str, Any]] = schema.get("anyOf", (schema,))
    types = {
        str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object",
        type(None): "null",
    }  # fmt: skip
    return any(
        option.get("type", types[type(value)]) == types[type(value)]
        and "$ref" not in option
        and value in option.get("enum", (value,))
        and not ("const" in option and option["const"] != value)
        for option in options
    )
