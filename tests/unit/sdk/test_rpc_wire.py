"""Encoding of answers to requests."""

import os

import pytest

from sandwich_sdk.wire.headers import WireError
from sandwich_sdk.wire.rpc import Answer, RpcError, encode_error, encode_result, parts


def through(answer: bytes, part_bytes: int = 1000) -> bytes:
    made = Answer()
    messages = list(parts(answer, part_bytes))
    for number, (payload, headers) in enumerate(messages, start=1):
        assert len(payload) <= part_bytes
        assert made.add(payload, headers) == (number == len(messages))
    return made.result()


def test_a_long_answer_is_sent_in_parts() -> None:
    assert through(encode_result(b'{"a":1}')) == b'{"a":1}'
    long = b'"' + os.urandom(5000).hex().encode() + b'"'
    assert len(list(parts(encode_result(long), 1000))) > 3
    assert through(encode_result(long)) == long


def test_an_error_has_its_code_and_retry_after() -> None:
    with pytest.raises(RpcError, match="too many") as caught:
        through(encode_error(RpcError("limited", "too many", 1.5)))
    assert (caught.value.code, caught.value.retry_after) == ("limited", 1.5)
    assert str(caught.value) == "too many (limited)"


def test_a_missing_or_corrupt_part_is_detected() -> None:
    messages = list(parts(encode_result(b'"' + os.urandom(5000).hex().encode() + b'"'), 1000))
    made = Answer()
    made.add(*messages[0])
    with pytest.raises(WireError, match="not in order"):
        made.add(*messages[2])
    broken = Answer()
    broken.add(b"{", None)
    with pytest.raises(WireError, match="not an answer"):
        broken.result()
