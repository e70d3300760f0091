"""`deploy/bootstrap`: what it writes fits together, and is accepted by what reads it."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from sandwich_coordinator.sealing import ClusterKey

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MACHINES = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}


def bootstrap(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [ROOT / "deploy" / "bootstrap", *words],
        env={**os.environ, "SANDWICH": str(BIN / "sandwich")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def machines(*names: str) -> list[str]:
    return [word for name in names for word in ("--machine", f"{name}={MACHINES[name]}")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory for each of three machines, with two applications, one of them added later."""
    out = tmp_path_factory.mktemp("bootstrap") / "out"
    bootstrap(str(out), *machines("a", "b", "c"), "--app", "welcomer")
    bootstrap(str(out), "--app", "my-music")
    return out / "sandwich"


def variables(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_two_lines_differ_between_machines(made: Path) -> None:
    for name, address in MACHINES.items():
        found = variables(made / "machines" / f"{name}.env")
        found.pop("SANDWICH_USER", None)
        assert found == {"SANDWICH_NODE_ID": name, "SANDWICH_ADDRESS": address}
    # The directory is copied again for another application: it must not bring one machine's name to the others.
    assert not (made / ".env").exists()


def test_no_secret_can_be_read_by_others_and_the_ca_is_not_copied(made: Path) -> None:
    open_to_others = [path for path in made.rglob("*") if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    assert open_to_others == []
    assert (made.parent / "ca.key").is_file()
    assert not list(made.rglob("ca.key"))


def test_the_cluster_key_is_one(made: Path) -> None:
    assert ClusterKey.from_base64((made / "cluster.key").read_text().strip()).key_id


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def usages(made: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_certificates_are_for_the_machines_and_of_the_ca(made: Path) -> None:
    ca = certificate(made / "tls" / "client" / "ca.crt")
    server = certificate(made / "tls" / "server" / "server.crt")
    client = certificate(made / "tls" / "client" / "etcd-client.crt")
    for each in (server, client):
        each.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(each) for each in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", *MACHINES.values()}
    # etcd's JSON gateway uses the server's certificate as a client's, too.
    assert usages(server) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert usages(client) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)
    assert not list(made.rglob("*.csr"))


def test_nats_server_accepts_the_configuration_with_a_user_for_each_application(made: Path, tmp_path: Path) -> None:
    text = (made / "nats" / "nats.conf").read_text().replace("/tls/", f"{made / 'tls' / 'server'}/")
    (tmp_path / "nats.conf").write_text(text)
    lines = (made / "nats" / "passwords.conf").read_text()
    (tmp_path / "passwords.conf").write_text(lines)
    passwords = dict(line.split(": ") for line in lines.splitlines())
    assert set(passwords) == {f"NATS_{user}_PASSWORD" for user in ("NODE", "OPERATOR", "WELCOMER", "MY_MUSIC")}
    assert len(set(passwords.values())) == 4
    done = subprocess.run(
        [BIN / "nats-server", "-t", "-c", tmp_path / "nats.conf"],
        env={"SANDWICH_NODE_ID": "a"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert all(f"nats://{address}:6222" in text for address in MACHINES.values())


def test_the_cluster_file_is_accepted_with_the_tokens_in_their_place(made: Path) -> None:
    for app in ("welcomer", "my-music"):
        (made / "secrets" / f"token-{app}").write_text(f"MTAwMDAwMDAwMDAx.GaaaaX.{app:x<38}\n")
    words = ["cluster", "apply", "-f", str(made / "cluster.yml"), "--dry-run", "--key-file", str(made / "cluster.key")]
    # Nothing listens there: a file with a mistake would be refused before etcd is asked.
    done = subprocess.run(
        [BIN / "sandwich", "--etcd", "http://127.0.0.1:1", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "etcd" in done.stderr
    assert "cluster.yml" not in done.stderr
    config = yaml.safe_load((made / "cluster.yml").read_text())
    assert config["nats"]["replicas"] == 3
    assert config["nats"]["servers"] == [f"tls://{address}:4222" for address in MACHINES.values()]


def test_every_file_and_variable_of_the_compose_files_is_there(made: Path) -> None:
    known = {*variables(made / "machines" / "a.env")}
    services: dict[str, dict[str, Any]] = {}
    for name in ("servers.yml", "node.yml"):
        text = (made / name).read_text()
        needed = set(re.findall(r"\$\{(\w+)(?:\}|:\?)", text))
        assert needed <= known, "only these have no default"
        services |= yaml.safe_load(text)["services"]
    for name, service in services.items():
        assert "latest" in service["image"] or ":-" in service["image"], name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        for file in service.get("env_file", []):
            assert (made / file).is_file(), file
        for volume in service.get("volumes", []):
            assert (made / volume.split(":")[0]).exists(), volume
    assert yaml.safe_load((made / "compose.yml").read_text())["include"] == ["servers.yml", "node.yml"]


def test_one_machine_is_the_same_with_one_copy_of_each_stream(tmp_path: Path) -> None:
    bootstrap(str(tmp_path / "out"), *machines("a"), "--app", "welcomer")
    directory = tmp_path / "out" / "sandwich"
    assert yaml.safe_load((directory / "cluster.yml").read_text())["nats"]["replicas"] == 1
    assert "cluster {" not in (directory / "nats" / "nats.conf").read_text(), "JetStream would wait for others"
    assert "sentinel monitor sandwich 10.0.0.1 6379 1\n" in (directory / "sentinel.conf").read_text()


def test_nothing_is_overwritten_and_an_application_is_added_once(made: Path) -> None:
    before = {path: path.read_bytes() for path in made.parent.rglob("*") if path.is_file()}
    assert "exists already" in bootstrap(str(made.parent), *machines("a"), "--app", "other", code=1)
    assert "my-music is there already" in bootstrap(str(made.parent), "--app", "my-music", code=1)
    assert "cannot share" in bootstrap(str(made.parent), "--app", "my_music", code=1), "one variable for two"
    assert {path: path.read_bytes() for path in made.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([*machines("a", "b"), "--app", "welcomer"], "one, three or five"),
        (machines("a"), "at least one application"),
        (["--app", "welcomer"], "name the machines"),
        (["--machine", "a=example.org", "--app", "welcomer"], "IPv4"),
        (["--machine", "1=10.0.0.1", "--app", "welcomer"], "begins with a letter"),
        ([*machines("a"), "--app", "Bot"], "--app Bot"),
        ([*machines("a"), "--app", "node"], "cannot share"),
        ([*machines("a"), "--size", "1", "--app", "welcomer"], "unknown option --size"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(tmp_path: Path, words: list[str], reason: str) -> None:
    assert reason in bootstrap(str(tmp_path / "out"), *words, code=1)
    assert not (tmp_path / "out").exists()
