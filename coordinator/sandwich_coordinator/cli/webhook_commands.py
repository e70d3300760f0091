"""`sandwich webhook` as help shows it; a command imports its operation when it runs."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandwich_coordinator.cli.errors import EXIT_CANNOT_SAY, CommandError
from sandwich_coordinator.cli.options import Json, KeyFile, command_group, run, with_key_file
from sandwich_coordinator.cli.output import say, show_json

if TYPE_CHECKING:
    from sandwich_coordinator.cli.webhook_access import MadeWebhook

webhook_app = command_group("Messages about the cluster, in a Discord channel or to an HTTP server.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name.")]
Plaintext = Annotated[
    bool, typer.Option("--insecure-plaintext", help="For a cluster without a key: store the URL unsealed.")
]


@webhook_app.command("add")
def webhook_add(
    context: typer.Context,
    name: Name,
    url_env: Annotated[str | None, typer.Option("--url-env", metavar="NAME", help="The URL's variable.")] = None,
    url_file: Annotated[Path | None, typer.Option("--url-file", metavar="PATH", help="The URL's file.")] = None,
    events: Annotated[
        list[str] | None,
        typer.Option("--event", help="What to report; may be repeated: problems, apps ..."),
    ] = None,
    severity: Annotated[str, typer.Option("--severity", help="At least notice, warning or critical.")] = "notice",
    apps: Annotated[list[str] | None, typer.Option("--app", help="Only of this application; may be repeated.")] = None,
    template: Annotated[str, typer.Option("--template", help="The words of a notice, with $summary and others.")] = "",
    secret_env: Annotated[
        str | None, typer.Option("--secret-env", metavar="NAME", help="The variable of the signature's secret.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option("--secret-file", metavar="PATH", help="The file of the signature's secret.")
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Also http://, and addresses of private networks.")
    ] = False,
    key_file: KeyFile = None,
    insecure_plaintext: Plaintext = False,
    as_json: Json = False,
) -> None:
    """Report what happens to a Discord webhook, or another URL. The URL is a secret: it is sealed and not shown again.

    The URL comes from --url-env, --url-file, a pipe, or is asked for without echo; never from an argument.

    Example: sandwich webhook add alerts --url-file url.txt --severity warning
    """
    from sandwich_coordinator.cli.token_input import read_secret
    from sandwich_coordinator.cli.webhook_access import open_webhooks
    from sandwich_coordinator.operations.webhooks import WebhookSpec, check_choice
    from sandwich_coordinator.webhooks.records import DEFAULT_KINDS

    connection = with_key_file(context.obj, key_file)
    key = connection.sealing_key(os.environ, plaintext=insecure_plaintext)
    secret = ""
    if secret_env is not None or secret_file is not None:
        secret = read_secret("the secret", "secret", secret_env, secret_file, os.environ)
    spec = WebhookSpec(
        url=read_secret("the webhook's URL", "url", url_env, url_file, os.environ),
        events=tuple(events) if events else DEFAULT_KINDS,
        min_severity=severity,
        apps=apps or (),
        template=template,
        secret=secret,
        allow_private=allow_private,
    )

    check_choice(spec.events, spec.min_severity)

    async def work() -> "MadeWebhook":
        async with open_webhooks(connection) as webhooks:
            return await webhooks.add(name, spec, key, now=time.time())

    made = run(work())
    say(f"webhook {name} reports to {made.host} from now on", err=as_json)
    if as_json:
        show_json({"webhook": name, "type": made.type, "host": made.host})


@webhook_app.command("list")
def webhook_list(context: typer.Context, as_json: Json = False) -> None:
    """The webhooks, and whether their messages arrive. Example: sandwich webhook list"""
    from sandwich_coordinator.cli.webhook_access import open_webhooks

    async def look() -> list[dict[str, Any]]:
        async with open_webhooks(context.obj) as webhooks:
            return await webhooks.rows()

    rows = run(look())
    if as_json:
        show_json(rows)
        return
    for row in rows:
        what = f"{row['type']} {row['host']} (...{row['ends_in']}): {', '.join(row['events'])}"
        of = f" of {', '.join(row['apps'])}" if row["apps"] else ""
        say(f"{row['webhook']}  {what}{of}, {row['severity']} or worse" + (f"; {row['error']}" if row["error"] else ""))
    if not rows:
        say("there are no webhooks: sandwich webhook add NAME")


@webhook_app.command("test")
def webhook_test(
    context: typer.Context, name: Name, key_file: KeyFile = None, insecure_plaintext: Plaintext = False
) -> None:
    """Send a test message from this machine, or with --api from the node. Example: sandwich webhook test alerts"""
    from sandwich_coordinator.cli.webhook_access import open_webhooks

    connection = with_key_file(context.obj, key_file)
    key = connection.sealing_key(os.environ, plaintext=insecure_plaintext)

    async def work() -> str:
        async with open_webhooks(connection) as webhooks:
            return await webhooks.test(name, key, now=time.time())

    if failure := run(work()):
        raise CommandError(f"the message did not arrive: {failure}", EXIT_CANNOT_SAY)
    say(f"webhook {name} took the test message")


@webhook_app.command("remove")
def webhook_remove(context: typer.Context, name: Name) -> None:
    """Remove a webhook. Example: sandwich webhook remove alerts"""
    from sandwich_coordinator.cli.webhook_access import open_webhooks

    async def work() -> None:
        async with open_webhooks(context.obj) as webhooks:
            await webhooks.remove(name)

    run(work())
    say(f"webhook {name} is removed")
