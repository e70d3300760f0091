"""Transcripts of the shard machine: commands, `----`, what it did. Time is virtual, randomness seeded.

shard [session=ID:SEQ] [presence=STATUS]   a new machine; with a session it resumes
start, connected, refused, granted, garbled, suspend, unsuspend, stop
advance SECONDS                            ticks at every deadline on the way
reconnect                                  advances to the end of the wait
hello SECONDS | ready SEQ | dispatch SEQ.. | resumed SEQ | ack | asked | op7 | op9 true|false
close [CODE]                               the server closes; no code: the connection is lost
command OP JSON                            a gateway command is requested
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.gateway.session import Session
from sandwich_node.secret import Secret

FILES = sorted(Path(__file__).parent.glob("gateway_*.txt"))
TOKEN = "the-token"
RESUME_URL = "wss://resume.example"
PLAIN: dict[str, ev.Event] = {
    "start": ev.Started(),
    "connected": ev.Connected(),
    "refused": ev.ConnectFailed("connection refused"),
    "granted": ev.IdentifyGranted(),
    "garbled": ev.Garbled("malformed payload"),
    "suspend": ev.ReadingSuspended(),
    "unsuspend": ev.ReadingResumed(),
    "stop": ev.StopRequested("released"),
    "ack": ev.Received(11),
    "asked": ev.Received(1),
    "op7": ev.Received(7),
}


def shown(effect: fx.Effect) -> str:
    match effect:
        case fx.Send(op, payload):
            return f"send op={op} {payload.decode().replace(TOKEN, '***')}"
        case fx.StateChanged(state, reason):
            return f"-> {state.value}" + (f": {reason}" if reason else "")
        case fx.LatencyMeasured(seconds):
            return f"latency {seconds:.3f} s"
        case _:
            return repr(effect)


class Stage:
    """One machine under a script."""

    def __init__(self) -> None:
        self.now = 0.0
        self.machine = self._machine({})

    def _machine(self, words: dict[str, str]) -> ShardMachine:
        name, _, sequence = words.get("session", "").partition(":")
        config = ShardConfig(
            token=Secret(TOKEN),
            shard=3,
            count=8,
            intents=513,
            gateway_url="wss://gateway.example/?v=9",
            presence={"status": words["presence"]} if "presence" in words else None,
        )
        session = Session(name, int(sequence), RESUME_URL) if name else None
        return ShardMachine(config, session, random.Random(7))

    def run(self, line: str) -> list[str]:
        word, *rest = line.split()
        if word == "shard":
            self.machine = self._machine(dict(part.split("=", 1) for part in rest))
            return []
        if word == "advance":
            return self._advance(float(rest[0]))
        if word == "reconnect":
            due = self.machine.deadline()
            assert self.machine.state is fx.State.WAITING
            assert due is not None
            return self._advance(due - self.now)
        if word == "dispatch":
            for sequence in rest:
                assert self.machine.streaming
                self.machine.dispatched(int(sequence))
            return []
        return self._shown(self.machine.handle(self._event(word, rest), self.now))

    def _event(self, word: str, rest: list[str]) -> ev.Event:
        match word:
            case "hello":
                return ev.Received(10, b'{"heartbeat_interval":%d}' % (float(rest[0]) * 1000))
            case "ready":
                data = {
                    "session_id": "new",
                    "resume_gateway_url": RESUME_URL,
                    "user": {"id": "42", "username": "bot"},
                    "guilds": [{"id": "7", "unavailable": True}],
                }
                return ev.Received(0, json.dumps(data).encode(), int(rest[0]), "READY")
            case "resumed":
                return ev.Received(0, b"{}", int(rest[0]), "RESUMED")
            case "op9":
                return ev.Received(9, rest[0].encode())
            case "close":
                return ev.Closed(int(rest[0]) if rest else None)
            case "command":
                return ev.CommandQueued(int(rest[0]), json.loads(" ".join(rest[1:])))
            case _:
                return PLAIN[word]

    def _advance(self, seconds: float) -> list[str]:
        end, out = self.now + seconds, []
        while (due := self.machine.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            out += self._shown(self.machine.tick(self.now))
            after = self.machine.deadline()
            assert after is None or after > self.now, "tick() must move its deadline"
        self.now = end
        return out

    def _shown(self, effects: Sequence[fx.Effect]) -> list[str]:
        self.machine.check_invariants()
        return [f"{self.now:.2f} {shown(effect)}" for effect in effects]


def replay(text: str) -> str:
    stage, out, block = Stage(), list[str](), list[str]()
    expected = False
    for line in text.splitlines():
        if line == "----":
            expected = True
            shown = [said for command in block for said in stage.run(command)]
            out += ["----", *(shown or ["(nothing)"])]
            block = []
        elif not line:
            expected = False
            out.append("")
        elif not expected:
            if not line.startswith("#"):
                block.append(line)
            out.append(line)
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_machine_does_what_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    if request.config.getoption("--rewrite", default=False):
        path.write_text(replay(text))
    else:
        assert replay(text) == text
