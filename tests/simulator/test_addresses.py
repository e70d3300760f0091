"""The addresses that the simulator gives its clients."""

from typing import Any

import aiohttp
import pytest

from sandwich_simulator import BotConfig, ConfigError, Simulator, SimulatorConfig

TOKEN = "a-token"


async def named(simulator: Simulator) -> str:
    url = f"http://127.0.0.1:{simulator.port}/api/v10/gateway/bot"
    async with aiohttp.ClientSession() as http, http.get(url, headers={"Authorization": f"Bot {TOKEN}"}) as response:
        return str((await response.json())["url"])


async def control(simulator: Simulator, body: dict[str, Any]) -> int:
    url = f"http://127.0.0.1:{simulator.port}/_sim/gateway"
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        return response.status


@pytest.mark.parametrize(
    ("host", "advertise", "expected"),
    [
        ("0.0.0.0", "", "ws://127.0.0.1:{}"),
        ("0.0.0.0", "discord.test", "ws://discord.test:{}"),
        ("0.0.0.0", "discord.test:443", "ws://discord.test:443"),
        ("127.0.0.1", "[2001:db8::1]:8090", "ws://[2001:db8::1]:8090"),
        ("127.0.0.1", "[2001:db8::1]", "ws://[2001:db8::1]:{}"),
        ("127.0.0.1", "10.0.0.7", "ws://10.0.0.7:{}"),
    ],
)
async def test_clients_get_the_advertised_address(host: str, advertise: str, expected: str) -> None:
    config = SimulatorConfig(bots=[BotConfig(token=TOKEN)], host=host, advertise=advertise)
    async with Simulator(config) as simulator:
        assert await named(simulator) == expected.format(simulator.port)
        assert simulator.api_url == expected.format(simulator.port).replace("ws", "http") + "/api/v10"


@pytest.mark.parametrize("host", ["::", "::1"])
def test_an_ipv6_address_is_bracketed(host: str) -> None:
    assert SimulatorConfig(host=host).reached_at(8090) == "[::1]:8090"


@pytest.mark.parametrize(
    "advertise", ["0.0.0.0", "[::]:1", "ws://host", "host:port", "host:70000", "a@b", "h/p", ":1", " "]
)
def test_an_address_that_no_client_can_use_is_refused(advertise: str) -> None:
    with pytest.raises(ConfigError, match="advertise"):
        SimulatorConfig(advertise=advertise)


async def test_the_gateway_address_can_be_changed_and_restored() -> None:
    async with Simulator(SimulatorConfig(bots=[BotConfig(token=TOKEN)])) as simulator:
        own = await named(simulator)
        assert await control(simulator, {"url": "ws://127.0.0.1:1"}) == 200
        assert await named(simulator) == "ws://127.0.0.1:1"
        assert await control(simulator, {"url": ""}) == 200
        assert await named(simulator) == own
        assert await control(simulator, {"address": "x"}) == 400
