"""TCP ports for child servers on the loopback address.

A server learns its port before it binds it, and binds the same one again after a restart. Meanwhile the port must not
go to another program: not to an outgoing connection, for which Linux picks a source port from 32,768 on, and not to
another process that chooses ports as we do. So ports come from below, and each process has blocks of its own: it holds
an abstract Unix socket named after the block, which goes with the process and belongs to the same network namespace.
"""

import os
import socket

BLOCK = 50
FIRST, END = 10_000, 20_000


class PortBlocks:
    """Hands out ports in turn, from blocks between `first` and `end` that this process has until it ends."""

    def __init__(self, first: int, end: int) -> None:
        self._blocks = range(first, end - BLOCK + 1, BLOCK)
        self._ports: list[int] = []
        self._at = 0
        self._held: list[socket.socket] = []

    def take(self, count: int) -> list[int]:
        """`count` ports that are free. Each comes again after all others of its block. Raises OSError: none is left."""
        found: list[int] = []
        passed = 0
        while len(found) < count:
            if passed == len(self._ports):
                self._add_block()
            port = self._ports[self._at]
            self._at = (self._at + 1) % len(self._ports)
            passed += 1
            if _is_free(port):
                found.append(port)
        return found

    def _add_block(self) -> None:
        """Processes begin at different places, so that they seldom try the same block."""
        first = os.getpid() % len(self._blocks)
        for number in range(len(self._blocks)):
            start = self._blocks[(first + number) % len(self._blocks)]
            name = socket.socket(socket.AF_UNIX)
            try:
                name.bind(f"\0sandwich-ports-{start}")
            except OSError:
                name.close()
                continue
            self._held.append(name)
            self._at = len(self._ports)
            self._ports += range(start, start + BLOCK)
            return
        raise OSError(f"every block of ports from {self._blocks[0]} to {self._blocks[-1] + BLOCK - 1} is taken")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


_blocks = PortBlocks(FIRST, END)


def free_ports(count: int) -> list[int]:
    """`count` TCP ports of the loopback address that only this process gives to servers."""
    return _blocks.take(count)
