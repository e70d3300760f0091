"""The problems of a cluster, from a snapshot. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from sandwich_coordinator.close_codes import STOP_CODES, TOKEN_REFUSED, stop_advice
from sandwich_coordinator.durations import clock_difference, duration
from sandwich_coordinator.fingerprints import LEASE_TTL
from sandwich_coordinator.groups import (
    UPCOMING,
    claims_by_group,
    planned_ids,
    planned_nodes,
    serving_groups,
    token_hash_of,
    upcoming_groups,
)
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.intents import privileged_names
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import KINDS, Code, Problem, problem, worst_first
from sandwich_coordinator.ranges import format_ranges, parse_ranges
from sandwich_coordinator.reachability import locally_advertised
from sandwich_coordinator.room import shortage, stuck, unmet_pins
from sandwich_coordinator.start_order import at_utc
from sandwich_coordinator.start_progress import start_estimate, start_progress
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.types import ClaimRecord, GroupRecord
from sandwich_coordinator.view import ClusterView

BUDGET_LOW_FRACTION = 0.1
READ_AT_START = {"discord", LEASE_TTL}
"""The settings of which a running node takes no change."""
NOT_LIVE_AFTER_S = 60.0
"""A shard that starts or moves may be so long without being live, besides its wait for its turn to IDENTIFY."""
WEBHOOK_FAILS_AFTER_S = 60.0
UNFINISHED_AFTER_S = 60.0
"""A removal may take so long before it counts as interrupted."""
ETCD_MIN = (3, 5, 13)
"""Below it a member may lose consistency after a crash (etcd's advisories)."""
DEVELOPMENT_LABEL = "development"
"""Where every node has it, the cluster's data is not to be kept: `sandwich-node dev` sets it."""


def find_problems(snapshot: Snapshot) -> list[Problem]:
    """What is wrong, worst first, each with what to do."""
    found = [
        *snapshot.etcd_problems,
        *_cluster_problems(snapshot),
        *_app_problems(snapshot),
        *_standing_requests(snapshot),
        *_shard_problems(snapshot),
        *_room_problems(snapshot),
        *_late_shards(snapshot),
        *_budget_problems(snapshot),
        *_blocked_starts(snapshot),
        *_unreachable_nodes(snapshot),
        *_node_problems(snapshot),
        *_clock_problems(snapshot),
        *_version_problems(snapshot),
        *_webhook_problems(snapshot),
    ]
    return worst_first([*found, *_reported(snapshot, found)])


def wanted_shards(group: GroupRecord) -> set[int]:
    """The shards that a group should run now; all of its count when its ids cannot be read."""
    try:
        parse_ranges(group.ids)
    except ValueError:
        return set(range(group.count))
    return set(planned_ids(group)) if group.ids else set(range(group.count))


def shards_subject(app: str, shards: Sequence[int] | set[int]) -> str:
    """The subject of a problem of some shards."""
    return f"app/{app}/shards/{format_ranges(shards)}"


def _shards(numbers: Collection[int]) -> str:
    return f"{'shard' if len(numbers) == 1 else 'shards'} {format_ranges(numbers)}"


def _verb(verb: str, numbers: Collection[int]) -> str:
    return f"{verb}s" if len(numbers) == 1 else verb


def _cluster_problems(snapshot: Snapshot) -> Iterator[Problem]:
    view = snapshot.view
    if not snapshot.configured:
        yield problem(Code.NOT_CONFIGURED, "cluster", "the cluster is not configured")
    if not view.nodes:
        yield problem(Code.NO_NODES, "cluster", "no nodes")
    elif view.leader is None:
        yield problem(Code.NO_LEADER, "cluster", "no leader, so nothing is decided")
    for key, bad in view.bad.items():
        summary = f"the record {key} cannot be used ({bad.reason}) and is ignored"
        yield problem(Code.BAD_RECORD, f"etcd/{key}", summary)


def _unreachable_nodes(snapshot: Snapshot) -> Iterator[Problem]:
    for node, answer in sorted(snapshot.answers.items()):
        if (other := snapshot.misdirected.get(node)) is not None:
            address = snapshot.view.nodes[node].record.address if node in snapshot.view.nodes else "its address"
            summary = f"node {node} advertises {address}, and node {other} answers there"
            yield problem(Code.NODE_MISDIRECTED, f"node/{node}", summary)
        elif isinstance(answer, str):
            yield problem(Code.NODE_UNREACHABLE, f"node/{node}", f"node {node} does not answer ({answer})")


def _node_problems(snapshot: Snapshot) -> Iterator[Problem]:
    view = snapshot.view
    for node in locally_advertised(view):
        summary = f"node {node} advertises {view.nodes[node].record.address}, which other hosts cannot reach"
        yield problem(Code.NODE_ADDRESS_LOCAL, f"node/{node}", summary)
    for node, departed in sorted(view.departed.items()):
        if node not in view.nodes and not departed.record.left:
            summary = f"node {node} is gone without having left"
            advice = KINDS[Code.NODE_GONE].advice.replace("NODE", node)
            yield problem(Code.NODE_GONE, f"node/{node}", summary, advice, since=departed.record.at)
    for node, answer in sorted(snapshot.answers.items()):
        # A node of an older version reports no fingerprints.
        if isinstance(answer, NodeStatus) and answer.settings:
            stored = snapshot.settings
            old = [name for name in stored if answer.settings.get(name, stored[name]) != stored[name]]
            if old:
                summary = f"node {node} runs with older settings of {', '.join(old)} than those that are stored"
                restart = "restart the node; its sessions are kept" if READ_AT_START & set(old) else None
                yield problem(Code.SETTINGS_OUTDATED, f"node/{node}", summary, restart)


def _clock_problems(snapshot: Snapshot) -> Iterator[Problem]:
    answers = ((node, answer) for node, answer in sorted(snapshot.answers.items()) if isinstance(answer, NodeStatus))
    clocks = {node: answer.at for node, answer in answers if answer.at is not None}
    if len(clocks) > 1 and not clock_difference(max(clocks.values()), min(clocks.values())):
        # The nodes agree: if ours differs, it is the wrong one.
        differs = clock_difference(snapshot.now, max(clocks.values()))
        if differs and clock_difference(snapshot.now, min(clocks.values())):
            summary = f"the clock of the machine that asks is {differs} those of all nodes"
            yield problem(Code.CLOCK_DIFFERS, "cluster", summary)
        return
    for node, at in clocks.items():
        if differs := clock_difference(at, snapshot.now):
            summary = f"the clock of node {node} is {differs} that of the machine that asks"
            yield problem(Code.CLOCK_DIFFERS, f"node/{node}", summary)


def _app_problems(snapshot: Snapshot) -> Iterator[Problem]:
    view = snapshot.view
    for name, key in serving_groups(view).items():
        group, app = view.groups[key].record, view.apps.get(name)
        if not view.nodes and group.state in ("starting", "live", "degraded"):
            yield problem(Code.APP_DOWN, f"app/{name}", f"{name}: no node runs it (its last state was {group.state})")
        proposal = view.proposals.get(name)
        if app is None or proposal is None or proposal.record.count == group.count:
            continue
        found = proposal.record
        waits = f"; {found.waits}" if found.waits else ""
        summary = f"{name}: {found.count} shards are proposed, and {group.count} run ({found.reason}){waits}"
        spec = app.record.shards
        when = f"; by itself at {spec.window}" if spec.window and not spec.confirm else ""
        advice = f"sandwich app scale {name} --accept{when}"
        yield problem(Code.SHARD_COUNT_PENDING, f"app/{name}", summary, advice, found.at)


def _standing_requests(snapshot: Snapshot) -> Iterator[Problem]:
    """What operators asked for and may have forgotten."""
    view = snapshot.view
    for name, removal in sorted(view.removals.items()):
        if snapshot.now - removal.record.at >= UNFINISHED_AFTER_S:
            advice = f"run sandwich app remove {name} again: it goes on"
            summary = f"{name} is being removed and not gone"
            yield problem(Code.REMOVAL_UNFINISHED, f"app/{name}", summary, advice, since=removal.record.at)
    for name, app in sorted(view.apps.items()):
        if app.record.paused_at and name not in view.removals:
            advice = f"sandwich app resume {name} starts it again"
            yield problem(Code.APP_PAUSED, f"app/{name}", f"{name} is paused", advice, since=app.record.paused_at)


def _late_shards(snapshot: Snapshot) -> Iterator[Problem]:
    late: dict[tuple[str, str], dict[int, float]] = {}
    upcoming = frozenset(upcoming_groups(snapshot.view).values())
    turns = _turns_s(snapshot)
    for shard, claim in sorted(snapshot.view.claims.items()):
        record = claim.record
        if record.state in ("live", "failed", "ended") or not record.since:
            continue
        if shard.of in upcoming:
            # It waits for its turn to IDENTIFY, or for the others; the serving group has the events.
            continue
        waits = turns.get(shard.of, 0.0) if record.state in ("claiming", "identifying") else 0.0
        if snapshot.now - record.since >= NOT_LIVE_AFTER_S + waits:
            late.setdefault((shard.app, record.state), {})[shard.shard] = record.since
    for (app, state), since in late.items():
        shards = sorted(since)
        summary = f"{app}: {_shards(shards)} {'is' if len(shards) == 1 else 'are'} not live but {state}"
        subject = shards_subject(app, shards)
        yield problem(Code.SHARDS_NOT_LIVE, subject, summary, since=min(since.values()))


def _turns_s(snapshot: Snapshot) -> dict[GroupId, float]:
    """By group: how long a whole start of it takes, in seconds. A shard may wait for its turn as long as that."""
    view, spacing_s = snapshot.view, snapshot.policy.identify_spacing_s
    found: dict[GroupId, float] = {}
    for progress in start_progress(view, snapshot.policy, snapshot.now):
        key = GroupId(progress.app, progress.group)
        budget = view.budgets.get(token_hash_of(view, key))
        if budget is not None and budget.record.max_concurrency > 0:
            found[key] = start_estimate(progress.wanted, budget.record.max_concurrency, spacing_s)
    return found


def _version_problems(snapshot: Snapshot) -> Iterator[Problem]:
    nodes = [entry.record for entry in snapshot.view.nodes.values()]
    if nodes and all(DEVELOPMENT_LABEL in node.labels for node in nodes):
        return
    version = tuple(int(part) for part in snapshot.etcd_version.split(".")[:3] if part.isdecimal())
    if version and version < ETCD_MIN:
        wanted = ".".join(map(str, ETCD_MIN))
        yield problem(Code.ETCD_OLD, "etcd", f"etcd {snapshot.etcd_version} is older than {wanted}")


def _webhook_problems(snapshot: Snapshot) -> Iterator[Problem]:
    view = snapshot.view
    for name, state in sorted(view.webhook_states.items()):
        since = state.record.failing_since
        if name in view.webhooks and since and snapshot.now - since >= WEBHOOK_FAILS_AFTER_S:
            summary = f"the messages of webhook {name} do not arrive: {state.record.error}"
            advice = KINDS[Code.WEBHOOK_FAILING].advice.replace("NAME", name)
            yield problem(Code.WEBHOOK_FAILING, f"webhook/{name}", summary, advice, since)


def _reported(snapshot: Snapshot, seen: Sequence[Problem]) -> list[Problem]:
    """What nodes report, once for all that report the same; not again what the snapshot itself shows."""
    nodes: dict[tuple[Code, str, str], list[str]] = {}
    first: dict[tuple[Code, str, str], Problem] = {}
    for node, answer in sorted(snapshot.answers.items()):
        for said in answer.problems if isinstance(answer, NodeStatus) else ():
            # A node of an older version reports sentences.
            one = problem(Code.OTHER, f"node/{node}", said, "") if isinstance(said, str) else said
            key = (one.code, "", one.summary) if isinstance(said, str) else one.same
            first.setdefault(key, one)
            nodes.setdefault(key, []).append(node)
    known = {(one.code, one.subject) for one in seen}
    return [
        msgspec.structs.replace(one, nodes=tuple(nodes[key]))
        for key, one in first.items()
        if (one.code, one.subject) not in known
    ]


def _shard_problems(snapshot: Snapshot) -> Iterator[Problem]:
    view = snapshot.view
    all_claims = claims_by_group(view)
    for key, group in sorted(view.groups.items()):
        claims = all_claims.get(key, {})
        is_upcoming = group.record.phase in UPCOMING
        failed = list(_failed_shards(view, key.app, claims, is_upcoming=is_upcoming))
        yield from failed
        if group.record.state == "failed" and not failed:
            yield from _failed_group(snapshot, group.record)
        missing = wanted_shards(group.record) - claims.keys()
        if group.record.state in ("paused", "closing", "failed"):
            continue
        unplanned = missing - planned_nodes(view.plans.get(key)).keys()
        short = shortage(view, key.app) if unplanned else None
        if short is not None:
            code = Code.PLACEMENT_UNMET if short.is_placement else Code.CAPACITY_SHORT
            summary = f"{key.app}: {_shards(unplanned)} {_verb('run', unplanned)} nowhere: {short.reason}"
            yield problem(code, shards_subject(key.app, unplanned), summary)
            missing -= unplanned
        # Until the next group serves, the present one does: its start is progress, and not a shard less.
        if missing and not is_upcoming:
            summary = f"{key.app}: {_shards(missing)} {_verb('run', missing)} nowhere"
            yield problem(Code.SHARDS_UNCLAIMED, shards_subject(key.app, missing), summary)


def _room_problems(snapshot: Snapshot) -> Iterator[Problem]:
    for one in stuck(snapshot.view):
        summary = f"{one.group.app}: {_shards(one.shards)} {_verb('stay', one.shards)} in place although {one.why}"
        yield problem(Code.SHARDS_STUCK, shards_subject(one.group.app, one.shards), summary)
    unmet: dict[tuple[str, str], list[int]] = {}
    for shard, why in unmet_pins(snapshot.view).items():
        unmet.setdefault((shard.app, why), []).append(shard.shard)
    for (app, why), numbers in unmet.items():
        summary = f"{app}: the pin of {_shards(numbers)} cannot be followed: {why}"
        yield problem(Code.PIN_UNMET, shards_subject(app, numbers), summary)


def _failed_shards(
    view: ClusterView, app: str, claims: Mapping[int, ClaimRecord], *, is_upcoming: bool
) -> Iterator[Problem]:
    entry = view.apps.get(app)
    intents = ", ".join(privileged_names(entry.record.intents)) if entry is not None else ""
    budget = view.budgets.get(entry.record.token_hash) if entry is not None else None
    count = budget.record.shards if budget is not None and not budget.record.error else None
    causes: dict[tuple[int, str], list[int]] = {}
    for shard, claim in sorted(claims.items()):
        if claim.state == "failed":
            cause = (claim.close_code, "" if claim.close_code in STOP_CODES else claim.reason)
            causes.setdefault(cause, []).append(shard)
    for (code, reason), shards in causes.items():
        known = STOP_CODES.get(code)
        why = f"Discord closed with {code}: {known.meaning}" if known else reason or "no reason given"
        ranges = format_ranges(shards)
        advice = stop_advice(code, app=app, shards=ranges, intents=intents, count=count)
        since = min((claims[shard].since for shard in shards if claims[shard].since), default=None)
        summary = f"{app}: {_shards(shards)} failed ({why})"
        if is_upcoming:
            summary = f"{app}: {_shards(shards)} of the next group failed ({why}); the present group serves as before"
            advice = f"{advice}; or take the change back: sandwich app scale {app} --cancel"
        yield problem(Code.SHARDS_FAILED, shards_subject(app, shards), summary, advice, since)


def _failed_group(snapshot: Snapshot, group: GroupRecord) -> Iterator[Problem]:
    """A group that failed before any shard started. A refused token is the budget's problem."""
    app = snapshot.view.apps.get(group.app)
    budget = snapshot.view.budgets.get(app.record.token_hash) if app is not None else None
    if budget is None or not budget.record.error:
        yield problem(Code.APP_INVALID, f"app/{group.app}", f"{group.app}: {group.reason or 'failed'}")


def _budget_problems(snapshot: Snapshot) -> Iterator[Problem]:
    for name, app in sorted(snapshot.view.apps.items()):
        budget = snapshot.view.budgets.get(app.record.token_hash)
        if budget is None:
            continue
        record = budget.record
        if record.error:
            advice = stop_advice(TOKEN_REFUSED, app=name)
            summary = f"{name}: {record.error}"
            yield problem(Code.TOKEN_REFUSED, f"app/{name}", summary, advice)
        elif record.reset_at > snapshot.now and record.remaining <= _low(snapshot, record.total):
            left = duration(record.reset_at - snapshot.now)
            summary = f"{name}: {record.remaining} of {record.total} session starts left, reset in {left}"
            yield problem(Code.SESSION_STARTS_LOW, f"app/{name}", summary)


def _low(snapshot: Snapshot, total: int) -> float:
    return max(total * BUDGET_LOW_FRACTION, snapshot.policy.reserve_of(total))


def _blocked_starts(snapshot: Snapshot) -> Iterator[Problem]:
    """Shards that the budget lets wait until its reset."""
    view = snapshot.view
    for progress in start_progress(view, snapshot.policy, snapshot.now):
        if progress.blocked_until is None or progress.starts_left is None:
            continue
        budget = view.budgets[token_hash_of(view, GroupId(progress.app, progress.group))].record
        late = progress.waiting - progress.starts_left
        what = f"{progress.app}: {late} shards have no session start before {at_utc(progress.blocked_until)}"
        if budget.remaining > progress.starts_left:
            kept = f"the last {budget.remaining - progress.starts_left} are kept for failover"
            yield problem(Code.SESSION_STARTS_RESERVED, f"app/{progress.app}", f"{what} ({kept})")
        else:
            why = f"{budget.remaining} of {budget.total} are left"
            yield problem(Code.SESSION_STARTS_EXHAUSTED, f"app/{progress.app}", f"{what} ({why})")
