#!/usr/bin/env python3
"""A gate for a repository of policies: lint, test, and compare with another commit.

    POLICIES=policies BASE=origin/main python policy_gate.py

Exit code 0, or 1: a policy is malformed, says otherwise than its cases expect, or is looser than at
$BASE while $LABEL is not among $LABELS (a JSON list; how somebody else approved). A policy that is
gone counts as looser, else a new name would be a way round; so does a value that cannot be
compared, such as another list of trusted keys. Needs git, the history of $BASE, and `safegen` on
the PATH; nothing of Python but its standard library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SUFFIXES = (".yaml", ".yml")


def main() -> int:
    folder = Path(os.environ.get("POLICIES") or "policies")
    base = os.environ.get("BASE") or ""
    label = os.environ.get("LABEL") or "policy-loosening-approved"
    approved = label in _labels(os.environ.get("LABELS") or "[]")
    now = policies(folder)
    if not now and not base:
        return complain(f"there is no policy in {folder}")
    failed = False
    for command in ("lint", "test"):
        if now and safegen("policy", command, *map(str, now)).returncode != 0:
            failed = complain(f"policies: safegen policy {command} found something, see above")
    if not base.strip("0"):  # a first push has 0000… before it
        say("nothing to compare with")
        return int(failed)
    with tempfile.TemporaryDirectory() as temporary:
        before = Path(temporary) / "before"
        # Its whole tree, for a policy may extend others.
        if git("worktree", "add", "--quiet", "--detach", str(before), base) != 0:
            return complain(f"git does not know {base}: check out with fetch-depth: 0")
        try:
            looser = compared(before, folder, now)
        finally:
            git("worktree", "remove", "--force", str(before))
    if looser and not approved:
        failed = complain(
            f"looser than before: {', '.join(looser)}. Somebody else has to approve that, and put "
            f"the label {label} on the pull request"
        )
    elif looser:
        say(f"looser than before, and approved by the label {label}: {', '.join(looser)}")
    return int(failed)


def compared(before: Path, folder: Path, now: list[Path]) -> list[str]:
    """The policies that are looser than they were, or of which nobody can tell."""
    looser = []
    for path in sorted({*now, *(p.relative_to(before) for p in policies(before / folder))}):
        was = before / path
        if not was.exists():
            say(f"{path}: new")
        elif not path.exists():
            say(f"{path}: gone")
            looser.append(f"{path} (gone)")
        else:
            say(f"{path}:")
            looser += [str(path)] if may_be_looser(was, path) else []
    return looser


def may_be_looser(was: Path, path: Path) -> bool:
    """Whether any value is looser than it was, or cannot be compared."""
    done = safegen("policy", "diff", str(was), str(path), "--json", quiet=True)
    if done.returncode not in (0, 3):
        say("  one of them cannot be read")
        return True
    found = json.loads(done.stdout)
    for one in found:  # as JSON, so that no text in a policy can be a line of its own
        told = " → ".join(json.dumps(one[when], ensure_ascii=False) for when in ("before", "after"))
        say(f"  {one['change']} {one['where']}: {told}")
    return any(one["change"] in ("LOOSEN", "INCOMPARABLE") for one in found)


def policies(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file())


def _labels(text: str) -> list[str]:
    """The labels; a run that is of no pull request has null for them."""
    found = json.loads(text)
    return [str(one) for one in found] if isinstance(found, list) else []


def safegen(*words: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    sys.stdout.flush()
    out = subprocess.PIPE if quiet else None
    return subprocess.run(["safegen", *words], check=False, stdout=out, text=True)


def git(*words: str) -> int:
    return subprocess.run(["git", *words], check=False).returncode


def say(text: str) -> None:
    print(text, flush=True)


def complain(text: str) -> bool:
    """Say it as GitHub shows errors. A line break would end the message."""
    say(f"::error::{' '.join(text.split())}")
    return True


if __name__ == "__main__":
    sys.exit(main())
