"""One message to a real server: what arrives, and to where nothing is sent."""

import asyncio

import pytest

from sandwich_coordinator.webhooks import delivery
from sandwich_coordinator.webhooks.delivery import Destination, Message, NotDelivered, deliver
from sandwich_coordinator.webhooks.messages import signature
from tests.support.hook_server import hook_server

MESSAGE = Message(b'{"v":1}', 1_800_000_000)


async def failure(destination: Destination, resolve: delivery.Resolve = delivery.system_addresses) -> NotDelivered:
    with pytest.raises(NotDelivered) as caught:
        await deliver(destination, MESSAGE, resolve=resolve)
    assert "hush" not in str(caught.value)
    return caught.value


async def test_a_message_arrives_with_its_signature() -> None:
    async with hook_server() as server:
        await deliver(Destination(url=server.url, secret="s" * 16, allow_private=True), MESSAGE)
        ((headers, body),) = server.received
    assert body == MESSAGE.body
    assert headers["Content-Type"] == "application/json"
    assert headers["Sandwich-Timestamp"] == "1800000000"
    assert headers["Sandwich-Signature"] == signature("s" * 16, 1_800_000_000, body)


async def test_private_addresses_are_not_connected_to() -> None:
    async with hook_server() as server:
        error = await failure(Destination(url=server.url))
        assert "private network" in str(error)
        error = await failure(Destination(url=f"http://localhost:{server.port}/hush"))
        assert "name of this machine" in str(error)
        assert server.received == []


@pytest.mark.parametrize("host", ["rebind.example.com", "0x7f.1"])
async def test_a_name_that_leads_to_this_machine_is_refused_when_it_is_resolved(host: str) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["1.1.1.1", "127.0.0.1"]

    async with hook_server() as server:
        error = await failure(Destination(url=f"http://{host}:{server.port}/hush"), resolve)
        assert "127.0.0.1 is an address of a private network" in str(error)
        assert server.received == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0.0", "127.0.0.1.", "١٢٧.0.0.1"])
@pytest.mark.parametrize("allow_private", [False, True])
async def test_an_address_in_another_form_is_refused(host: str, allow_private: bool) -> None:
    async with hook_server() as server:
        await failure(Destination(url=f"http://{host}:{server.port}/hush", allow_private=allow_private))
        assert server.received == []


async def test_dns_that_changes_is_checked_with_every_message() -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def resolve(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    async with hook_server() as server:
        destination = Destination(url=f"http://hooks.example.com:{server.port}/hush", allow_private=True)
        await deliver(destination, MESSAGE, resolve=resolve)
        assert server.received[0][0]["Host"] == f"hooks.example.com:{server.port}"
        assert "no address that a webhook may send to" in str(await failure(destination, resolve))
    assert answers == []


async def test_a_redirect_is_not_followed() -> None:
    async with hook_server() as other, hook_server() as server:
        server.answers = [(307, {"Location": other.url}, "")]
        assert "redirect" in str(await failure(Destination(url=server.url, allow_private=True)))
        assert other.received == []


@pytest.mark.parametrize(
    ("answer", "words", "retry_after_s"),
    [
        ((500, {}, "hush"), "HTTP 500", 0.0),
        ((404, {}, ""), "HTTP 404: there is no such webhook", 0.0),
        ((429, {"Retry-After": "7"}, ""), "HTTP 429: too many messages", 7.0),
        ((429, {}, '{"retry_after": 1.5, "global": true}'), "HTTP 429: too many messages", 1.5),
        ((429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, ""), "HTTP 429: too many messages", 0.0),
        ((429, {"Retry-After": "nan"}, ""), "HTTP 429: too many messages", 0.0),
        ((503, {"Retry-After": "1e300"}, ""), "HTTP 503", 3600.0),
    ],
)
async def test_a_refusal_says_when_to_try_again(
    answer: tuple[int, dict[str, str], str], words: str, retry_after_s: float
) -> None:
    async with hook_server(answers=[answer]) as server:
        error = await failure(Destination(url=server.url, allow_private=True))
    assert (str(error), error.retry_after_s) == (words, retry_after_s)


async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_S", 0.2)
    async with hook_server(hold=asyncio.Event()) as server:
        assert "no answer in 0.2 s" in str(await failure(Destination(url=server.url, allow_private=True)))
    assert "refused" in str(await failure(Destination(url=server.url, allow_private=True)))


async def test_a_name_that_does_not_exist() -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    assert "cannot be resolved" in str(await failure(Destination(url="https://nope.example.com/hush"), resolve))


def test_a_destination_does_not_show_itself() -> None:
    assert "hush" not in repr(Destination(url="https://x/hush", secret="hush"))
    assert "hush" not in repr(Message(b"hush", 1))
