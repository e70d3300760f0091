"""Files with a secret: which users may read or change them."""

import os
import stat
from pathlib import Path

from sandwich_coordinator.small_files import check_secret, read_small_file

BYTES_MAX = 4096


class PrivateFileError(ValueError):
    """The file cannot be used; the message gives the reason and never the content."""


def refusal(mode: int, owner: int, us: int) -> str:
    """Why a file of this mode and owner must not contain a secret; "": it may. `us`: our effective user id. Pure.

    A user who can write the file can choose the secret. A mounted secret belongs to root and is read through a group
    (Kubernetes' fsGroup) or an access list (systemd's LoadCredential shows it as a group permission): that is allowed.
    """
    if us not in (0, owner) and owner != 0:
        return "belongs to another user"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be changed by other users"
    if mode & stat.S_IROTH:
        return "can be read by all users of this machine"
    if mode & stat.S_IRGRP and (owner != 0 or us == 0):
        return "can be read by its group"
    return ""


def read_private(path: Path, what: str) -> str:
    """The one line of text in a file that only its owner may read and change, or in a pipe.

    Raises PrivateFileError; `what` names the secret there.
    """

    def check(status: os.stat_result) -> None:
        reason = refusal(status.st_mode, status.st_uid, os.geteuid())
        if reason:
            raise PrivateFileError(f"{path} {reason}: make it yours and chmod 600 {path}")

    try:
        return check_secret(read_small_file(path, BYTES_MAX, pipe_allowed=True, check=check))
    except PrivateFileError:
        raise
    except ValueError as error:
        raise PrivateFileError(f"the {what} file {path} cannot be read: {error}") from None
