"""A small, strict reading of YAML 1.2: plain values, each with the line it stands on.

Policies need mappings, lists, text, numbers, true, false and null. Everything else that YAML
offers (anchors, aliases, tags, merge keys, several documents) makes a file mean something other
than what a reader sees, so it is a problem here. Reading works on ruamel's events and not on its
constructors, because only then are size, depth, lines and types ours to decide.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.errors import PolicyError, Problem, upstream

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Node", "blocks", "read"]

MAX_BYTES = 256 * 1024  # a policy is a page of text; ruamel reads this much in about 4 s at worst
MAX_DEPTH = 16  # a policy needs 5; far below Python's own limit

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(slots=True)
class Node:
    """One value of a document and the line (from 1) of its key, or of itself in a list.

    `content` is a dict of nodes, a list of nodes, or a scalar. `usable` is False where a problem
    was already reported, so that nothing more needs to be said about the value.
    """

    content: Any
    line: int
    usable: bool = True

    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.content, dict):
            return {key: node.plain() for key, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain() for node in self.content]
        return self.content

    def at(self, path: tuple[str | int, ...]) -> Node:
        """The node at a path, or the nearest one above it that exists."""
        node = self
        for part in path:
            content = node.content
            if isinstance(content, dict) and part in content:
                node = content[str(part)]
            elif isinstance(content, list) and isinstance(part, int) and part < len(content):
                node = content[part]
            else:
                break
        return node


def blocks(path: Path) -> bool:
    """Whether something is there that is neither file nor folder: reading it may never end, and
    what it gives is gone when it is read again."""
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def read(path: Path, label: str, text: str | None = None) -> tuple[Node, list[Problem]]:
    """The mapping in a YAML file, and the problems that did not stop the reading.

    `label` is what problems call the file; `text`, what it is going to say. Raises: PolicyError
    when there is no such file, when it is not a file, too big, not UTF-8, not YAML, empty, or
    anything but one mapping.
    """
    data = _bytes(path, label) if text is None else text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        raise _fatal(f"the file is bigger than {MAX_BYTES // 1024} KiB", label)
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _fatal("the file is not UTF-8 text", label, line) from None
    reader = _Reader(decoded, label)
    node = reader.document()
    return node, reader.problems


def _bytes(path: Path, label: str) -> bytes:
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _fatal("this is no regular file; a policy is one YAML file", label)
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _fatal("there is no such file", label) from None
    except IsADirectoryError:
        raise _fatal("this is a folder; a policy is one YAML file", label) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise _fatal(f"the file cannot be read ({type(error).__name__})", label) from None


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, which a named pipe may never have."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _fatal(message: str, label: str, line: int | None = None) -> PolicyError:
    return PolicyError([Problem(message, label, line)])


class _Reader:
    """Builds nodes from events; what it can step over goes into `problems`."""

    def __init__(self, text: str, label: str):
        self.label = label
        self.problems: list[Problem] = []
        self._events = self._safely(text)

    def _safely(self, text: str) -> Iterator[Any]:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError
        from ruamel.yaml.reader import ReaderError

        yaml = YAML(typ="safe", pure=True)
        try:
            yield from yaml.parse(io.StringIO(text))
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            raise _fatal(f"not valid YAML: {error.problem}", self.label, line) from None
        except ReaderError as error:  # it looks at the whole text before anything is parsed
            line = text.count("\n", 0, error.position) + 1
            reason = f"the character U+{ord(text[error.position]):04X} may not be in it"
            raise _fatal(f"not valid YAML: {reason}", self.label, line) from None
        except YAMLError as error:
            reason = str(error).partition("\n")[0]
            raise _fatal(f"not valid YAML: {reason}", self.label, _line(yaml)) from None
        except (ArithmeticError, ValueError, TypeError, LookupError, AssertionError) as error:
            # The scanner trips over some malformed escapes instead of reporting them.
            raise _fatal(f"not valid YAML ({upstream(error)})", self.label, _line(yaml)) from None

    def _problem(self, message: str, line: int) -> None:
        self.problems.append(Problem(message, self.label, line))

    def document(self) -> Node:
        """The top mapping of the only document."""
        from ruamel.yaml.events import DocumentStartEvent, MappingStartEvent, StreamEndEvent

        next(self._events)  # the start of the stream
        start = next(self._events)
        if isinstance(start, StreamEndEvent):
            raise _fatal("the file is empty", self.label, 1)
        assert isinstance(start, DocumentStartEvent)
        if start.version is not None and tuple(start.version) != (1, 2):
            self._problem("a policy is YAML 1.2: remove the %YAML line", 1)
        event = next(self._events)
        line = event.start_mark.line + 1
        node = self._node(event, line, depth=1)
        next(self._events)  # the end of the document
        another = next(self._events)
        if not isinstance(another, StreamEndEvent):
            where = another.start_mark.line + 1
            raise _fatal("a policy file holds one document, not several", self.label, where)
        if not isinstance(event, MappingStartEvent):
            raise _fatal("a policy is a mapping of keys to values", self.label, line)
        return node

    def _node(self, event: Any, line: int, depth: int) -> Node:
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, ScalarEvent

        here = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise _fatal(f"nested deeper than {MAX_DEPTH} levels", self.label, here)
        if isinstance(event, AliasEvent):
            self._problem(f"*{event.anchor}: no aliases; write the value out", here)
            return Node(None, line, usable=False)
        if event.anchor is not None:
            self._problem(f"&{event.anchor}: no anchors; write the value where it is used", here)
        if isinstance(event, ScalarEvent):
            node = Node(*self._scalar(event, line))
        elif isinstance(event, MappingStartEvent):
            node = Node(self._mapping(depth), line)
        else:
            node = Node(self._sequence(depth), line)
        if event.tag is not None:
            self._problem(f"{event.tag}: no tags; write plain values", here)
            node.usable = False
        return node

    def _mapping(self, depth: int) -> dict[str, Node]:
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        found: dict[str, Node] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            line = event.start_mark.line + 1
            key = self._node(event, line, depth + 1)
            value = self._node(next(self._events), line, depth + 1)
            if not isinstance(event, ScalarEvent):
                if key.usable:
                    self._problem("a key has to be text", line)
            # Keys are taken as written: the key `no` is "no", the key `1` is "1".
            elif event.value in found:
                first = found[event.value].line
                self._problem(f"key {event.value!r} is already set on line {first}", line)
            else:
                found[str(event.value)] = value
        return found

    def _sequence(self, depth: int) -> list[Node]:
        from ruamel.yaml.events import SequenceEndEvent

        found: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            found.append(self._node(event, event.start_mark.line + 1, depth + 1))
        return found

    def _scalar(self, event: Any, line: int) -> tuple[str | int | float | bool | None, int, bool]:
        """Value, line and usability of a scalar, typed by the core schema of YAML 1.2."""
        text = str(event.value)
        if not event.implicit[0]:  # quoted, or a block of text
            return text, line, True
        if text in _WORDS:
            return _WORDS[text], line, True
        here = event.start_mark.line + 1
        if _INT.fullmatch(text):
            # Beyond 2^53 a JSON number is not exact, so the digest could not tell neighbours apart.
            if len(text) > 20 or abs(_integer(text)) > 2**53:
                self._problem("this number is bigger than 2^53", here)
                return None, line, False
            return _integer(text), line, True
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            number = float(text) if _FLOAT.fullmatch(text) else math.inf
            if not math.isfinite(number):
                self._problem("numbers have to be finite", here)
                return None, line, False
            return number, line, True
        return text, line, True


def _line(yaml: Any) -> int | None:
    """The line that a reader had come to."""
    line = getattr(yaml.reader, "line", None)
    return None if line is None else int(line) + 1


def _integer(text: str) -> int:
    bases = {"0o": 8, "0x": 16}
    return int(text, bases.get(text[:2], 10))
