"""Writes the dashboards beside it: `python deploy/grafana/build.py`. A test fails while a file is another text."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GRID_WIDTH = 24
"""Columns of Grafana's grid."""

APP = 'app=~"$app"'
INSTANCE = 'instance=~"$instance"'

Panel = tuple[str, str, list[tuple[str, str]]]
"""Title, unit, and queries with their legends."""


def rate(metric: str, by: str, match: str = APP) -> str:
    """Increase a second, summed."""
    return f"sum by ({by}) (rate({metric}{{{match}}}[$__rate_interval]))"


CLUSTER: list[Panel] = [
    ("Nodes that answer", "short", [('sum(up{job="sandwich"})', "up"), ("sum(sandwich_leader)", "leaders")]),
    ("Live shards", "short", [('sum by (app) (sandwich_shards{state="live"})', "{{app}}")]),
    ("Shards by state", "short", [("sum by (state) (sandwich_shards)", "{{state}}")]),
    ("Shards wanted", "short", [("max by (app) (sandwich_desired_shards)", "{{app}}")]),
    ("Events published", "eps", [(rate("sandwich_events_published_total", "app", ""), "{{app}}")]),
    ("Read and not yet stored", "short", [("sum by (app) (sandwich_backlog_events)", "{{app}}")]),
    ("Guilds", "short", [("sum by (app) (sandwich_guilds)", "{{app}}")]),
    (
        "Shards that came back",
        "short",
        [("sum by (cause, how) (increase(sandwich_failovers_total[$__rate_interval]))", "{{cause}}, {{how}}")],
    ),
    ("Gaps", "short", [("sum by (app) (increase(sandwich_gaps_total[$__rate_interval]))", "{{app}}")]),
    ("Memory of workers", "bytes", [("sum by (instance) (sandwich_worker_rss_bytes)", "{{instance}}")]),
]

APPLICATION: list[Panel] = [
    ("Shards by state", "short", [(f"sum by (state) (sandwich_shards{{{APP}}})", "{{state}}")]),
    ("Guilds", "short", [(f"sum by (app) (sandwich_guilds{{{APP}}})", "{{app}}")]),
    (
        "Events",
        "eps",
        [
            (rate("sandwich_events_published_total", "app"), "{{app}} published"),
            (rate("sandwich_events_unpublished_total", "app"), "{{app}} held back by filters"),
            (rate("sandwich_events_replayed_total", "app"), "{{app}} replayed"),
        ],
    ),
    ("Read and not yet stored", "short", [(f"sum by (app) (sandwich_backlog_events{{{APP}}})", "{{app}}")]),
    ("Appends sent again", "cps", [(rate("sandwich_publish_retries_total", "app"), "{{app}}")]),
    (
        "Lost or not readable",
        "short",
        [
            (f"sum by (app) (increase(sandwich_gaps_total{{{APP}}}[$__rate_interval]))", "{{app}} gaps"),
            (f"sum by (app) (increase(sandwich_events_passed_over_total{{{APP}}}[$__rate_interval]))", "passed over"),
            (f"sum by (type) (increase(sandwich_events_unreadable_total{{{APP}}}[$__rate_interval]))", "{{type}}"),
            (f"sum by (app) (increase(sandwich_foreign_messages_total{{{APP}}}[$__rate_interval]))", "foreign"),
        ],
    ),
    (
        "Time to come back",
        "s",
        [
            (
                f"sum by (cause, how) (rate(sandwich_failover_seconds_total{{{APP}}}[$__rate_interval]))"
                f" / sum by (cause, how) (rate(sandwich_failovers_total{{{APP}}}[$__rate_interval]))",
                "{{cause}}, {{how}}",
            )
        ],
    ),
    (
        "Heartbeat latency",
        "s",
        [(f"quantile by (app) (0.9, sandwich_heartbeat_latency_seconds{{{APP}}})", "{{app}} 90%")],
    ),
    ("Cache, by outcome", "eps", [(rate("sandwich_cache_events_total", "outcome"), "{{outcome}}")]),
    (
        "Cache, behind",
        "short",
        [
            (f"sum by (app) (sandwich_cache_backlog_events{{{APP}}})", "{{app}} events wait"),
            (f"sum by (app) (sandwich_cache_incomplete_shards{{{APP}}})", "{{app}} incomplete shards"),
        ],
    ),
    (
        "Cache, not as written",
        "short",
        [
            (f"sum by (app) (increase(sandwich_cache_damaged_total{{{APP}}}[$__rate_interval]))", "damaged"),
            (f"sum by (app) (increase(sandwich_cache_failed_total{{{APP}}}[$__rate_interval]))", "refused by Redis"),
            (f"sum by (app) (increase(sandwich_cache_lost_total{{{APP}}}[$__rate_interval]))", "parts not readable"),
        ],
    ),
    ("Joins, by what is known", "eps", [(rate("sandwich_joins_total", "outcome"), "{{outcome}}")]),
    (
        "Requests to Discord",
        "reqps",
        [
            (rate("sandwich_rest_requests_total", "app"), "{{app}}"),
            (rate("sandwich_rest_limited_total", "app"), "{{app}} answered 429"),
        ],
    ),
]

