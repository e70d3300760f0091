"""Reads an operator's YAML with limits; aliases count as if they were expanded. Pure.

A kilobyte of nested aliases expands to a thousand million values (the "billion laughs"). A number of a thousand digits,
a tag or a date can make the parser itself fail. Each of these is reported as an error with its line.
"""

from typing import Any

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

VALUES_MAX = 200_000
DEPTH_MAX = 32
SCALAR_CHARACTERS_MAX = 64 * 1024
NUMBER_CHARACTERS_MAX = 64
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge"))
_OTHER_WORDS = {
    "timestamp": "a date here: put it in quotes if it is text",
    "value": "the sign = alone: put it in quotes if it is text",
}


class YamlError(ValueError):
    """The text cannot be used; `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_yaml(text: str) -> tuple[Any, Node | None]:
    """The values of one document and its nodes with their lines. Raises YamlError."""
    try:
        loader = yaml.SafeLoader(text)
    except ReaderError as error:
        raise YamlError(*_unreadable(text, error)) from None
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _measure(root)
        return loader.construct_document(root), root
    except YamlError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem)
        reason = f"{error.context} {problem}" if problem.startswith("but ") else problem
        raise YamlError(mark.line + 1 if mark else 1, f"not valid YAML: {reason}") from None
    except ReaderError as error:
        raise YamlError(*_unreadable(text, error)) from None
    except RecursionError:
        raise YamlError(loader.line + 1, f"nested more than {DEPTH_MAX} deep") from None
    except (yaml.YAMLError, ValueError, OverflowError, ArithmeticError):
        raise YamlError(loader.line + 1, "not valid YAML") from None
    finally:
        loader.dispose()


def _unreadable(text: str, error: ReaderError) -> tuple[int, str]:
    line = text.count("\n", 0, error.position) + 1
    return line, f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed"


def _measure(root: Node) -> None:
    """Raise YamlError if the document, with aliases expanded, is too large or too deep or has unsupported values."""
    known: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measured(node: Node, depth: int) -> tuple[int, int]:
        """The number of values of the node, and of its levels."""
        if id(node) in open_nodes:
            raise YamlError(_line(node), "the value contains an alias of itself")
        if id(node) not in known:
            _check(node)
            total, levels = 1, 0
            open_nodes.add(id(node))
            for inner in _inside(node):
                if depth >= DEPTH_MAX:
                    raise YamlError(_line(inner), f"nested more than {DEPTH_MAX} deep")
                size, below = measured(inner, depth + 1)
                total, levels = total + size, max(levels, below + 1)
                if total > VALUES_MAX:
                    raise YamlError(_line(inner), f"more than {VALUES_MAX} values, with aliases written out")
            open_nodes.discard(id(node))
            known[id(node)] = total, levels
        if depth + known[id(node)][1] > DEPTH_MAX:
            raise YamlError(_line(node), f"nested more than {DEPTH_MAX} deep, with aliases written out")
        return known[id(node)]

    measured(root, 0)


def _inside(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _check(node: Node) -> None:
    if node.tag not in _PLAIN_TAGS:
        name = node.tag.removeprefix(_TAG)
        what = _OTHER_WORDS.get(name, f"the tag {node.tag[:64]}, which is not known here: secrets are {{env: NAME}}")
        raise YamlError(_line(node), f"not usable: {what}")
    if isinstance(node, ScalarNode):
        if node.tag in (_TAG + "int", _TAG + "float") and len(node.value) > NUMBER_CHARACTERS_MAX:
            raise YamlError(_line(node), f"a number of more than {NUMBER_CHARACTERS_MAX} characters")
        if len(node.value) > SCALAR_CHARACTERS_MAX:
            raise YamlError(_line(node), f"a value of more than {SCALAR_CHARACTERS_MAX} characters")
    elif isinstance(node, CollectionNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
        raise YamlError(_line(node), f"not usable: the tag {node.tag[:64]}")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
