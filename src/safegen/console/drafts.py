"""What a text would be as a policy file: its problems, what it changes, and saving it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import HTTPException

from safegen.console.comparing import compared
from safegen.console.desk import Desk
from safegen.console.files import MAX_BYTES, PolicyFile, digest_of
from safegen.errors import PolicyError, SafegenError
from safegen.policy import Policy
from safegen.policy.document import read
from safegen.policy.load import Examined, Extends, pinned
from safegen.policy.review import notes

__all__ = ["Draft", "drafted", "existing", "parent_of", "said_of", "saved", "target"]


_SAVING = threading.Lock()  # between the look at the file and its change nobody else changes it


@dataclass(frozen=True)
class Draft:
    """A text on its way to a file. policy: None where it has problems."""

    file: PolicyFile
    text: str
    examined: Examined

    @property
    def policy(self) -> Policy | None:
        return self.examined.policy

    def problems(self) -> list[dict[str, Any]]:
        """Each with its line."""
        return [{"line": p.line, "message": p.message} for p in self.examined.problems]

    def lint(self) -> dict[str, Any]:
        """As JSON."""
        digest = None if self.policy is None else self.policy.digest
        return {"problems": self.problems(), "notes": self.notes(), "digest": digest}

    def notes(self) -> list[dict[str, Any]]:
        """How each waiver of the text itself stands today, with its line."""
        return [
            {"line": note.line, "message": note.message.removeprefix("note: ")}
            for note in notes(self.examined, datetime.now(UTC))
        ]

    def needed(self) -> Policy:
        """The policy. Raises: HTTPException for a text that is none."""
        if self.policy is None:
            said = "; ".join(map(said_of, self.problems()[:5]))
            raise HTTPException(422, f"this is no policy yet: {said}")
        return self.policy

    def changes(self, against: Policy) -> dict[str, Any]:
        """What the text tightens and loosens, as JSON."""
        return compared(against, self.needed())


def said_of(problem: dict[str, Any]) -> str:
    """A problem in words."""
    line = problem["line"]
    return f"line {line}: {problem['message']}" if line else str(problem["message"])


def drafted(desk: Desk, file: PolicyFile, text: str) -> Draft:
    """A text from outside as a draft. Raises: HTTPException for what no policy file may be."""
    text = text.replace("\r\n", "\n")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise HTTPException(422, "this is not valid Unicode text") from None
    if size > MAX_BYTES:
        raise HTTPException(413, f"a policy file has at most {MAX_BYTES // 1024} KiB")
    return Draft(file, text, desk.files.examined(file, text))


def parent_of(file: PolicyFile, text: str) -> Policy | None:
    """The policy that a text extends, as it is pinned; None where it extends none that is there."""
    try:
        root, _ = read(file.path, file.name, text)
        extends = Extends.model_validate(root.content["extends"].plain())
    except (PolicyError, KeyError, ValueError):
        return None
    return pinned(extends, file.path.parent)[0]


def saved(desk: Desk, draft: Draft, was: str, by: str) -> dict[str, Any]:
    """Make the draft its file, with an audit entry before it is there.

    was: the digest of the text that the edit started from. Raises: HTTPException for what may not
    be saved; LedgerError, TargetError.
    """
    policy, file = draft.needed(), draft.file
    if not file.own:
        raise HTTPException(409, "a shipped policy stays as it is: save it under another name")
    with _SAVING:
        return _saved(desk, draft, policy, was, by)


def _saved(desk: Desk, draft: Draft, policy: Policy, was: str, by: str) -> dict[str, Any]:
    file = draft.file
    before = file.text()
    if digest_of(before) != was:
        raise HTTPException(
            409, "the file was changed since this edit began: take the changes over, and save again"
        )
    facts = {
        "file": file.name,
        "before": digest_of(before) if before else None,
        "after": digest_of(draft.text),
        "policy": {"id": policy.id, "version": policy.version, "digest": policy.digest},
    }
    try:
        loosens: int | None = draft.changes(Policy.load(file.path))["loosens"] if before else None
    except SafegenError:  # what is there cannot be read; now it can
        loosens = None
    desk.record(by, "policy saved", {**facts, "loosens": loosens})
    try:
        desk.files.save(file, draft.text)
    except SafegenError:
        desk.record(by, "policy not saved", facts)
        raise
    return facts


def existing(desk: Desk, name: str) -> PolicyFile:
    file = desk.files.get(name)
    if file is None:
        raise HTTPException(404, "there is no such policy")
    return file


def target(desk: Desk, name: str) -> PolicyFile:
    """The file of that name, or the new one that it would be."""
    return desk.files.get(name) or desk.files.new(name)
