"""What webhooks report: the difference between two looks at the cluster. Pure.

Facts are small and kept in etcd with each webhook, as of its last message. So there is no queue: what a webhook is to
be sent is always the difference between then and now, whoever leads. A thing that came and went in between is left out;
failovers and lost events happened once, and are found by their time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import KINDS, Code, Problem, Severity
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.status import FailoverStatus, LossStatus, NodeStatus
from sandwich_coordinator.webhooks.records import Facts, KnownProblem, NoticeKind, WebhookRecord

State = Literal["began", "ended", "happened"]
PROBLEMS_MAX = 200
"""So many are compared, the worst first: facts are one value in etcd."""
GONE_KEPT_S = 3600.0
"""So long it is kept what a node reported that is not there any more."""
_BUDGET = frozenset({Code.SESSION_STARTS_LOW, Code.SESSION_STARTS_RESERVED, Code.SESSION_STARTS_EXHAUSTED})
_NODES = frozenset({Code.NODE_GONE, Code.NODE_UNREACHABLE, Code.NODE_MISDIRECTED})
_RANKS = {Severity.CRITICAL: 2, Severity.WARNING: 1, Severity.NOTICE: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look: its facts, and what happened lately."""

    at: float
    facts: Facts
    problems: Mapping[str, Problem]
    failovers: Sequence[FailoverStatus] = ()
    losses: Sequence[LossStatus] = ()


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to report. `at`: Unix seconds. `app`, `subject`, `advice`: "" where there is none."""

    kind: NoticeKind
    state: State
    severity: str
    at: float
    summary: str
    app: str = ""
    subject: str = ""
    advice: str = ""


def problem_name(found: Problem) -> str:
    """The same for one problem of an application, whichever of its shards it concerns at the moment."""
    subject = found.subject.partition("/shards/")[0]
    return f"{found.code.value}:{subject}"


def _app_of(subject: str) -> str:
    return subject.split("/")[1] if subject.startswith("app/") else ""


def observe(snapshot: Snapshot, problems: Sequence[Problem]) -> Seen:
    """What webhooks report of this picture. `problems`: worst first."""
    view = snapshot.view
    named: dict[str, Problem] = {}
    for found in problems[:PROBLEMS_MAX]:
        named.setdefault(problem_name(found), found)
    statuses = {node: answer for node, answer in snapshot.answers.items() if isinstance(answer, NodeStatus)}
    serving = serving_groups(view)
    not_live: dict[str, str] = {}
    for app, group in serving.items():
        waits = {
            shard.shard
            for shard, claim in view.claims.items()
            if shard.of == group and claim.record.state not in ("live", "ready", "holding")
        }
        if waits:
            not_live[app] = format_ranges(waits)
    failovers = [each for status in statuses.values() for each in status.failovers]
    losses = [each for status in statuses.values() for each in status.losses]
    return Seen(
        at=snapshot.now,
        problems=named,
        failovers=failovers,
        losses=losses,
        facts=Facts(
            leader=view.leader.record.node if view.leader is not None else "",
            nodes=sorted(view.nodes),
            apps={
                app: "removing" if app in view.removals else "paused" if entry.record.paused else "running"
                for app, entry in view.apps.items()
            },
            groups={app: view.groups[group].record.state for app, group in serving.items()},
            not_live=not_live,
            problems={
                name: KnownProblem(severity=found.severity.value, summary=found.summary, app=_app_of(found.subject))
                for name, found in named.items()
            },
            failovers=_latest(failovers),
            losses=_latest(losses),
        ),
    )


def _latest(happened: Iterable[FailoverStatus | LossStatus]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in happened:
        found[each.node] = max(found.get(each.node, 0.0), each.at)
    return found


def carried(before: Facts, seen: Seen) -> Facts:
    """The facts to keep after a message: a node that did not answer this time has still reported what it had."""
    now = seen.facts

    def merged(old: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
        kept = {node: at for node, at in old.items() if node in now.nodes or at > seen.at - GONE_KEPT_S}
        return kept | dict(new)

    return msgspec.structs.replace(
        now, failovers=merged(before.failovers, now.failovers), losses=merged(before.losses, now.losses)
    )


def notices(before: Facts, seen: Seen) -> list[Notice]:
    """What became different since `before`, worst first."""
    found = [
        *_problems(before, seen),
        *_leader(before, seen),
        *_nodes(before, seen),
        *_apps(before, seen),
        *_groups(before, seen),
        *_shards(before, seen),
        *_failovers(before, seen),
        *_losses(before, seen),
    ]
    return sorted(found, key=lambda notice: -_RANKS[Severity(notice.severity)])


def _problems(before: Facts, seen: Seen) -> Iterator[Notice]:
    for name, found in seen.problems.items():
        known = before.problems.get(name)
        if known is None or _RANKS[Severity(known.severity)] < _RANKS[found.severity]:
            yield Notice(
                kind=_kind_of(found.code),
                state="happened" if KINDS[found.code].momentary else "began",
                severity=found.severity.value,
                at=found.since or seen.at,
                summary=found.summary,
                app=_app_of(found.subject),
                subject=found.subject,
                advice=found.advice,
            )
    for name, known in before.problems.items():
        code, _, subject = name.partition(":")
        if name not in seen.problems and not KINDS[Code(code)].momentary:
            yield Notice(
                kind=_kind_of(Code(code)),
                state="ended",
                severity=known.severity,
                at=seen.at,
                summary=known.summary,
                app=known.app,
                subject=subject,
            )


def _kind_of(code: Code) -> NoticeKind:
    return "budget" if code in _BUDGET else "nodes" if code in _NODES else "problems"


def _notice(kind: NoticeKind, seen: Seen, summary: str, severity: Severity = Severity.NOTICE, app: str = "") -> Notice:
    subject = f"app/{app}" if app else "cluster"
    return Notice(
        kind=kind, state="happened", severity=severity.value, at=seen.at, summary=summary, app=app, subject=subject
    )


def _leader(before: Facts, seen: Seen) -> Iterator[Notice]:
    leader = seen.facts.leader
    # Without a leader there is a problem; the next one is reported when it is there.
    if leader and leader != before.leader:
        yield _notice("leader", seen, f"node {leader} leads now, after {before.leader or 'no node'}")


def _nodes(before: Facts, seen: Seen) -> Iterator[Notice]:
    now, was = set(seen.facts.nodes), set(before.nodes)
    for node in sorted(now - was):
        yield _notice("nodes", seen, f"node {node} has joined")
    for node in sorted(was - now):
        if f"{Code.NODE_GONE.value}:node/{node}" not in seen.problems:
            yield _notice("nodes", seen, f"node {node} is not there any more")


def _apps(before: Facts, seen: Seen) -> Iterator[Notice]:
    for app in sorted(seen.facts.apps.keys() | before.apps.keys()):
        was, now = before.apps.get(app), seen.facts.apps.get(app)
        if was == now:
            continue
        if now is None:
            yield _notice("apps", seen, f"{app} was removed", app=app)
        elif was is None:
            yield _notice("apps", seen, f"{app} was added", app=app)
        else:
            words = {"paused": "was paused", "removing": "is being removed", "running": "runs again"}
            yield _notice("apps", seen, f"{app} {words[now]}", app=app)


def _groups(before: Facts, seen: Seen) -> Iterator[Notice]:
    for app, state in sorted(seen.facts.groups.items()):
        was = before.groups.get(app)
        if was is None or was == state:
            continue
        bad = {"failed": Severity.CRITICAL, "degraded": Severity.WARNING}
        severity = bad.get(state) or bad.get(was, Severity.NOTICE)
        yield _notice("apps", seen, f"{app} is {state} now; it was {was}", severity, app)


def _shards(before: Facts, seen: Seen) -> Iterator[Notice]:
    for app, apps_state in sorted(seen.facts.apps.items()):
        was, now = before.not_live.get(app, ""), seen.facts.not_live.get(app, "")
        if was == now or apps_state != "running":
            continue
        if now:
            yield _notice("shards", seen, f"{app}: shards {now} are not live", Severity.WARNING, app)
        else:
            yield _notice("shards", seen, f"{app}: all its shards are live again", Severity.WARNING, app)


def _failovers(before: Facts, seen: Seen) -> Iterator[Notice]:
    new: dict[tuple[str, str, str, str, str], list[FailoverStatus]] = {}
    for each in seen.failovers:
        if each.at > before.failovers.get(each.node, 0.0):
            new.setdefault((each.app, each.source, each.node, each.cause, each.how), []).append(each)
    for (app, source, node, cause, how), found in sorted(new.items()):
        shards = format_ranges({each.shard for each in found})
        longest = max(each.took_s for each in found)
        summary = f"{app}: shards {shards} went from {source} to {node} ({cause}, {how}, {longest:.1f} s at most)"
        yield _notice("failovers", seen, summary, app=app)


def _losses(before: Facts, seen: Seen) -> Iterator[Notice]:
    for each in seen.losses:
        if each.at > before.losses.get(each.node, 0.0):
            summary = f"{each.app}: events of shard {each.shard} after {each.last_seq} are lost ({each.reason})"
            yield _notice("losses", seen, summary, Severity.WARNING, each.app)


def wanted(found: Iterable[Notice], hook: WebhookRecord) -> list[Notice]:
    """The notices that a webhook reports; its own failures are reported by others."""
    least = _RANKS[Severity(hook.min_severity)]
    return [
        notice
        for notice in found
        if notice.kind in hook.events
        and notice.subject != f"webhook/{hook.name}"
        and _RANKS[Severity(notice.severity)] >= least
        and (not hook.apps or notice.app in hook.apps)
    ]
