"""Tokens and web sessions: what is genuine counts, and nothing else does."""

import base64
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.access.identities import (
    SESSION_S,
    WebSession,
    has_admin,
    read_web_session,
    token_identity,
    user_identity,
    web_session_text,
)
from sandwich_coordinator.access.records import (
    SignInRecord,
    TokenRecord,
    UserRecord,
    is_genuine,
    proved,
    secret_hash,
    token_text,
)
from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import Record
from sandwich_coordinator.view import ClusterView

KEYS = Keys("c")
KEY, OTHER = ClusterKey.generate(), ClusterKey.generate()
NOW = 1_800_000_000.0
USER = "613425648685547541"
SECRET = "s" * 43
TOKEN = TokenRecord(id="abc", name="ci", role="operator", hash=secret_hash(SECRET), created_at=NOW)
TEXT = token_text("abc", SECRET)
SIGN_IN = SignInRecord(user=USER, secret="0" * 64)
SESSION = WebSession(user=USER, name="rock", ends_at=NOW + SESSION_S)


def view_of(*records: Record) -> ClusterView:
    items: dict[str, KeyValue] = {}
    for record in records:
        match record:
            case TokenRecord():
                path = KEYS.token(record.id)
            case UserRecord():
                path = KEYS.user(record.user)
            case SignInRecord():
                path = KEYS.sign_in(record.user)
        items[path] = KeyValue(path, record.encode(), 1, 1, 1)
    return ClusterView.from_items(KEYS, items)


def made(**changes: Any) -> TokenRecord:
    return proved(msgspec.structs.replace(TOKEN, **changes), "c", KEY)


def test_a_token_is_known_by_its_secret() -> None:
    view = view_of(made(apps=["welcomer"]))
    assert token_identity(view, KEY, TEXT, NOW) == Identity("token", "ci", Role.OPERATOR, frozenset({"welcomer"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "swt",
        "swt_",
        "swt_abc",
        "swt_abc_",
        TEXT[:-1],
        TEXT + "s",
        "swt_xyz_" + SECRET,
        "SWT" + TEXT[3:],
        "swt_abc_é\ud800",
    ],
)
def test_any_other_text_is_unknown(text: str) -> None:
    assert token_identity(view_of(made()), KEY, text, NOW) is None


def test_a_token_ends_at_its_time() -> None:
    view = view_of(made(expires_at=NOW + 1))
    assert token_identity(view, KEY, TEXT, NOW) is not None
    assert token_identity(view, KEY, TEXT, NOW + 1) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "admin"},
        {"apps": None},
        {"apps": ["welcomer", "other"]},
        {"expires_at": 0.0},
        {"name": "another"},
        {"hash": secret_hash("x" * 43)},
        {"proof": ""},
        {"proof": "v1:x:y"},
    ],
)
def test_a_writer_to_etcd_without_the_key_gives_itself_nothing(changes: dict[str, Any]) -> None:
    genuine = made(apps=["welcomer"], expires_at=NOW + 1)
    forged = msgspec.structs.replace(genuine, **changes)
    assert is_genuine(genuine, "c", KEY)
    assert not is_genuine(forged, "c", KEY)
    assert token_identity(view_of(forged), KEY, TEXT, NOW) is None


def test_a_record_counts_in_its_cluster_under_its_key_and_as_what_it_is() -> None:
    assert not is_genuine(made(), "d", KEY)
    assert not is_genuine(made(), "c", OTHER)
    assert not is_genuine(made(), "c", None)
    assert is_genuine(proved(TOKEN, "c", None), "c", None)
    assert not is_genuine(TOKEN, "c", KEY)
    moved = msgspec.structs.replace(made(), id="xyz")
    assert token_identity(view_of(moved), KEY, token_text("xyz", SECRET), NOW) is None


