"""Ports for child servers: never one that another process or an outgoing connection may take."""

import socket
import subprocess
import sys

import pytest

from sandwich_node.dev.ports import BLOCK, END, FIRST, PortBlocks, free_ports

LOWEST_SOURCE_PORT = 32_768
FREE = range(22_800, 23_000, BLOCK)
"""Blocks that nothing else uses. Each test has its own, because tests run in parallel."""


def test_ports_are_below_the_range_of_outgoing_connections_and_do_not_repeat() -> None:
    blocks = PortBlocks(FIRST, END)
    ports = [port for _ in range(10) for port in blocks.take(3)]
    assert len(set(ports)) == 30
    assert all(FIRST <= port < END < LOWEST_SOURCE_PORT for port in ports)


def test_two_processes_never_share_a_block() -> None:
    program = "from sandwich_node.dev.ports import free_ports; print(*free_ports(80)); input()"
    others = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        taken = [set(free_ports(80))]
        for other in others:
            assert other.stdout is not None
            taken.append({int(word) for word in other.stdout.readline().split()})
    finally:
        for other in others:
            other.communicate("\n", timeout=20)
    assert [len(ports) for ports in taken] == [80] * 4
    assert len(set.union(*taken)) == 4 * 80


def test_a_used_port_is_skipped() -> None:
    blocks = PortBlocks(FREE[0], FREE[1])
    (first,) = blocks.take(1)
    with socket.socket() as used:
        used.bind(("127.0.0.1", first + 1))
        used.listen()
        assert blocks.take(2) == [first + 2, first + 3]


def test_no_free_block_is_an_error_and_a_released_block_is_found() -> None:
    one, other = PortBlocks(FREE[1], FREE[2]), PortBlocks(FREE[1], FREE[2])
    assert len(one.take(BLOCK)) == BLOCK
    with pytest.raises(OSError, match="every block of ports from 22850 to 22899 is taken"):
        other.take(1)
    del one
    assert other.take(1) == [FREE[1]]
