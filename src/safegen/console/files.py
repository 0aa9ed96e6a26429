"""The policy files of one folder, and the shipped ones. The files stay the source of truth."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from time import monotonic

from safegen.errors import PolicyError, Problem, SafegenError, TargetError, UsageError
from safegen.policy import Policy
from safegen.policy.document import MAX_BYTES, read
from safegen.policy.load import Examined, examine, shipped

__all__ = ["MAX_BYTES", "PolicyFile", "PolicyFiles", "digest_of", "lines_of", "loaded", "tried"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MOST = 500  # files of a folder
_FRESH = 5.0  # seconds


@dataclass(frozen=True)
class PolicyFile:
    """One policy file. `own`: it lies in the folder that was named, so that it may be saved."""

    name: str
    path: Path
    own: bool

    @property
    def reference(self) -> str | Path:
        """What `Policy.load` takes."""
        return self.path if self.own else self.name

    def stamp(self) -> str:
        """What changes when the file does."""
        try:
            stat = self.path.stat()
        except OSError:
            return ""
        return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"

    def text(self) -> str:
        """What it says now; empty where it is not there yet. Raises: UsageError."""
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise UsageError(f"{self.name} cannot be read ({type(error).__name__})") from None
        if len(data) > MAX_BYTES:
            raise UsageError(f"{self.name} is bigger than {MAX_BYTES // 1024} KiB")
        return data.decode("utf-8-sig", "replace")


Listed = tuple[PolicyFile, Policy | None, list[str]]
"""A file, its policy, and why it has none."""


class PolicyFiles:
    """The files of `folder` (none: the shipped ones only)."""

    def __init__(self, folder: Path | None):
        self.folder = None if folder is None else folder.resolve()
        self._listed: tuple[str, float, list[Listed]] = ("", 0.0, [])

    def all(self) -> list[PolicyFile]:
        """Those of the folder, then the shipped ones, by name."""
        own: list[PolicyFile] = []
        if self.folder is not None:
            names = [p.name for p in self.folder.iterdir() if p.suffix in (".yaml", ".yml")]
            own = [f for f in map(self._own, sorted(names)[:_MOST]) if f is not None]
        return [*own, *(PolicyFile(name, path, False) for name, path in shipped().items())]

    def listed(self) -> list[Listed]:
        """All files with their policies, for pages that name many. Parsed once while the files stay
        as they are; and anew every few seconds, for a parent may lie elsewhere."""
        files, now = self.all(), monotonic()
        known = hashlib.sha256()
        for file in files:
            known.update(f"{file.name}\0{file.stamp()}\0".encode())
        digest, since, found = self._listed
        if digest != known.hexdigest() or now - since > _FRESH:
            found = [(file, *tried(file)) for file in files]
            self._listed = (known.hexdigest(), now, found)
        return found

    def get(self, name: str) -> PolicyFile | None:
        """The file of that name, if it is there."""
        if (path := shipped().get(name)) is not None:
            return PolicyFile(name, path, False)
        found = self._own(name)
        return found if found is not None and found.path.is_file() else None

    def new(self, name: str) -> PolicyFile:
        """A file of that name, there or not. Raises: UsageError for what cannot be one."""
        found = self._own(name)
        if found is None:
            raise UsageError(
                "a policy file's name is of letters, digits, dots, dashes and underscores, and "
                "ends with .yaml"
                if self.folder is not None
                else "no folder of policies was named: start the console with --policies FOLDER"
            )
        return found

    def _own(self, name: str) -> PolicyFile | None:
        """In the folder itself: no name leads out of it, and neither does a link."""
        if self.folder is None or not _NAME.fullmatch(name) or not name.endswith((".yaml", ".yml")):
            return None
        path = self.folder / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            return None
        return PolicyFile(name, path, True)

    def examined(self, file: PolicyFile, text: str) -> Examined:
        """What a text would be as that file: a policy, or every problem with its line.

        Whoever sends a text chooses no file of this machine to be read: problems quote what is in
        it. Followed is what lies in the folder, and what the file extends already.
        """
        named = _extended(file, text)
        if named is not None and not self._followed(file, named[0]):
            told = "extends: the editor follows shipped policies, files of this folder, and what "
            told += "the file extends already; for others edit the file itself"
            return Examined(None, [Problem(told, str(file.path), named[1])], [])
        return examine(file.reference, text=text)

    def _followed(self, file: PolicyFile, named: str) -> bool:
        if named in shipped():
            return True
        before = _extended(file, None)
        if before is not None and before[0] == named:
            return True
        try:
            path = (file.path.parent / named).resolve()
        except (OSError, ValueError):
            return False
        return self.folder is not None and path.parent == self.folder

    def patch(self, file: PolicyFile, text: str) -> str:
        """The change from the file to the text, as `git apply` takes it in the file's folder."""
        was = file.text()
        lines = unified_diff(
            lines_of(was),
            lines_of(text),
            f"a/{file.path.name}" if was else "/dev/null",
            f"b/{file.path.name}",
        )
        return "".join(
            x if x.endswith("\n") else f"{x}\n\\ No newline at end of file\n" for x in lines
        )

    def save(self, file: PolicyFile, text: str) -> None:
        """Make a text the file, at once as a whole. Raises: TargetError."""
        from safegen.manifest.model import write_whole

        try:
            write_whole(file.path, text.encode("utf-8"))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise TargetError(f"{file.name} cannot be saved ({reason})") from None


def _extended(file: PolicyFile, text: str | None) -> tuple[str, int] | None:
    """What a text (None: the file) says that it extends, and on which line."""
    try:
        root, _ = read(file.path, file.name, text)
    except PolicyError:
        return None
    node = root.content.get("extends")
    named = node.content.get("policy") if node and isinstance(node.content, dict) else None
    return None if named is None else (str(named.plain()), named.line)


def lines_of(text: str) -> list[str]:
    """Lines with their ends; only a newline ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def digest_of(text: str) -> str:
    """The SHA-256 of a text, by which an edit knows what it started from."""
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"


def loaded(file: PolicyFile) -> Policy:
    """The policy as it decides. Raises: PolicyError."""
    from safegen.gates import load_policy

    return load_policy(file.reference)


def tried(file: PolicyFile) -> tuple[Policy | None, list[str]]:
    """The policy, or why it is none."""
    try:
        return loaded(file), []
    except PolicyError as error:
        return None, [str(p) for p in error.problems]
    except SafegenError as error:
        return None, [str(error)]
