"""Tokens are sealed for one application with one key, and neither is shown anywhere."""

from pathlib import Path

import pytest

from sandwich_coordinator.private_files import refusal
from sandwich_coordinator.sealing import ClusterKey, SealingError, open_plain, seal_plain, token_hash

TOKEN = "MTk4.Gx.secret-part"


def test_a_sealed_token_can_be_unsealed_only_with_the_same_name_and_key() -> None:
    key = ClusterKey.generate()
    sealed = key.seal("bot", TOKEN)
    assert sealed.startswith(f"v1:{key.key_id}:")
    assert key.unseal("bot", sealed) == TOKEN
    assert sealed != key.seal("bot", TOKEN)
    with pytest.raises(SealingError, match="another application"):
        key.unseal("other", sealed)
    with pytest.raises(SealingError, match="was sealed with cluster key"):
        ClusterKey.generate().unseal("bot", sealed)


@pytest.mark.parametrize("damaged", ["", "v1", "v1:", "v2:a:b", "v1:{id}:", "v1:{id}:!!", "v1:{id}:AAAA", "v1:{id}:é"])
def test_a_corrupt_value_is_its_own_error(damaged: str) -> None:
    key = ClusterKey.generate()
    with pytest.raises(SealingError):
        key.unseal("bot", damaged.format(id=key.key_id))


def test_the_key_can_be_written_as_text_and_no_repr_shows_it() -> None:
    key = ClusterKey.generate()
    same = ClusterKey.from_base64(f" {key.to_base64()}\n")
    assert same.unseal("bot", key.seal("bot", TOKEN)) == TOKEN
    assert key.to_base64() not in repr(key) + str(key) + f"{key}"
    for bad in ("short", "not base64!", "QUJD"):
        with pytest.raises(SealingError) as caught:
            ClusterKey.from_base64(bad)
        assert bad not in str(caught.value)


def test_a_key_file_that_all_users_can_read_is_refused(tmp_path: Path) -> None:
    key, path = ClusterKey.generate(), tmp_path / "cluster.key"
    path.write_text(key.to_base64())
    path.chmod(0o644)
    with pytest.raises(SealingError, match="chmod 600"):
        ClusterKey.load({}, path)
    path.chmod(0o600)
    assert ClusterKey.load({"SANDWICH_CLUSTER_KEY": "ignored"}, path).key_id == key.key_id
    assert ClusterKey.load({"SANDWICH_CLUSTER_KEY": key.to_base64()}).key_id == key.key_id
    with pytest.raises(SealingError, match="SANDWICH_CLUSTER_KEY"):
        ClusterKey.load({})
    with pytest.raises(SealingError, match="cannot be read"):
        ClusterKey.load({}, tmp_path / "absent")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o620, 0o602, 0o606, 0o666, 0o777, 0o604])
def test_a_key_file_of_ours_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "cluster.key"
    path.write_text(ClusterKey.generate().to_base64())
    path.chmod(mode)
    with pytest.raises(SealingError, match="chmod 600"):
        ClusterKey.load({}, path)


ROOT, US, OTHER = 0, 1000, 2000


@pytest.mark.parametrize(
    ("mode", "owner", "us", "words"),
    [
        (0o600, US, US, ""),
        (0o400, US, US, ""),
        (0o400, ROOT, US, ""),
        # A secret mounted by Kubernetes with fsGroup, or by systemd with an access list.
        (0o440, ROOT, US, ""),
        (0o600, OTHER, ROOT, ""),
        (0o600, OTHER, US, "another user"),
        (0o644, OTHER, US, "another user"),
        (0o640, US, US, "its group"),
        (0o640, ROOT, ROOT, "its group"),
        (0o640, OTHER, ROOT, "its group"),
        (0o444, ROOT, US, "all users"),
        (0o460, ROOT, US, "changed"),
        (0o602, US, US, "changed"),
        (0o620, US, US, "changed"),
    ],
)
def test_which_users_may_own_read_and_change_a_file_with_a_secret(mode: int, owner: int, us: int, words: str) -> None:
    reason = refusal(mode, owner, us)
    assert words in reason
    assert bool(words) == bool(reason)


def test_plain_tokens_need_permission_both_ways() -> None:
    with pytest.raises(SealingError):
        seal_plain(TOKEN, allow_plain=False)
    stored = seal_plain(TOKEN, allow_plain=True)
    assert open_plain("bot", stored, allow_plain=True) == TOKEN
    with pytest.raises(SealingError) as caught:
        ClusterKey.generate().unseal("bot", stored)
    assert TOKEN not in str(caught.value)
    with pytest.raises(SealingError, match="no cluster key"):
        open_plain("bot", ClusterKey.generate().seal("bot", TOKEN), allow_plain=True)


def test_a_token_is_named_by_sixteen_hex_digits() -> None:
    assert token_hash("abc") == "ba7816bf8f01cfea"
