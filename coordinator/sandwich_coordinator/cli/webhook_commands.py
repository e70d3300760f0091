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
    from sandwich_coordinator.store.etcd import EtcdStore
    from sandwich_coordinator.view import ClusterView

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
    from sandwich_coordinator.operations.bots import trusted_settings
    from sandwich_coordinator.operations.webhooks import WebhookSpec, create_webhook
    from sandwich_coordinator.webhooks.records import DEFAULT_KINDS

    connection = with_key_file(context.obj, key_file)
    key = None if insecure_plaintext else connection.key(os.environ)
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

    async def work() -> Any:
        async with connection.store() as store:
            await trusted_settings(store, connection.keys, key)
            return await create_webhook(store, connection.keys, key, name, spec, now=time.time())

    record, _ = run(work())
    say(f"webhook {name} reports to {record.host} from now on", err=as_json)
    if as_json:
        show_json({"webhook": name, "type": record.type, "host": record.host})


@webhook_app.command("list")
def webhook_list(context: typer.Context, as_json: Json = False) -> None:
    """The webhooks, and whether their messages arrive. Example: sandwich webhook list"""
    from sandwich_coordinator.operations.waiting import read_view

    async def look(store: "EtcdStore") -> "ClusterView":
        return await read_view(store, context.obj.keys)

    view = _with_store(context, look)
    rows = []
    for name, entry in sorted(view.webhooks.items()):
        state = view.webhook_states.get(name)
        record = entry.record
        rows.append(
            {
                "webhook": name,
                "type": record.type,
                "host": record.host,
                "ends_in": record.last4,
                "events": list(record.events),
                "severity": record.min_severity,
                "apps": list(record.apps),
                "failing_since": state.record.failing_since if state is not None else 0.0,
                "error": state.record.error if state is not None else "",
            }
        )
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
    """Send a test message from this machine. Example: sandwich webhook test alerts"""
    from sandwich_coordinator.operations.errors import NotFound
    from sandwich_coordinator.operations.waiting import read_view
    from sandwich_coordinator.operations.webhooks import send_test
    from sandwich_coordinator.webhooks.delivery import NotDelivered

    connection = with_key_file(context.obj, key_file)
    key = None if insecure_plaintext else connection.key(os.environ)

    async def work(store: "EtcdStore") -> None:
        view = await read_view(store, connection.keys)
        if name not in view.webhooks:
            raise NotFound("webhook", name, view.webhooks)
        try:
            await send_test(view.webhooks[name].record, key, cluster=connection.keys.cluster, now=time.time())
        except NotDelivered as error:
            raise CommandError(f"the message did not arrive: {error}", EXIT_CANNOT_SAY) from None

    _with_store(context, work)
    say(f"webhook {name} took the test message")


@webhook_app.command("remove")
def webhook_remove(context: typer.Context, name: Name) -> None:
    """Remove a webhook. Example: sandwich webhook remove alerts"""
    from sandwich_coordinator.operations.webhooks import remove_webhook

    _with_store(context, lambda store: remove_webhook(store, context.obj.keys, name))
    say(f"webhook {name} is removed")


def _with_store(context: typer.Context, work: Any) -> Any:
    async def connected() -> Any:
        async with context.obj.store() as store:
            return await work(store)

    return run(connected())
