"""A configuration for nats-server in which every application has its own account. Pure.

Subject permissions inside one account do not separate applications: a client that may send any request to JetStream
chooses the subject of the answer, and the server publishes there with its own permissions. For example, its empty
answer to an acknowledgement, sent to `$JS.API.STREAM.DELETE.X`, deletes stream X. Between accounts, an answer goes back
to the account of the request, so that an application can reach only the imports of its account.
"""

from collections.abc import Sequence

from sandwich_sdk.wire import subjects

DOMAIN = "sandwich"
"""Consumers use `$JS.sandwich.API`: `$JS.API` belongs to their own account, which has no streams."""
OWNER = "SANDWICH"
"""The account of the nodes, which has all streams."""
NODE_USER = "node"
OPERATOR_USER = "operator"

_STREAMED = "stream"
_ONE = "singleton"


def account_name(app: str) -> str:
    """The application's account."""
    return f"APP_{app}"


def password_variable(user: str) -> str:
    """The environment variable of nats-server that holds a user's password."""
    return f"NATS_{user.upper().replace('-', '_')}_PASSWORD"


def services(app: str) -> list[tuple[str, str]]:
    """The requests that an application's consumers may send, and the type of answer (docs/guide/consumers.md)."""
    events, tries, replays = (
        name(app) for name in (subjects.stream_name, subjects.tries_stream_name, subjects.replay_stream_name)
    )
    return [
        (f"$JS.API.STREAM.INFO.{events}", _ONE),
        (f"$JS.API.STREAM.MSG.GET.{events}", _ONE),
        (f"$JS.API.CONSUMER.INFO.{events}.*", _ONE),
        (f"$JS.API.CONSUMER.MSG.NEXT.{events}.*", _STREAMED),
        (f"$JS.ACK.{events}.*.>", _ONE),
        (f"$JS.API.STREAM.MSG.GET.{tries}", _ONE),
        (f"$JS.API.STREAM.MSG.GET.{replays}", _ONE),
        (f"$JS.API.CONSUMER.MSG.NEXT.{replays}.*", _STREAMED),
        (f"$JS.ACK.{replays}.*.>", _ONE),
        (subjects.dead_subject(app, "*"), _ONE),
        (subjects.tries_subject(app, "*", "*"), _ONE),
        (f"sandwich.{app}.rpc.*", _STREAMED),
    ]


def server_config(apps: Sequence[str], *, store: str, listen: str = "0.0.0.0:4222") -> str:
    """The whole file. Raises ValueError for an invalid name, or two that need the same variable."""
    users = [NODE_USER, OPERATOR_USER, *(subjects.check_name(app, what="application") for app in apps)]
    variables = [password_variable(user) for user in users]
    for variable in variables:
        if variables.count(variable) > 1:
            raise ValueError(f"two users would have the password {variable}: give them separate servers or names")
    lines = [
        "# Made by `sandwich nats-config " + " ".join(apps) + "`. Passwords come from the environment of nats-server:",
        "# letters and digits, a letter first, or it takes them for something else.",
        f'listen: "{listen}"',
        f'jetstream {{ store_dir: "{store}", sync_interval: always }}',
        "accounts {",
        f"  {OWNER} {{",
        "    jetstream: enabled",
        "    users: [",
        *(f'      {{ user: "{user}", password: ${password_variable(user)} }}' for user in users[:2]),
        "    ]",
        "    exports: [",
        *(line for app in apps for line in _exports(app)),
        "    ]",
        "  }",
        *(line for app in apps for line in _account(app)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _exports(app: str) -> list[str]:
    to = f'accounts: ["{account_name(app)}"]'
    exported = [f'{{ service: "{subject}", response_type: {kind}, {to} }}' for subject, kind in services(app)]
    return [f"      {line}" for line in [*exported, f'{{ stream: "{subjects.status_subject(app)}", {to} }}']]


def _account(app: str) -> list[str]:
    imported = [
        *(_import(subject) for subject, _ in services(app)),
        f'{{ stream: {{ account: {OWNER}, subject: "{subjects.status_subject(app)}" }} }}',
    ]
    return [
        f'  "{account_name(app)}" {{',
        f'    users: [ {{ user: "{app}", password: ${password_variable(app)} }} ]',
        "    imports: [",
        *(f"      {line}" for line in imported),
        "    ]",
        "  }",
    ]


def _import(subject: str) -> str:
    local = subject.replace("$JS.API.", f"$JS.{DOMAIN}.API.")
    to = f', to: "{local}"' if local != subject else ""
    return f'{{ service: {{ account: {OWNER}, subject: "{subject}" }}{to} }}'
