"""Sealing of bot tokens with the cluster key, so that etcd, its backups and its readers contain none."""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from sandwich_coordinator.private_files import PrivateFileError, read_private

KEY_VARIABLE = "SANDWICH_CLUSTER_KEY"
KEY_BYTES = 32
KEYS_MAX = 2
NONCE_BYTES = 12
_SEALED = "v1:"
_PLAIN = "plain:"
_STANDARD = str.maketrans("-_", "+/")
_HOW_TO_MAKE_ONE = "make one with: sandwich cluster init"


class SealingError(Exception):
    """A key or a sealed token cannot be used; the message gives the reason and contains neither."""


def token_hash(token: str) -> str:
    """A public name for a token: 16 hex digits of its SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


class _Key:
    """One 256-bit key."""

    __slots__ = ("cipher", "key_id", "prover", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise SealingError(f"a cluster key has {KEY_BYTES} bytes; {_HOW_TO_MAKE_ONE}")
        # Imported here: workers import this module and have no key, and the library takes 8 MiB.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.raw = raw
        self.cipher = AESGCM(raw)
        self.prover = hmac.digest(raw, b"sandwich proof", "sha256")
        self.key_id = hashlib.sha256(b"sandwich cluster key id" + raw).hexdigest()[:8]

    def prove(self, name: str, message: bytes) -> str:
        named = name.encode()
        mac = hmac.digest(self.prover, len(named).to_bytes(4, "big") + named + message, "sha256")
        return f"{_SEALED}{self.key_id}:{base64.b64encode(mac).decode()}"


class ClusterKey:
    """The cluster's 256-bit key. Every node of a cluster has the same one; it is never stored in etcd.

    While the key is changed there are two (`other`): both open secrets and check proofs, and one of them, `key_id`,
    seals and proves. That is the first one until `use` names the other.
    """

    __slots__ = ("_active", "_keys")

    def __init__(self, key: bytes, other: bytes | None = None) -> None:
        keys = [_Key(raw) for raw in (key, other) if raw is not None]
        self._keys = {each.key_id: each for each in keys}
        self._active = keys[0]

    def __repr__(self) -> str:
        return f"ClusterKey(key_id={self.key_id!r})"

    def __reduce__(self) -> str:
        raise TypeError("a cluster key is not pickled")

    @property
    def key_id(self) -> str:
        """The id of the key that seals and proves."""
        return self._active.key_id

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys that this one opens secrets with, in the given order."""
        return tuple(self._keys)

    def use(self, key_id: str) -> None:
        """Seal and prove with this one of `key_ids` from now on. Raises KeyError for another one."""
        self._active = self._keys[key_id]

    @classmethod
    def generate(cls) -> "ClusterKey":
        """A new random key."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_base64(cls, text: str) -> "ClusterKey":
        """The key written as base64 (standard or URL-safe), or two with a comma between. Raises SealingError."""
        parts = text.strip().split(",")
        if len(parts) > KEYS_MAX:
            raise SealingError(f"a cluster has at most {KEYS_MAX} keys at a time, and {len(parts)} are given")
        try:
            keys = [base64.b64decode(part.strip().translate(_STANDARD), validate=True) for part in parts]
        except (binascii.Error, ValueError):
            raise SealingError(f"the cluster key is not base64; {_HOW_TO_MAKE_ONE}") from None
        return cls(*keys)

    @classmethod
    def load(cls, env: Mapping[str, str], key_file: Path | None = None) -> "ClusterKey":
        """The key from `key_file`, or else from SANDWICH_CLUSTER_KEY. Raises SealingError."""
        if key_file is not None:
            try:
                return cls.from_base64(read_private(key_file, "cluster key"))
            except PrivateFileError as error:
                raise SealingError(str(error)) from None
        if text := env.get(KEY_VARIABLE, "").strip():
            return cls.from_base64(text)
        raise SealingError(f"no cluster key: set {KEY_VARIABLE} or give --key-file; {_HOW_TO_MAKE_ONE}")

    def to_base64(self) -> str:
        """The key as text, for the cluster's other nodes; two with a comma between."""
        return ",".join(base64.b64encode(key.raw).decode() for key in self._keys.values())

    def seal(self, app: str, token: str) -> str:
        """`v1:<key id>:<base64 of nonce and ciphertext>`; it can be unsealed only with the same application's name."""
        nonce = os.urandom(NONCE_BYTES)
        box = nonce + self._active.cipher.encrypt(nonce, token.encode(), app.encode())
        return f"{_SEALED}{self.key_id}:{base64.b64encode(box).decode()}"

    def unseal(self, app: str, sealed: str, *, allow_plain: bool = False) -> str:
        """The token. `plain:<token>` is accepted only with `allow_plain`. Raises SealingError."""
        if sealed.startswith(_PLAIN):
            return open_plain(app, sealed, allow_plain=allow_plain)
        version, _, rest = sealed.partition(":")
        key_id, _, body = rest.partition(":")
        if version != "v1" or not body:
            raise SealingError(f"the token of {app} is not sealed in a form this version knows")
        key = self._keys.get(key_id)
        if key is None:
            raise SealingError(
                f"the token of {app} was sealed with cluster key {key_id[:8]}, this node has "
                f"{' and '.join(self.key_ids)}: give every node the same key, or set the token again"
            )
        from cryptography.exceptions import InvalidTag

        try:
            box = base64.b64decode(body, validate=True)
            return key.cipher.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], app.encode()).decode()
        except (InvalidTag, ValueError):
            raise SealingError(f"the sealed token of {app} is damaged or belongs to another application") from None

    def prove(self, name: str, message: bytes) -> str:
        """`v1:<key id>:<base64 of an HMAC-SHA256>`: proof that a holder of the key wrote `message` under this name."""
        return self._active.prove(name, message)

    def proofs(self, name: str, message: bytes) -> list[str]:
        """As `prove`, with each of the keys: one of them is valid."""
        return [key.prove(name, message) for key in self._keys.values()]

    def proves(self, name: str, message: bytes, proof: str) -> bool:
        """Whether `proof` is valid for one of the keys, `message` and name."""
        given = proof.encode(errors="replace")
        return any(hmac.compare_digest(each.encode(), given) for each in self.proofs(name, message))


def seal_plain(token: str, *, allow_plain: bool) -> str:
    """`plain:<token>`, for clusters run without a key. Raises SealingError unless `allow_plain`."""
    if not allow_plain:
        raise SealingError("storing a token unsealed must be allowed explicitly (insecure)")
    return _PLAIN + token


def open_plain(app: str, stored: str, *, allow_plain: bool) -> str:
    """The token of the form `plain:<token>`. Raises SealingError unless `allow_plain`, or for a sealed one."""
    if not stored.startswith(_PLAIN):
        raise SealingError(f"the token of {app} is sealed and this node has no cluster key; set {KEY_VARIABLE}")
    if not allow_plain:
        raise SealingError(f"the token of {app} is stored unsealed; that must be allowed explicitly (insecure)")
    return stored.removeprefix(_PLAIN)
