import pytest

from sandwich_node.api.clients import client_address, is_https, network_of
from sandwich_node.api.limits import RateLimit

PROXIES = ["10.0.0.0/24", "fd00::/8"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.5", [], "10.0.0.5"),
        ("10.0.0.5", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.5", ["192.0.2.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.5", ["203.0.113.9, 10.0.0.6"], "203.0.113.9"),
        ("10.0.0.5", ["203.0.113.9", "10.0.0.6"], "203.0.113.9"),
        ("10.0.0.5", ["203.0.113.9, not an address"], "10.0.0.5"),
        ("::ffff:10.0.0.5", ["2001:db8::1"], "2001:db8::1"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_only_trusted_proxies_say_who_the_client_is(peer: str, forwarded: list[str], client: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == client


@pytest.mark.parametrize(
    ("scheme", "peer", "proto", "secure"),
    [
        ("http", "10.0.0.5", "https", True),
        ("http", "10.0.0.5", "http, https", True),
        ("http", "10.0.0.5", "https, http", False),
        ("http", "198.51.100.1", "https", False),
        ("https", "198.51.100.1", "http", True),
        ("https", "10.0.0.5", "http", False),
        ("http", "10.0.0.5", "", False),
    ],
)
def test_only_trusted_proxies_say_that_it_was_https(scheme: str, peer: str, proto: str, secure: bool) -> None:
    assert is_https(scheme, peer, proto, PROXIES) is secure


def test_clients_of_one_network_are_one() -> None:
    assert network_of("203.0.113.9") == "203.0.113.9"
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("?") == ""


def test_a_limit_refills_and_its_table_is_bounded() -> None:
    limit = RateLimit(burst=2, every_s=10, clients_max=3)
    assert [limit.take("a", 0.0), limit.take("a", 0.0)] == [0.0, 0.0]
    assert limit.take("a", 4.0) == pytest.approx(6.0)
    assert limit.take("a", 10.0) == 0.0
    assert limit.take("a", 10.0) > 0
    for number in range(100):
        limit.take(str(number), 10.0)
    assert len(limit._buckets) == 3
