"""What an organisation pins for everybody: the least that is asked, the ledger, the trusted keys.

    schema: safegen.org/v1
    floor: {policy: acme-floor.yaml, digest: "sha256:…"}
    ledger: /srv/safegen/ledger.db
    trusted_keys: [MCowBQYDK2VwAyEA…]

Every organisation file that is found applies: the system's, the user's, and the one that
$SAFEGEN_ORG names. So an argument or a variable can add to what is pinned and take nothing from it.
One that cannot be read, or whose floor is not what it pins, stops everything (fail closed).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from safegen.errors import PolicyError, Problem, UsageError
from safegen.folders import at_home, settings_folders
from safegen.policy.document import MAX_BYTES, blocks, read
from safegen.policy.load import Extends, pinned
from safegen.policy.merge import raised
from safegen.policy.model import Policy
from safegen.policy.parsing import parsed
from safegen.policy.rules import ManifestParams
from safegen.policy.sections import Key, Text

__all__ = [
    "FILE",
    "SCHEMA",
    "VARIABLE",
    "Organisation",
    "Pins",
    "in_force",
    "is_organisation",
    "pins",
    "read_organisation",
]

SCHEMA = "safegen.org/v1"
FILE = "safegen.org.yaml"
VARIABLE = "SAFEGEN_ORG"
_PASSWORD = re.compile(r"://[^/@]*:[^/]*@|[?&][a-z]*password=")


class _Keyed(Protocol):
    text: str


K = TypeVar("K", bound=_Keyed)


class Organisation(BaseModel):
    """One organisation file, without its `schema` line."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    floor: Extends | None = Field(default=None, description="The policy that nothing may go below.")
    ledger: Text | None = Field(
        default=None,
        description="The only ledger: a path, from this file's folder, or a URL, without password.",
    )
    trusted_keys: Annotated[tuple[Key, ...], Field(max_length=32)] = Field(
        default=(), description="The only public keys whose signatures count; none: any."
    )


@dataclass(frozen=True)
class Pins:
    """What all organisation files together pin. `ledger`: as they name it, and which file does.
    `keys`: None where none is pinned."""

    floors: tuple[tuple[Policy, str], ...] = ()
    ledger: tuple[str, str] | None = None
    keys: tuple[tuple[str, ...], str] | None = None

    def raise_floor(self, policy: Policy) -> Policy:
        """The policy as it is in force. Raises: PolicyError where it cannot meet what is pinned."""
        for floor, _ in self.floors:
            policy = raised(policy, floor)
        if self.keys is None:
            return policy
        keys, file = self.keys
        manifest = policy.rule("manifest")
        assert isinstance(manifest, ManifestParams)
        parameter = ManifestParams.parameters()["trusted_keys"]
        try:
            known = parameter.tightest(keys, manifest.trusted_keys)
            asked = ManifestParams.model_validate({**manifest.model_dump(), "trusted_keys": known})
        except ValueError:
            raise PolicyError(
                [f"policy {policy.id}: too few of the keys that it trusts are pinned in {file}"]
            ) from None
        origins = dict(policy.origins)
        if known != manifest.trusted_keys:
            origins["manifest", "trusted_keys"] = (file, 1)
        return policy.model_copy(
            update={"rules": {**policy.rules, "manifest": asked}, "origins": origins}
        )

    def check_ledger(self, named: str, *, same: bool) -> None:
        """Raises: UsageError for another ledger than the one that is pinned."""
        if self.ledger is not None and not same:
            raise UsageError(
                f"the ledger is pinned to {self.ledger[0]} in {self.ledger[1]}: "
                f"leave {named} out, or ask whoever answers for that file"
            )

    @property
    def trusted(self) -> tuple[str, ...]:
        """The keys that are pinned."""
        return self.keys[0] if self.keys else ()

    def known(self, keys: Sequence[K]) -> list[K]:
        """Those of some public keys whose signatures may count."""
        return [k for k in keys if self.keys is None or k.text in self.keys[0]]

    def check_keys(self, keys: Sequence[str]) -> None:
        """Raises: UsageError for a key that is none of those that are pinned."""
        if self.keys is not None and set(keys) - set(self.keys[0]):
            raise UsageError(
                f"the keys that are trusted are pinned in {self.keys[1]}, and one that was given "
                "is none of them"
            )


def in_force(policy: Policy) -> Policy:
    """A policy, tightened to what organisation files pin; itself where there are none.

    Raises: PolicyError for an organisation file that cannot be used, and for a policy that cannot
    meet what is pinned.
    """
    return pins().raise_floor(policy)


