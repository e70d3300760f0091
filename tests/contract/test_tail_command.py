"""`sandwich tail` in a terminal, against a real etcd and a real NATS."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest

from sandwich_coordinator.cli.widths import cell_len
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats
from tests.support.publisher import Publisher

pytestmark = pytest.mark.contract
WIDTH = 72
FILE = """\
version: 1
nats: {servers: ["%s"]}
redis: {url: "redis://127.0.0.1:9/0"}
apps:
  bot: {token: {env: BOT_TOKEN}, intents: [GUILDS]}
"""


class Terminal:
    """A terminal of 72 columns with `sandwich` in it."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        os.set_blocking(self._ours, False)
        self.text = ""

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        program = "from sandwich_coordinator.cli.entry import main; main()"
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *arguments, env=self._env, stdout=self._theirs, stderr=self._theirs
        )

    def look(self) -> str:
        try:
            self.text += os.read(self._ours, 1 << 16).decode()
        except BlockingIOError:
            pass
        return self.text

    def close(self) -> None:
        os.close(self._ours)
        os.close(self._theirs)


async def test_an_event_is_one_line_of_the_terminal_and_ctrl_c_ends_with_130(
    server: EmbeddedNats, publisher: Publisher, tmp_path: Path
) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd:
        (tmp_path / "cluster.yml").write_text(FILE % server.url)
        env = {"SANDWICH_ETCD": etcd.url, "BOT_TOKEN": "canary-token", "NO_COLOR": "1"}
        terminal = Terminal(env)
        applying = await terminal.start("cluster", "apply", "-f", str(tmp_path / "cluster.yml"), "--insecure-plaintext")
        assert await applying.wait() == 0, terminal.look()
        tailing = await terminal.start("tail", "--type", "MESAGE_CREATE", "--type", "MESSAGE_*")
        async with asyncio.timeout(60):
            # It shows what is published after it began to look, which nothing announces.
            while "bot 0/64" not in terminal.look().partition("MESAGE_CREATE")[2]:
                await publisher.events(1, types=("MESSAGE_UPDATE",))
                await asyncio.sleep(0.1)
            tailing.send_signal(signal.SIGINT)
            assert await tailing.wait() == 130
        lines = terminal.look().replace("\r\n", "\n").splitlines()
        assert "canary-token" not in terminal.text
        assert "Traceback" not in terminal.text
        assert any("did you mean MESSAGE_CREATE?" in line for line in lines)
        events = [line for line in lines if line.endswith("MESSAGE_UPDATE bot 0/64")]
        assert events
        assert all(cell_len(line) <= WIDTH for line in events)
        terminal.close()
