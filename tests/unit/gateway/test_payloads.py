"""Envelopes, names, URLs, secrets."""

import pickle
from typing import Any

import pytest

from sandwich_node.gateway.envelope import EventNames, ProtocolError, one_line, read_envelope
from sandwich_node.gateway.payloads import connect_url, heartbeat, usable_resume_url
from sandwich_node.secret import Secret
from tests.unit.gateway.shard import config


def test_d_is_left_as_it_is() -> None:
    raw = '{"t":"X","s":3,"op":0,"d":{ "a" : 1.50, "ü":[] },"new":1}'.encode()
    envelope = read_envelope(raw)
    assert (envelope.op, envelope.s, envelope.t) == (0, 3, "X")
    assert bytes(envelope.d) == '{ "a" : 1.50, "ü":[] }'.encode()


def test_absent_fields_are_null() -> None:
    envelope = read_envelope(b'{"op":11}')
    assert (envelope.s, envelope.t, bytes(envelope.d)) == (None, None, b"null")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'{"op":"0"}',
        b'{"t":"X"}',
        b'{"op":0,"d":{}',
        b'{"op":0,"d":NaN}',
        b'{"op":0,"d":{"a":}}',
        b'{"op":0,"s":-1}',
        b'{"op":0,"s":1e400}',
        b'{"op":0,"s":' + b"9" * 5000 + b"}",
        b'{"op":' + b"9" * 5000 + b"}",
        b'{"op":0,"t":"\\ud800"}',
        b'{"op":0,"d":"\xff"}',
        b'{"op":0,"d":"a\nb"}',
        b'{"op":0,"d":' + b"[" * 100_000 + b"}",
        b'{"op":0,"d":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(17),
)
def test_malformed_payloads_are_protocol_errors_that_do_not_quote_them(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_envelope(raw)
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 100


def test_an_event_is_one_line() -> None:
    assert one_line(b'{\n "op": 0,\r\n "d": "a\\nb"}') == b'{"op":0,"d":"a\\nb"}'
    assert one_line(b'{ "op": 0}') == b'{ "op": 0}'


def test_only_plain_names_are_allowed_and_few_are_remembered() -> None:
    names = EventNames()
    for bad in ("", "a", "EV.*", "EV >", "É", "X" * 65, "X\n"):
        assert not names.allows(bad)
    for number in range(1000):
        assert names.allows(f"EVENT_{number}")
    assert names.allows("X" * 64)
    assert len(names.known) <= 512


@pytest.mark.parametrize(
    ("base", "compression", "url"),
    [
        ("wss://h", "zstd-stream", "wss://h/?v=10&encoding=json&compress=zstd-stream"),
        ("wss://h/", "none", "wss://h/?v=10&encoding=json"),
        ("ws://u:p@h:81/x?v=6&compress=a#f", "zlib-stream", "ws://h:81/x?v=10&encoding=json&compress=zlib-stream"),
    ],
)
def test_a_connect_url_keeps_the_base_and_nothing_else(base: str, compression: str, url: str) -> None:
    assert connect_url(base, compression) == url


@pytest.mark.parametrize("base", ["", "https://h", "wss://", "h"])
def test_a_url_that_is_no_websocket_is_refused(base: str) -> None:
    with pytest.raises(ValueError):
        connect_url(base, "none")


@pytest.mark.parametrize(
    ("url", "base", "usable"),
    [
        ("wss://r", "wss://b", True),
        ("wss://r", "ws://b", True),
        ("ws://r", "ws://b", True),
        ("ws://r", "wss://b", False),
        ("", "wss://b", False),
        ("https://r", "wss://b", False),
        ("wss://[", "wss://b", False),
    ],
)
def test_a_token_is_sent_to_no_less_protected_a_place(url: str, base: str, usable: bool) -> None:
    assert usable_resume_url(url, base) is usable


@pytest.mark.parametrize(
    "changes",
    [{"gateway_url": "https://h"}, {"compression": "br"}, {"shard": 1}, {"shard": -1}, {"large_threshold": 9}],
    ids=str,
)
def test_a_shard_that_could_never_connect_is_refused_at_once(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        config(**changes)


def test_a_heartbeat_names_the_last_sequence() -> None:
    assert (heartbeat(None), heartbeat(7)) == (b'{"op":1,"d":null}', b'{"op":1,"d":7}')


def test_a_secret_is_never_shown() -> None:
    secret = Secret("hidden")
    assert "hidden" not in f"{secret} {secret!r} {secret:>9} {[secret]}"
    assert secret == Secret("hidden")
    assert secret != Secret("other")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
