"""The page docs/reference/http-api.md, from the table: `python -m sandwich_node.api.reference > FILE`. Pure."""

import re
import sys
from collections.abc import Mapping
from inspect import getdoc
from typing import Any

from sandwich_node.api.models import FieldError, Model
from sandwich_node.api.openapi import VARIABLES, document
from sandwich_node.api.problem_details import KINDS
from sandwich_node.api.routing import Route

HEAD = """\
# The HTTP API

Made from the table of routes by `python -m sandwich_node.api.reference`; a test holds this page equal to it. How to use
the API: [guide](../guide/http-api.md). For programs: `GET /api/v1/openapi.json`.

All paths begin with `/api/v1`. In the column of the role, *cluster* means that an identity that is limited to some
applications is refused. Every GET but a stream has an ETag and takes `If-None-Match`; every change takes
`Idempotency-Key`.

- **waits**: takes `Prefer: wait=N` and `Accept: application/x-ndjson`.
- **If-Match**: takes the ETag of the resource; 412 when it has changed since.
- **stream**: the answer comes in parts, without an ETag.
"""


def page(routes: tuple[Route, ...]) -> str:
    """The whole page."""
    schemas = document(routes, "")["components"]["schemas"]
    parts = [HEAD, "## Routes\n"]
    for tag in dict.fromkeys(route.tag for route in routes):
        parts.append(f"### {tag}: routes\n\n| route | role | what | query; body | answer |\n|---|---|---|---|---|")
        parts.append("\n".join(_row(route) for route in routes if route.tag == tag) + "\n")
    variables = "; ".join(f"`{{{name}}}`: {_lower(text)}" for name, (text, _) in VARIABLES.items())
    parts.append(f"In paths: {variables}.\n")
    parts.append("## Errors\n\nProblem details (RFC 9457). `code` is stable. The document has those of each route.\n")
    parts.append("| code | status | means |\n|---|---|---|")
    parts.append("\n".join(f"| `{code}` | {kind.status} | {kind.title} |" for code, kind in KINDS.items()))
    parts.append("\n## Models\n")
    models = {model.__name__: model for route in routes for model in (route.body, route.result) if model is not None}
    parts.append(
        "\n".join(
            _model(name, schema, models) for name, schema in sorted(schemas.items()) if not name.startswith("Page_")
        )
    )
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _lower(text: str) -> str:
    return (text[0].lower() + text[1:]).rstrip(".")


def _row(route: Route) -> str:
    role = route.role.label if route.role is not None else "none"
    whole = route.role is not None and not route.is_of_app and (route.cluster_wide or route.is_change)
    is_stream = not route.is_change and not route.has_etag
    possible = (("waits", route.takes_time), ("If-Match", route.is_conditional), ("stream", is_stream))
    marks = [mark for mark, has in possible if has]
    what = route.summary + (f" (**{'**, **'.join(marks)}**)" if marks else "")
    query = ", ".join(f"`{name}`" for name in route.query.model_fields)
    body = _link(route.body) if route.body is not None else ""
    return (
        f"| `{route.method} {route.path}` | {role}{', cluster' if whole else ''} | {what} "
        f"| {'; '.join(filter(None, (query, body)))} | {_answer(route)} |"
    )


def _answer(route: Route) -> str:
    if route.result is not None:
        return _link(route.result)
    return "" if route.media_type == "application/json" else f"`{route.media_type}`"


def _link(model: type[Model]) -> str:
    return _to(model.__name__)


def _to(name: str) -> str:
    """A link to a model; for pydantic's `Page[Node]`, and the document's `Page_Node_`, to that of the items."""
    paged = re.fullmatch(r"Page[\[_](\w+?)[\]_]", name)
    return f"page of {_to(paged[1])}" if paged else f"[{name}](#{name.lower()})"


def _model(name: str, schema: Mapping[str, Any], models: Mapping[str, type[Model]]) -> str:
    text = schema.get("description", "")
    model = models.get(name) or {"FieldError": FieldError}.get(name)
    if model is not None and model.__doc__:
        text = getdoc(model) or ""
    required = schema.get("required", ())
    lines = [f"### {name}\n", _prose(text) + "\n"]
    fields = schema.get("properties", {})
    if fields:
        lines.append("| field | type | |\n|---|---|---|")
        for field, declared in fields.items():
            optional = "" if field in required else "may be left out"
            note = "; ".join(filter(None, (declared.get("description", ""), optional)))
            lines.append(f"| `{field}` | {_type(declared)} | {note} |")
    return "\n".join(lines) + "\n"


def _prose(text: str) -> str:
    """A docstring as Markdown: its list of fields, which has two blanks behind the name, becomes a list."""
    lines = []
    for line in text.splitlines():
        found = re.match(r"(\w[\w, ]*?) {2,}(\S.*)", line)
        lines.append(f"- `{found[1]}`: {found[2]}" if found else line.strip())
    return "\n".join(lines)


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _to(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items', {}))}"
        case "object" if schema.get("additionalProperties") not in (None, True, False):
            return f"object of {_type(schema['additionalProperties'])}"
        case None:
            return "any JSON"
        case str(kind):
            return kind
        case _:
            return "any JSON"


if __name__ == "__main__":
    from sandwich_node.api.table import ROUTES

    sys.stdout.write(page(ROUTES))
