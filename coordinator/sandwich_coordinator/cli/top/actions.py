"""What keys do to a row of `sandwich top`. The operations are those of the commands."""

from dataclasses import dataclass
from typing import Any

from sandwich_coordinator.cli.cluster_access import ClusterAccess
from sandwich_coordinator.cli.top.tables import Row, Table
from sandwich_coordinator.operations.progress import Report

DRAIN_TIMEOUT_S = 600.0
SHARD_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Action:
    """An operation on one row, not carried out yet.

    verb      what is done, in words
    question  what the operator has to say yes to; "": nothing
    asks      what else the operator has to type; "": nothing
    """

    verb: str
    fields: Any
    question: str = ""
    asks: str = ""


KEYS: dict[Table, dict[str, str]] = {
    "problems": {},
    "nodes": {"d": "drain", "c": "cordon", "u": "uncordon"},
    "apps": {},
    "shards": {"m": "move", "r": "restart"},
}
"""By table: the keys, and what they do."""


def action_for(table: Table, key: str, row: Row) -> Action | None:
    """What a key means for a row; None: nothing."""
    verb = KEYS[table].get(key)
    fields = row.fields
    match verb:
        case "drain":
            question = f"Drain node {fields['node']}? Its {fields['shards']} shards move to other nodes."
            return Action(verb, fields, question=question)
        case "cordon" | "uncordon":
            return Action(verb, fields)
        case "move":
            shard = f"shard {fields['shard']} of {fields['app']}"
            return Action(verb, fields, asks=f"Move {shard} from {fields['node']} to node (any: take its pin away)")
        case "restart":
            question = f"Let shard {fields['shard']} of {fields['app']} reconnect? Its session is kept."
            return Action(verb, fields, question=question)
    return None


async def carry_out(cluster: ClusterAccess, action: Action, typed: str, report: Report) -> None:
    """Do it, and wait for its goal. Raises OperationError, StoreError."""
    fields = action.fields
    match action.verb:
        case "drain":
            await cluster.drain(fields["node"], force=False, timeout_s=DRAIN_TIMEOUT_S, report=report)
        case "cordon":
            await cluster.change_state(fields["node"], "cordoned", report=report)
        case "uncordon":
            await cluster.change_state(fields["node"], "ready", report=report)
        case "move" if typed == "any":
            await cluster.unpin_shards(fields["app"], str(fields["shard"]), report=report)
        case "move":
            shard = str(fields["shard"])
            await cluster.move_shards(fields["app"], shard, typed, timeout_s=SHARD_TIMEOUT_S, report=report)
        case "restart":
            shard = str(fields["shard"])
            await cluster.restart_shards(fields["app"], shard, timeout_s=SHARD_TIMEOUT_S, report=report)
