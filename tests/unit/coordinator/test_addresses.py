"""HOST:PORT, including IPv6, is built and parsed in one way everywhere."""

import pytest
from pydantic import ValidationError

from sandwich_coordinator.addresses import Address, check_url_host, http_url, parse_address, parse_advertised
from sandwich_coordinator.config import DiscordConfig, NatsConfig, RedisConfig
from sandwich_coordinator.store.etcd import EtcdStore

ZONE = "fe80::1%eth0"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5469", Address("127.0.0.1", 5469)),
        ("node-a.example:1", Address("node-a.example", 1)),
        ("[::1]:5469", Address("::1", 5469)),
        ("[2001:db8::1]:65535", Address("2001:db8::1", 65535)),
        ("[::ffff:10.0.0.1]:80", Address("::ffff:10.0.0.1", 80)),
    ],
)
def test_an_address_is_read_and_written_the_same_way(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text
    assert http_url(str(address)) == f"http://{text}"
    assert parse_advertised(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("::1:5469", r"\[::1\]:5469"),
        ("2001:db8::1", "IPv6"),
        ("::1", "IPv6"),
        ("[::1]", "HOST:PORT|IPv6"),
        ("[::1]:", "port"),
        ("[localhost]:80", "IPv6"),
        (f"[{ZONE}]:80", "zone"),
        (f"{ZONE}:80", "zone"),
        ("localhost", "HOST:PORT"),
        (":80", "HOST:PORT"),
        ("", "HOST:PORT"),
        ("a:b", "port"),
        ("a:-1", "port"),
        ("a:٣", "port"),
        ("a:65536", "port"),
        ("a:0", "port 0"),
        ("a b:1", "HOST:PORT"),
        ("http://a:1", "HOST:PORT"),
        ("u@a:1", "HOST:PORT"),
    ],
)
def test_an_invalid_address_is_refused_with_the_right_form(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


def test_a_listening_address_may_leave_the_port_to_the_system() -> None:
    assert parse_address("[::1]:0", any_port=True) == Address("::1", 0)


def test_addresses_that_older_nodes_registered_still_work() -> None:
    assert http_url("::1:45835") == "http://[::1]:45835"
    assert http_url("10.0.0.1:5469") == "http://10.0.0.1:5469"
    assert http_url("https://node.example/") == "https://node.example"


@pytest.mark.parametrize("text", ["ftp://h:1", "http://", "http://h:0", f"http://[{ZONE}]:1", "h", "http://u@h:1"])
def test_a_node_is_not_registered_with_an_unreachable_address(text: str) -> None:
    with pytest.raises(ValueError):
        parse_advertised(text)


@pytest.mark.parametrize("scheme", ["http", "https", "nats", "tls", "redis", "rediss", "ws"])
def test_urls_take_ipv6_in_brackets_and_no_zone(scheme: str) -> None:
    for good in ("[::1]:1", "[2001:db8::1]", "[::1]:1/path/a:b:c", "u@[::1]:1", "h:1", "h", "u:p%3Aw@h:1"):
        check_url_host(f"{scheme}://{good}")
    for bad in ("::1", "::1:1", "u@::1:1", f"[{ZONE}]:1", "[fe80::1%25eth0]:1", f"{ZONE}"):
        with pytest.raises(ValueError, match="IPv6"):
            check_url_host(f"{scheme}://{bad}")


def test_every_url_of_the_configuration_and_of_etcd_is_checked() -> None:
    NatsConfig(servers=("nats://[::1]:4222",))
    RedisConfig.model_validate({"url": "redis://[::1]:6379/0"})
    DiscordConfig(api_url="http://[::1]:80/api")
    EtcdStore(["http://[::1]:2379", "[::1]:2379"])
    for host in (f"[{ZONE}]", "::1"):
        with pytest.raises(ValidationError, match="IPv6"):
            NatsConfig(servers=(f"nats://{host}:4222",))
        with pytest.raises(ValidationError, match="IPv6"):
            RedisConfig.model_validate({"url": f"redis://{host}:6379/0"})
        with pytest.raises(ValidationError, match="IPv6"):
            DiscordConfig(api_url=f"http://{host}:80/api")
        with pytest.raises(ValueError, match="IPv6"):
            EtcdStore([f"http://{host}:2379"])
