"""A server that refuses the credentials also closes the connection: the refusal is what is said."""

import nats.errors
import pytest

from sandwich_coordinator.problems import Code
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions


@pytest.mark.parametrize("closed", [ConnectionResetError(104, "Connection reset by peer"), BrokenPipeError(32, "pipe")])
async def test_a_closed_connection_does_not_hide_the_refusal(closed: OSError) -> None:
    connection = NatsConnection(NatsOptions(servers=("nats://10.0.0.1:4222",)))
    await connection._on_error(nats.errors.AuthorizationError())
    await connection._on_error(closed)
    found = connection._unreachable(TimeoutError())
    assert (found.code, "authorization refused" in str(found)) == (Code.NATS_UNAUTHORIZED, True)


async def test_a_server_that_is_not_there_is_said_although_another_refused() -> None:
    connection = NatsConnection(NatsOptions(servers=("nats://10.0.0.1:4222",)))
    await connection._on_error(nats.errors.AuthorizationError())
    await connection._on_error(ConnectionRefusedError(111, "Connection refused"))
    found = connection._unreachable(TimeoutError())
    assert (found.code, "Connection refused" in str(found)) == (Code.NATS_UNREACHABLE, True)
