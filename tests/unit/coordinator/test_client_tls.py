"""Files for TLS with a server: each that cannot be used is named, with the reason."""

import ssl
from pathlib import Path

import pytest

from sandwich_coordinator import client_tls
from sandwich_coordinator.client_tls import LOOK_S, ClientTls, ClientTlsError, client_context
from sandwich_coordinator.store.etcd import EtcdStore, TlsOptions
from tests.support.servers import Certificates


def refusal(ca: Path | None, cert: Path | None = None, key: Path | None = None) -> str:
    with pytest.raises(ClientTlsError) as caught:
        client_context("etcd", ca, cert, key)
    return str(caught.value)


def test_files_that_fit_make_a_context_that_checks_names(tmp_path: Path) -> None:
    mine = Certificates(tmp_path)
    context = client_context("etcd", mine.ca, *mine.issue("client"))
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert client_context("etcd").check_hostname


def test_a_missing_file_a_directory_and_what_is_no_certificate_are_named(tmp_path: Path) -> None:
    mine = Certificates(tmp_path)
    cert, key = mine.issue("client")
    nothing, text = tmp_path / "nothing", tmp_path / "text"
    text.write_text("hello")
    assert refusal(nothing) == f"etcd's CA, {nothing}, cannot be read: No such file or directory"
    # What Docker makes in place of a file that is to be mounted and is not there.
    assert refusal(tmp_path) == f"etcd's CA, {tmp_path}, cannot be read: it is a directory, not a regular file"
    assert refusal(text) == f"etcd's CA {text} has no certificate in PEM"
    assert refusal(mine.ca, nothing, key).startswith(f"the client certificate for etcd, {nothing}, cannot be read: No")
    assert refusal(mine.ca, cert, nothing).startswith(f"the key of the client certificate for etcd, {nothing}, cannot")
    assert f"{cert} and {text}: no PEM" in refusal(mine.ca, cert, text)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    mine = Certificates(tmp_path)
    (cert, _), (_, key) = mine.issue("one"), mine.issue("two")
    assert "KEY_VALUES_MISMATCH" in refusal(mine.ca, cert, key)


def test_etcd_options_with_such_a_file_are_refused_before_anything_is_connected(tmp_path: Path) -> None:
    options = TlsOptions(ca_file=tmp_path / "nothing")
    with pytest.raises(ClientTlsError, match="No such file or directory"):
        EtcdStore(["https://127.0.0.1:2379"], tls=options)


def test_changed_files_are_used_for_new_connections_and_a_broken_pair_changes_nothing(tmp_path: Path) -> None:
    now = [0.0]
    old, new = tmp_path / "old", tmp_path / "new"
    for directory in (old, new):
        directory.mkdir()
    first, second = Certificates(old), Certificates(new)
    cert, key = first.issue("client")
    tls = ClientTls("etcd", first.ca, cert, key, clock=lambda: now[0])
    before = tls.current()
    now[0] += LOOK_S
    assert tls.current() is before, "files that did not change are not read again"

    renewed, its_key = second.issue("client")
    renewed.replace(cert)
    now[0] += LOOK_S
    assert tls.current() is before
    assert "KEY_VALUES_MISMATCH" in tls.refused
    its_key.replace(key)
    assert tls.current() is before, "it does not look at each connection"
    now[0] += LOOK_S
    after = tls.current()
    assert (after is not before, tls.refused) == (True, "")

    first.ca.write_bytes(second.ca.read_bytes())
    now[0] += LOOK_S
    assert [len(context.get_ca_certs()) for context in (after, tls.current())] == [1, 1]
    assert tls.current().get_ca_certs(binary_form=True) != after.get_ca_certs(binary_form=True), "the old CA is out"


def test_a_file_that_is_gone_is_reported_until_it_is_back(tmp_path: Path) -> None:
    now = [0.0]
    mine = Certificates(tmp_path)
    tls = ClientTls("etcd", mine.ca, clock=lambda: now[0])
    before, content = tls.current(), mine.ca.read_bytes()
    mine.ca.unlink()
    now[0] += LOOK_S
    assert (tls.current(), "No such file" in tls.refused) == (before, True)
    mine.ca.write_bytes(content)
    now[0] += LOOK_S
    assert (tls.current().check_hostname, tls.refused) == (True, "")


def test_files_that_are_put_back_as_they_were_are_no_trouble_any_more(tmp_path: Path) -> None:
    now = [0.0]
    mine = Certificates(tmp_path)
    tls = ClientTls("etcd", mine.ca, clock=lambda: now[0])
    kept = mine.ca.rename(tmp_path / "kept.pem")
    now[0] += LOOK_S
    tls.current()
    assert "No such file" in tls.refused
    kept.rename(mine.ca)
    now[0] += LOOK_S
    assert (tls.current().check_hostname, tls.refused) == (True, "")


def test_files_that_cannot_be_used_are_not_tried_at_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, tried = [0.0], [0]
    mine = Certificates(tmp_path)
    tls = ClientTls("etcd", mine.ca, clock=lambda: now[0])
    mine.ca.write_text("half of a file")
    whole = client_tls.client_context

    def counted(server: str, *files: Path | None) -> ssl.SSLContext:
        tried[0] += 1
        return whole(server, *files)

    monkeypatch.setattr(client_tls, "client_context", counted)
    for _ in range(int(3 * client_tls.RETRY_S / LOOK_S)):
        now[0] += LOOK_S
        tls.current()
    assert tls.refused
    assert 2 <= tried[0] <= 4