def pins() -> Pins:
    """What organisation files pin, read anew: a file that was put there just now applies.

    Raises: PolicyError with every problem of all files.
    """
    problems: list[Problem] = []
    floors: list[tuple[Policy, str]] = []
    ledger: tuple[str, str] | None = None
    keys: tuple[tuple[str, ...], str] | None = None
    for path in _files():
        label = str(path)
        found, floor, wrong = _read_once(path)
        problems += wrong
        if found is None:
            continue
        if floor is not None:
            floors.append((floor, label))
        if found.ledger is not None:
            own = _from(path.parent, found.ledger)
            if ledger is not None and ledger[0] != own:
                problems.append(Problem(f"ledger: {ledger[1]} pins another one", label))
            ledger = ledger or (own, label)
        if found.trusted_keys:
            known = tuple(k for k in found.trusted_keys if keys is None or k in keys[0])
            if not known:
                problems.append(Problem("trusted_keys: no key is pinned elsewhere too", label))
            keys = (known, label)
    if problems:
        raise PolicyError(problems)
    return Pins(tuple(floors), ledger, keys)


def is_organisation(path: str | Path) -> bool:
    """Whether a file says that it is an organisation file."""
    try:
        root, _ = read(Path(path), str(path))
    except PolicyError:
        return False
    said = root.content.get("schema")
    return said is not None and str(said.plain()).startswith("safegen.org/")


def read_organisation(
    path: Path,
) -> tuple[Organisation | None, Policy | None, list[Problem]]:
    """An organisation file and its floor, or every problem that keeps it from being one."""
    label = str(path)
    if blocks(path):
        return None, None, [Problem("this is no file", label)]
    try:
        root, problems = read(path, label)
    except PolicyError as error:
        return None, None, list(error.problems)
    content = dict(root.content)
    said = content.pop("schema", None)
    if said is None or said.plain() != SCHEMA:
        problems.append(Problem(f"schema has to be {SCHEMA}", label, said.line if said else 1))
    for name, node in content.items():
        if node.content is None and node.usable:  # a template that was not filled in, perhaps
            problems.append(
                Problem(f"{name} is empty: fill it in, or leave it out", label, node.line)
            )
    found, wrong = parsed(Organisation, content)
    problems += [Problem(message, label, root.at(place).line) for message, place in wrong]
    if found is not None and _PASSWORD.search(found.ledger or ""):
        problems.append(
            Problem(
                "ledger: everybody may read this file, so a password is not for it: put it into "
                "each user's password file ($PGPASSFILE)",
                label,
                root.at(("ledger",)).line,
            )
        )
    floor = None
    if found is not None and found.floor is not None:
        floor, wrong_floor = pinned(found.floor, path.parent)
        line = root.at(("floor",)).line
        problems += [
            p if p.file else Problem(f"floor: {p.message}", label, line) for p in wrong_floor
        ]
    return (None, None, problems) if problems else (found, floor, [])


_Read = tuple[Organisation | None, Policy | None, list[Problem]]
_known: dict[tuple[Path, bytes], _Read] = {}


def _read_once(path: Path) -> _Read:
    """As `read_organisation`. What the same bytes said in this process is not found out again: a
    floor is pinned by its digest, so that it cannot have become another."""
    if not os.path.isfile(path):  # which, unlike Path's, never raises
        return read_organisation(path)
    try:
        with path.open("rb") as file:
            key = (path, hashlib.sha256(file.read(MAX_BYTES + 1)).digest())
    except OSError:
        return read_organisation(path)
    if key not in _known:
        found = read_organisation(path)
        if found[0] is None:
            return found
        _known[key] = found
    return _known[key]


def _files() -> list[Path]:
    """Every organisation file there is. One that $SAFEGEN_ORG names has to be there."""
    files = [path for folder in settings_folders() if _is_there(path := folder / FILE)]
    if named := os.environ.get(VARIABLE):
        files.append(Path(named).absolute())
    unique: dict[object, Path] = {}
    for path in files:
        try:
            stat = path.stat()
            unique.setdefault((stat.st_dev, stat.st_ino), path)
        except OSError:
            unique.setdefault(path, path)
    return list(unique.values())


def _is_there(path: Path) -> bool:
    """Whatever is there counts, a folder, a broken link, and what may not be looked at too: reading
    it says what is wrong."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _from(folder: Path, ledger: str) -> str:
    """A ledger's name: a path counts from the folder of the file that names it, and `~` is the
    account's home, for $HOME is what anybody says."""
    ledger = at_home(ledger)
    if ":" in ledger.partition("/")[0] or os.path.isabs(os.path.expanduser(ledger)):
        return ledger
    return str(folder / ledger)