def test_the_first_admins_token_ends_when_another_admin_exists() -> None:
    first = made(id="first", name="first admin", role="admin")
    text = token_text("first", SECRET)
    no_admins = [
        made(id="a", name="a"),
        made(id="b", name="b", role="admin", apps=["welcomer"]),
        made(id="c", name="c", role="admin", expires_at=NOW - 1),
        msgspec.structs.replace(made(id="d", name="d"), role="admin"),
        UserRecord(user="1", role="admin"),
        proved(UserRecord(user="2", role="operator"), "c", KEY),
    ]
    view = view_of(first, *no_admins)
    assert not has_admin(view, KEY, NOW)
    assert token_identity(view, KEY, text, NOW) is not None
    for admin in (made(id="e", name="e", role="admin"), proved(UserRecord(user="3", role="admin"), "c", KEY)):
        view = view_of(first, *no_admins, admin)
        assert has_admin(view, KEY, NOW)
        assert token_identity(view, KEY, text, NOW) is None


@pytest.mark.parametrize("key", [KEY, None])
def test_a_session_is_accepted_until_it_ends(key: ClusterKey | None) -> None:
    text = web_session_text(SESSION, "c", key, SIGN_IN)
    view = view_of(SIGN_IN)
    assert read_web_session(view, key, text, NOW) == SESSION
    assert read_web_session(view, key, text, SESSION.ends_at) is None


@pytest.mark.parametrize("key", [KEY, None])
def test_a_forged_session_is_refused(key: ClusterKey | None) -> None:
    text = web_session_text(SESSION, "c", key, SIGN_IN)
    prefix, payload, mac = text.split(".")
    stranger = msgspec.json.encode(msgspec.structs.replace(SESSION, ends_at=NOW * 2))
    changed = base64.urlsafe_b64encode(stranger).rstrip(b"=").decode()
    view = view_of(SIGN_IN)
    forged = [
        "",
        text[:-1],
        text + "A",
        f"{prefix}.{changed}.{mac}",
        f"{prefix}.{payload}.",
        f"{prefix}.{payload}",
        f"sws2.{payload}.{mac}",
        f"{prefix}.{payload}é.{mac}",
        f"{prefix}.{payload}.{mac}é",
        f"{prefix}..{mac}",
        "sws1." + "A" * 4000,
        web_session_text(SESSION, "d", KEY, SIGN_IN),
        web_session_text(SESSION, "c", OTHER, SIGN_IN),
        web_session_text(SESSION, "c", key, SignInRecord(user=USER, secret="1" * 64)),
    ]
    assert [read_web_session(view, key, one, NOW) for one in forged] == [None] * len(forged)


def test_signing_out_ends_every_session() -> None:
    text = web_session_text(SESSION, "c", KEY, SIGN_IN)
    assert read_web_session(view_of(), KEY, text, NOW) is None
    assert read_web_session(view_of(SignInRecord(user=USER, secret="2" * 64)), KEY, text, NOW) is None


GUILDS = {"10": {"100": "viewer", "101": "admin"}, "20": {"200": "operator"}}


def test_the_highest_mapped_role_counts() -> None:
    def found(roles: dict[str, list[str]]) -> Role | None:
        identity = user_identity(view_of(), KEY, USER, roles, GUILDS)
        return identity.role if identity is not None else None

    assert found({"10": ["100"], "20": ["200"]}) == Role.OPERATOR
    assert found({"10": ["100", "101"]}) == Role.ADMIN
    # A mapping that was taken away since the sign-in.
    assert found({"10": ["999"], "30": ["100"]}) is None
    assert found({}) is None


def test_a_users_own_record_counts_before_the_guilds() -> None:
    record = proved(UserRecord(user=USER, role="viewer", apps=["welcomer"]), "c", KEY)
    roles = {"10": ["101"]}
    assert user_identity(view_of(record), KEY, USER, roles, GUILDS) == Identity(
        "user", USER, Role.VIEWER, frozenset({"welcomer"})
    )
    forged = msgspec.structs.replace(record, role="admin")
    assert user_identity(view_of(forged), KEY, USER, {}, GUILDS) is None
