"""A nats-server with the accounts of `sandwich nats-config`."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandwich_coordinator.cli import accounts
from sandwich_node.dev import embedded
from sandwich_node.dev.embedded import EmbeddedNats

DOCS = Path(__file__).parents[2] / "docs/guide" / "consumers.md"
PARTITIONS = 32


def documented() -> list[str]:
    """All subjects in the permissions section of the docs, unchanged."""
    section = DOCS.read_text().partition("\n## Permissions\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.split()]


def rights(app: str, group: str, *, partitions: int = PARTITIONS) -> list[str]:
    """The subjects that a group's user publishes to, according to the docs."""
    lines = [*documented(), "sandwich.<app>.workers.<group>"]
    named = [line.replace("<app>", app).replace("<group>", group) for line in lines]
    spread = [line.replace("<p>", str(p)) for line in named for p in range(partitions if "<p>" in line else 1)]
    return [line.replace("$JS.API.", f"$JS.{accounts.DOMAIN}.API.") for line in spread]


class AccountNats(EmbeddedNats):
    """`apps`: the group of each application's user, who has the rights in the docs; "": the account's own user.

    A user's password is the user's name.
    """

    def __init__(self, directory: Path, apps: Mapping[str, str]) -> None:
        super().__init__(directory)
        self.apps = apps

    def command(self) -> Sequence[str]:
        command = super().command()
        text = accounts.server_config(list(self.apps), store=str(self.store), listen=f"127.0.0.1:{self.port}")
        for user in (accounts.NODE_USER, accounts.OPERATOR_USER, *self.apps):
            text = text.replace(f"${accounts.password_variable(user)} ", f'"{user}" ')
        for app, group in self.apps.items():
            if group:
                subscribed = json.dumps(["_INBOX.>", f"sandwich.{app}.workers.{group}"])
                allowed = f"permissions: {{ publish: {json.dumps(rights(app, group))}, subscribe: {subscribed} }}"
                text = text.replace(f'password: "{app}" }}', f'password: "{app}", {allowed} }}')
        (self.directory / "nats.conf").write_text(text)
        return command

    async def ready(self) -> bool:
        hello = b'CONNECT {"verbose":false,"user":"node","pass":"node"}\r\nPING\r\n'
        return await embedded._answers(self.port, hello, b"PONG")

    @property
    def violations(self) -> list[str]:
        """The server's log lines about refused subjects."""
        return [line for line in (self.directory / "nats.log").read_text().splitlines() if "iolation" in line]
