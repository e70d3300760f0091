"""Certificate files that are replaced while servers and clients use them."""

import os
import shutil
import ssl
from pathlib import Path

from tests.support.servers import Certificates


class Renewal:
    """The files that servers and clients read: `ca`, and by `server` and `client` a certificate and its key.

    There are two authorities, `old` and `new`. Files are replaced in one step each: no reader sees half of one.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[str, Certificates] = {}
        for name in ("old", "new"):
            (directory / name).mkdir(parents=True)
            self._made[name] = Certificates(directory / name, name)
            for who in ("server", "client"):
                self._made[name].issue(who, "127.0.0.1")
        self._used = directory / "used"
        self._used.mkdir()
        self.trust("old")
        self.show("old")

    @property
    def ca(self) -> Path:
        """The trusted authorities."""
        return self._used / "ca.pem"

    def pair(self, who: str) -> tuple[Path, Path]:
        """Certificate and key of `server` or `client`."""
        return self._used / f"{who}.pem", self._used / f"{who}.key"

    def trust(self, *names: str) -> None:
        """These authorities are trusted from now on."""
        self._put(self.ca, b"".join(self._made[name].ca.read_bytes() for name in names))

    def show(self, name: str) -> None:
        """Server and client have certificates of this authority from now on."""
        for who in ("server", "client"):
            for path in self.pair(who):
                self._put(path, (self._directory / name / path.name).read_bytes())

    def kept(self) -> "tuple[Path, Path, Path]":
        """A copy of what a client has at present: authorities, certificate, key."""
        copy = self._directory / "kept"
        shutil.copytree(self._used, copy, dirs_exist_ok=True)
        return copy / "ca.pem", copy / "client.pem", copy / "client.key"

    def server_context(self) -> ssl.SSLContext:
        """For a server that wants certificates of its clients, of the present files."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.load_cert_chain(*self.pair("server"))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        new = path.with_name(f".{path.name}")
        new.touch(mode=0o600)
        new.write_bytes(content)
        os.replace(new, path)
