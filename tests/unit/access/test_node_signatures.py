import pytest

from sandwich_coordinator.access.node_signatures import (
    NodeRequests,
    answer_mac,
    authorization,
    is_answer,
    nonce_at,
)

KEY = "k" * 64
NOW_MS = 1_800_000_000_000


def signed(number: int = 0, *, key: str = KEY, path: str = "/status", at: int = NOW_MS) -> str:
    return authorization(key, "GET", path, nonce_at(at, number.to_bytes(16, "big")))


def test_a_signed_request_is_accepted_once() -> None:
    node = NodeRequests(KEY)
    assert node.accept(signed(), "GET", "/status") == nonce_at(NOW_MS, bytes(16))
    assert node.accept(signed(), "GET", "/status") is None
    assert node.accept(signed(1), "GET", "/status") is not None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer x",
        "Sandwich-Node ",
        signed(key="other"),
        signed(path="/internal/logs"),
        signed()[:-1],
        signed() + "0",
        signed().replace("mac=", "mac=é"),
    ],
)
def test_anything_else_is_refused(header: str) -> None:
    assert NodeRequests(KEY).accept(header, "GET", "/status") is None


def test_a_signature_is_for_one_method() -> None:
    assert NodeRequests(KEY).accept(signed(), "POST", "/status") is None


def test_a_node_without_a_key_accepts_nothing() -> None:
    assert NodeRequests("").accept(signed(key=""), "GET", "/status") is None


def test_a_nonce_that_is_no_longer_remembered_is_still_refused() -> None:
    node = NodeRequests(KEY, nonces_max=3)
    requests = [signed(number, at=NOW_MS + number) for number in range(5)]
    assert all(node.accept(request, "GET", "/status") for request in requests)
    assert [node.accept(request, "GET", "/status") for request in requests] == [None] * 5
    assert node.accept(signed(9, at=NOW_MS + 9), "GET", "/status") is not None


def test_an_answer_is_for_one_question_status_and_body() -> None:
    nonce, other = nonce_at(NOW_MS, bytes(16)), nonce_at(NOW_MS, bytes(15) + b"1")
    mac = answer_mac(KEY, nonce, 200, b"{}")
    assert is_answer(KEY, nonce, 200, b"{}", mac)
    for case in (
        ("other", nonce, 200, b"{}", mac),
        (KEY, other, 200, b"{}", mac),
        (KEY, nonce, 503, b"{}", mac),
        (KEY, nonce, 200, b"[]", mac),
        (KEY, nonce, 200, b"{}", ""),
        (KEY, nonce, 200, b"{}", mac[:-1] + "é"),
    ):
        assert not is_answer(*case)


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(NodeRequests(KEY))
