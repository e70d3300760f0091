"""Labels of nodes, and placements: the labels that an application requires of its nodes. Pure."""

import re
from collections.abc import Mapping
from types import MappingProxyType

Placement = tuple[tuple[str, str], ...]
"""Required labels, sorted by name; () for none."""

NO_LABELS: Mapping[str, str] = MappingProxyType({})
INTERNAL_LABELS = frozenset({"host", "pid"})
"""Labels of a registration that a node sets itself, to recognise its own earlier processes."""

_TEXT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?")


def check_label(name: str, value: str) -> None:
    """Raise ValueError unless a node may have this label, and an application may require it."""
    if name in INTERNAL_LABELS:
        raise ValueError(f"the label {name!r} is reserved: nodes set it themselves; take another name")
    for what, text in (("name", name), ("value", value)):
        if not _TEXT.fullmatch(text):
            raise ValueError(
                f"the {what} {text[:64]!r} of a label must be 1 to 63 letters, digits or . _ - /, with a letter or "
                "digit at both ends"
            )


def shown_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a registration that its operator gave it."""
    return {name: value for name, value in sorted(labels.items()) if name not in INTERNAL_LABELS}


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as an operator writes them: disk=ssd,region=eu."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def placement_of(required: Mapping[str, str]) -> Placement:
    """A placement as a value that can be compared and sorted."""
    return tuple(sorted(required.items()))


def fits(labels: Mapping[str, str] | None, placement: Placement) -> bool:
    """Whether a node with these labels has what a placement requires; None: not known, so nothing speaks against it."""
    return labels is None or all(name not in INTERNAL_LABELS and labels.get(name) == value for name, value in placement)
