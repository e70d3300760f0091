import pytest

from sandwich_coordinator.webhooks.destinations import address_refusal, check_url, host_refusal, shown_url

DISCORD = "https://discord.com/api/webhooks/123456789012345678/" + "a" * 68
PRIVATE = ["10.0.0.1", "192.168.1.1", "172.16.0.1", "127.0.0.1", "::1", "fd00::1", "100.64.0.1", "::ffff:10.0.0.1"]
PRIVATE += ["2002:7f00:1::", "64:ff9b::7f00:1", "::127.0.0.1", "fec0::1", "0.1.2.3", "198.18.0.1"]
NEVER = ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "240.0.0.1"]
NEVER += ["255.255.255.255", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "fe80::1%eth0", "2002:a9fe:a9fe::"]


@pytest.mark.parametrize("address", ["1.1.1.1", "162.159.128.233", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_fine(address: str) -> None:
    assert address_refusal(address, allow_private=False) == ""


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_a_word(address: str) -> None:
    assert "allow_private" in address_refusal(address, allow_private=False)
    assert address_refusal(address, allow_private=True) == ""


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_refused_in_any_case(address: str) -> None:
    assert address_refusal(address, allow_private=False)
    assert "no address" in address_refusal(address, allow_private=True)


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "printer.local", "metadata.google.internal", "LOCALHOST."]
)
def test_local_names_are_refused_before_they_are_resolved(host: str) -> None:
    assert host_refusal(host, allow_private=False)
    assert host_refusal(host, allow_private=True) == ""


def test_urls_that_are_fine() -> None:
    assert check_url(DISCORD, "discord", allow_private=False) == DISCORD
    for url in ("https://example.com/hook?x=1", "https://example.com:8443/"):
        assert check_url(url, "generic", allow_private=False) == url
    assert check_url("http://10.0.0.1:9000/hook", "generic", allow_private=True)
    assert shown_url(DISCORD) == ("discord.com", "aaaa")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hush",
        "ftp://example.com/hush",
        "https://user:hush@example.com/",
        "https:///hush",
        "https://127.0.0.1/hush",
        "https://[::ffff:127.0.0.1]/hush",
        "https://localhost/hush",
        "https://example.com/hu sh",
        "https://example.com/hush\n",
        "https://example.com:99999/hush",
        "https://example.com/#hush",
        "https://[::1/hush",
        "x" * 3000,
    ],
)
def test_urls_that_are_refused_are_never_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_url(url, "generic", allow_private=False)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://example.com/x", DISCORD.replace("discord.com", "discord.com.example.org"), DISCORD + "/.."]
)
def test_a_discord_webhook_has_discords_url(url: str) -> None:
    with pytest.raises(ValueError, match="no webhook URL of Discord"):
        check_url(url, "discord", allow_private=False)
