"""What webhooks report: the difference between two looks at the cluster. Pure.

Facts are small and kept in etcd with each webhook, as of its last message. So there is no queue: what a webhook is to
be sent is always the difference between then and now, whoever leads. A thing that came and went in between is left out;
failovers and lost events happened once, and are found by their time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import msgspec

from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.operations.health import wanted_shards
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import KINDS, Code, Problem, Severity, app_of_subject
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.status import FailoverStatus, LossStatus, NodeStatus
from sandwich_coordinator.view import ClusterView
from sandwich_coordinator.webhooks.records import Facts, KnownProblem, NoticeKind, WebhookRecord

State = Literal["began", "ended", "happened"]
PROBLEMS_MAX = 200
"""So many can begin, the worst first: facts are one value in etcd."""
KNOWN_MAX = 1000
"""So many are kept: these, and others that were among them and are not over."""
GONE_KEPT_S = 3600.0
"""So long it is kept what a node reported that is not there any more. When it is back, only later things are new."""
_BUDGET = frozenset({Code.SESSION_STARTS_LOW, Code.SESSION_STARTS_RESERVED, Code.SESSION_STARTS_EXHAUSTED})
_NODES = frozenset({Code.NODE_GONE, Code.NODE_UNREACHABLE, Code.NODE_MISDIRECTED})
_RANKS = {Severity.CRITICAL: 2, Severity.WARNING: 1, Severity.NOTICE: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look: its facts, and what happened lately.

    problems   the worst, by name
    standing   the names of all
    silent     registered nodes that did not answer: what they report is not known
    """

    at: float
    facts: Facts
    problems: Mapping[str, Problem]
    standing: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
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


def _shown_by(found: Problem) -> tuple[str, ...]:
    """The nodes without whose answers a problem is not seen."""
    # These are seen in the answer of the node itself, which is no reporter.
    is_own = found.code in (Code.SETTINGS_OUTDATED, Code.CLOCK_DIFFERS) and found.subject.startswith("node/")
    return (found.subject.removeprefix("node/"),) if is_own else found.nodes


def observe(snapshot: Snapshot, problems: Sequence[Problem]) -> Seen:
    """What webhooks report of this picture. `problems`: worst first."""
    view = snapshot.view
    named: dict[str, Problem] = {}
    shown_by: dict[str, set[str]] = {}
    for found in problems:
        name = problem_name(found)
        named.setdefault(name, found)
        shown_by.setdefault(name, set()).update(_shown_by(found))
    worst = dict(islice(named.items(), PROBLEMS_MAX))
    statuses = {node: answer for node, answer in snapshot.answers.items() if isinstance(answer, NodeStatus)}
    serving = serving_groups(view)
    failovers = [each for status in statuses.values() for each in status.failovers]
    losses = [each for status in statuses.values() for each in status.losses]
    return Seen(
        at=snapshot.now,
        problems=worst,
        standing=frozenset(named),
        silent=frozenset(view.nodes.keys() - statuses.keys()),
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
            not_live=_not_live(view, serving),
            problems={
                name: KnownProblem(
                    severity=found.severity.value,
                    summary=found.summary,
                    app=app_of_subject(found.subject),
                    nodes=tuple(sorted(shown_by[name])),
                )
                for name, found in worst.items()
            },
            failovers=_latest(statuses, failovers),
            losses=_latest(statuses, losses),
            at=snapshot.now,
        ),
    )


def _not_live(view: ClusterView, serving: Mapping[str, GroupId]) -> dict[str, str]:
    """The shards of each serving group that are not live, as ranges. A claim vanishes with its node."""
    states: dict[GroupId, dict[int, str]] = {}
    for shard, claim in view.claims.items():
        states.setdefault(shard.of, {})[shard.shard] = claim.record.state
    found: dict[str, str] = {}
    for app, key in serving.items():
        group, claimed = view.groups[key].record, states.get(key, {})
        waits = {shard for shard, state in claimed.items() if state not in ("live", "ready", "holding")}
        if group.state not in ("paused", "closing"):
            waits |= wanted_shards(group) - claimed.keys()
        if waits:
            found[app] = format_ranges(waits)
    return found


def _latest(nodes: Iterable[str], happened: Iterable[FailoverStatus | LossStatus]) -> dict[str, float]:
    """By node, of these that answered."""
    found = dict.fromkeys(nodes, 0.0)
    for each in happened:
        found[each.node] = max(found.get(each.node, 0.0), each.at)
    return found