NODE: list[Panel] = [
    ("Up", "s", [(f"sandwich_uptime_seconds{{{INSTANCE}}}", "{{instance}}")]),
    ("Leads", "short", [(f"sandwich_leader{{{INSTANCE}}}", "{{instance}}")]),
    ("Shards", "short", [(f"sum by (instance, state) (sandwich_shards{{{INSTANCE}}})", "{{instance}} {{state}}")]),
    (
        "Events published",
        "eps",
        [(rate("sandwich_events_published_total", "instance, app", INSTANCE), "{{instance}} {{app}}")],
    ),
    ("Memory of a worker", "bytes", [(f"sandwich_worker_rss_bytes{{{INSTANCE}}}", "{{instance}} {{worker}}")]),
    (
        "Heartbeat latency",
        "s",
        [(f"quantile by (instance) (0.9, sandwich_heartbeat_latency_seconds{{{INSTANCE}}})", "{{instance}} 90%")],
    ),
    (
        "Read and not yet stored",
        "short",
        [(f"sum by (instance) (sandwich_backlog_events{{{INSTANCE}}})", "{{instance}}")],
    ),
    ("Appends sent again", "cps", [(rate("sandwich_publish_retries_total", "instance", INSTANCE), "{{instance}}")]),
    (
        "Shards taken over while they ran here",
        "short",
        [(f"sum by (instance) (increase(sandwich_fenced_total{{{INSTANCE}}}[$__rate_interval]))", "{{instance}}")],
    ),
    (
        "Shards that came back here",
        "short",
        [
            (
                f"sum by (instance, how) (increase(sandwich_failovers_total{{{INSTANCE}}}[$__rate_interval]))",
                "{{instance}} {{how}}",
            )
        ],
    ),
]

CONSUMERS: list[Panel] = [
    (
        "Frames not acknowledged",
        "short",
        [(f"max by (app, group) (sandwich_consumer_lag_frames{{{APP}}})", "{{app}} {{group}}")],
    ),
    (
        "Falls behind by",
        "cps",
        [(f"deriv(sandwich_consumer_lag_frames{{{APP}}}[10m])", "{{app}} {{group}}")],
    ),
    ("Dead letters", "short", [(f"max by (app) (sandwich_dead_letters{{{APP}}})", "{{app}}")]),
    ("Events published", "eps", [(rate("sandwich_events_published_total", "app"), "{{app}}")]),
]


def variable(name: str, query: str) -> dict[str, Any]:
    """A selection at the top of the dashboard; all values at first."""
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


SOURCE = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
APPS = variable("app", "label_values(sandwich_shards, app)")
INSTANCES = variable("instance", "label_values(sandwich_uptime_seconds, instance)")


def panel(number: int, made: Panel, per_row: int) -> dict[str, Any]:
    """A time series in the grid."""
    title, unit, queries = made
    width = GRID_WIDTH // per_row
    row, column = divmod(number, per_row)
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"h": 8, "w": width, "x": column * width, "y": row * 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": source}
            for place, (query, legend) in enumerate(queries)
        ],
    }


def dashboard(name: str, panels: list[Panel], *variables: dict[str, Any]) -> dict[str, Any]:
    """Grafana's model, for an import or a provisioned folder."""
    return {
        "uid": f"sandwich-{name}",
        "title": f"Sandwich: {name}",
        "tags": ["sandwich"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [SOURCE, *variables]},
        "panels": [panel(number, each, 2 if len(panels) < 6 else 3) for number, each in enumerate(panels)],
    }


def dashboards() -> dict[str, str]:
    """Each file's name and text."""
    made = {
        "cluster": dashboard("cluster", CLUSTER),
        "application": dashboard("application", APPLICATION, APPS),
        "node": dashboard("node", NODE, INSTANCES),
        "consumers": dashboard("consumers", CONSUMERS, APPS),
    }
    return {f"{name}.json": json.dumps(model, indent=1) + "\n" for name, model in made.items()}


if __name__ == "__main__":
    for name, text in dashboards().items():
        (HERE / name).write_text(text)