def carried(before: Facts, seen: Seen) -> Facts:
    """The facts to keep after a message: a node that did not answer this time has still reported what it had."""
    now = seen.facts
    held = sorted(_held(before, seen).items(), key=lambda item: -_RANKS[Severity(item[1].severity)])

    def merged(old: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
        # Of a node that has not answered yet, what it has from then on stays new however long that takes.
        known = {**dict.fromkeys(seen.silent, before.at), **old}
        kept = {node: at for node, at in known.items() if node in now.nodes or at > seen.at - GONE_KEPT_S}
        return kept | dict(new)

    return msgspec.structs.replace(
        now,
        problems={
            **{name: _known_to(problem, before.problems.get(name), seen) for name, problem in now.problems.items()},
            **dict(held[: KNOWN_MAX - len(now.problems)]),
        },
        failovers=merged(before.failovers, now.failovers),
        losses=merged(before.losses, now.losses),
        # Never before the last one of a node that is forgotten here: it would be new again.
        at=max(before.at, seen.at - GONE_KEPT_S),
    )


def _held(before: Facts, seen: Seen) -> dict[str, KnownProblem]:
    """The known problems that are not among those of this look and yet not over, as far as it can be known."""
    found: dict[str, KnownProblem] = {}
    for name, known in before.problems.items():
        if name in seen.problems:
            continue
        silent = seen.silent.intersection(known.nodes)
        if name in seen.standing:
            found[name] = known
        elif silent:
            # Of those that answered it is known that they do not report it any more.
            found[name] = msgspec.structs.replace(known, nodes=tuple(sorted(silent)))
    return found


def _known_to(now: KnownProblem, before: KnownProblem | None, seen: Seen) -> KnownProblem:
    """A problem of this look, with those of its nodes that did not answer this time."""
    silent = seen.silent.intersection(before.nodes) if before is not None else frozenset[str]()
    return msgspec.structs.replace(now, nodes=tuple(sorted(silent.union(now.nodes)))) if silent else now


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
                app=app_of_subject(found.subject),
                subject=found.subject,
                advice=found.advice,
            )
    over = before.problems.keys() - seen.problems.keys() - _held(before, seen).keys()
    for name, known in before.problems.items():
        code, _, subject = name.partition(":")
        if name in over and not KINDS[Code(code)].momentary:
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


def _notice(kind: NoticeKind, at: float, summary: str, severity: Severity = Severity.NOTICE, app: str = "") -> Notice:
    subject = f"app/{app}" if app else "cluster"
    return Notice(
        kind=kind, state="happened", severity=severity.value, at=at, summary=summary, app=app, subject=subject
    )


def _leader(before: Facts, seen: Seen) -> Iterator[Notice]:
    leader = seen.facts.leader
    # Without a leader there is a problem; the next one is reported when it is there.
    if leader and leader != before.leader:
        yield _notice("leader", seen.at, f"node {leader} leads now, after {before.leader or 'no node'}")


def _nodes(before: Facts, seen: Seen) -> Iterator[Notice]:
    now, was = set(seen.facts.nodes), set(before.nodes)
    for node in sorted(now - was):
        yield _notice("nodes", seen.at, f"node {node} has joined")
    for node in sorted(was - now):
        if f"{Code.NODE_GONE.value}:node/{node}" not in seen.problems:
            yield _notice("nodes", seen.at, f"node {node} is not there any more")


def _apps(before: Facts, seen: Seen) -> Iterator[Notice]:
    for app in sorted(seen.facts.apps.keys() | before.apps.keys()):
        was, now = before.apps.get(app), seen.facts.apps.get(app)
        if was == now:
            continue
        if now is None:
            yield _notice("apps", seen.at, f"{app} was removed", app=app)
        elif was is None:
            yield _notice("apps", seen.at, f"{app} was added", app=app)
        else:
            words = {"paused": "was paused", "removing": "is being removed", "running": "runs again"}
            yield _notice("apps", seen.at, f"{app} {words[now]}", app=app)


def _groups(before: Facts, seen: Seen) -> Iterator[Notice]:
    for app, state in sorted(seen.facts.groups.items()):
        was = before.groups.get(app)
        if was is None or was == state:
            continue
        bad = {"failed": Severity.CRITICAL, "degraded": Severity.WARNING}
        severity = bad.get(state) or bad.get(was, Severity.NOTICE)
        yield _notice("apps", seen.at, f"{app} is {state} now; it was {was}", severity, app)


def _shards(before: Facts, seen: Seen) -> Iterator[Notice]:
    for app, apps_state in sorted(seen.facts.apps.items()):
        was, now = before.not_live.get(app, ""), seen.facts.not_live.get(app, "")
        if was == now or apps_state != "running":
            continue
        if now:
            yield _notice("shards", seen.at, f"{app}: shards {now} are not live", Severity.WARNING, app)
        else:
            yield _notice("shards", seen.at, f"{app}: all its shards are live again", Severity.WARNING, app)


def _failovers(before: Facts, seen: Seen) -> Iterator[Notice]:
    new: dict[tuple[str, str, str, str, str], list[FailoverStatus]] = {}
    for each in seen.failovers:
        if each.at > before.failovers.get(each.node, before.at):
            new.setdefault((each.app, each.source, each.node, each.cause, each.how), []).append(each)
    for (app, source, node, cause, how), found in sorted(new.items()):
        shards = format_ranges({each.shard for each in found})
        longest = max(each.took_s for each in found)
        summary = f"{app}: shards {shards} went from {source} to {node} ({cause}, {how}, {longest:.1f} s at most)"
        yield _notice("failovers", max(each.at for each in found), summary, app=app)


def _losses(before: Facts, seen: Seen) -> Iterator[Notice]:
    for each in seen.losses:
        if each.at > before.losses.get(each.node, before.at):
            summary = f"{each.app}: events of shard {each.shard} after {each.last_seq} are lost ({each.reason})"
            yield _notice("losses", each.at, summary, Severity.WARNING, each.app)


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
