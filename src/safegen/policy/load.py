"""From a file or a shipped name to a Policy, or to every problem at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from safegen.errors import PolicyError, Problem, SafegenError, upstream
from safegen.policy.cases import problems_of
from safegen.policy.document import Node, blocks, read
from safegen.policy.merge import loosened
from safegen.policy.model import (
    SCHEMA,
    Ancestor,
    Header,
    Origin,
    Place,
    Policy,
    conflicts,
    idle,
)
from safegen.policy.params import RuleParams, Section
from safegen.policy.parsing import parsed
from safegen.policy.rules import RULES
from safegen.policy.sections import SECTIONS, Digest, Text
from safegen.policy.waiver import Waiver
from safegen.policy.wording import did_you_mean, dotted

__all__ = ["Draft", "Examined", "Extends", "examine", "load", "pinned", "shipped"]

M = TypeVar("M", bound=BaseModel)

_TOP = ("schema", "extends", "locked", *Header.model_fields, "rules", "waivers", "tests")
_GROUP = "safegen.safeguards"  # entry points of third-party rules
_INHERITED = ("description", "contact", "owner")  # of the header; id and version are a file's own
MAX_ANCESTORS = 8  # a company, a division, a team, and some to spare


class Extends(BaseModel):
    """A policy that another document builds on, by name and content."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    policy: Text = Field(description="A shipped policy's name, or a file, from this file's folder.")
    digest: Digest = Field(description="Its digest, as `safegen policy explain` prints it.")


def load(path_or_name: str | Path) -> Policy:
    """See `Policy.load`."""
    found = examine(path_or_name)
    if found.policy is None:
        raise PolicyError(found.problems)
    return found.policy


class Examined(NamedTuple):
    """A policy, or every problem that keeps the file from being one; never both."""

    policy: Policy | None
    problems: list[Problem]
    waivers: list[Origin]  # where each waiver of the policy stands


def examine(path_or_name: str | Path, *, text: str | None = None, depth: int = 0) -> Examined:
    """What a file or shipped name holds. Raises nothing: problems are part of the answer.

    text: what the file is going to say. depth: how many policies extend it, one after the other.
    """
    try:
        path, label = _locate(path_or_name)
        root, problems = read(path, label, text)
    except PolicyError as error:
        return Examined(None, list(error.problems), [])
    draft = Draft(root, label, problems)
    draft.extend(path.parent, depth)
    policy = draft.policy()
    # Those of a parent first: most of a child's follow from them.
    problems.sort(key=lambda problem: (problem.file == label, problem.line or 0))
    waivers = root.content.get("waivers")
    own = waivers.content if waivers and isinstance(waivers.content, list) else []
    places = [(label, node.line) for node in own] if policy else []
    return Examined(policy, problems, places)


def pinned(extends: Extends, folder: Path, depth: int = 0) -> tuple[Policy | None, list[Problem]]:
    """The policy that a document in `folder` names, if it is the one that it pins. Problems without
    a file are about the pin."""
    named = extends.policy
    if depth >= MAX_ANCESTORS:
        return None, [Problem(f"more than {MAX_ANCESTORS} policies one on another, or a circle")]
    place = folder / named if _is_path(named) else named
    if isinstance(place, Path) and blocks(place):
        return None, [Problem(f"{named} is no file")]
    found = examine(place, depth=depth + 1)
    if found.policy is None:
        return None, [Problem(f"{named} has problems of its own"), *found.problems]
    if found.policy.digest != extends.digest:
        told = f"{named} is not the policy that is pinned: its digest is {found.policy.digest}"
        return None, [Problem(f"{told}; see what changed (safegen policy diff), then pin that")]
    return found.policy, []


def shipped() -> Mapping[str, Path]:
    """The policies that come with safegen: name to file, sorted by name."""
    from importlib.resources import files

    folder = Path(str(files("safegen"))) / "policies"
    if not folder.is_dir():
        # A checkout keeps them at its top, where governance people look for them.
        top = Path(__file__).resolve().parents[3]
        if (top / "pyproject.toml").is_file():
            folder = top / "policies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _locate(path_or_name: str | Path) -> tuple[Path, str]:
    """The file, and what problems and origins call it (for a shipped one without its folder)."""
    if isinstance(path_or_name, Path) or _is_path(path_or_name):
        return Path(path_or_name), str(path_or_name)
    known = shipped()
    if path_or_name not in known:
        near = did_you_mean(path_or_name, known)
        names = "" if near.startswith("known") else f" (shipped: {', '.join(known)})"
        raise PolicyError(
            [f"no policy is called {path_or_name!r}, {near}{names}; a file ends with .yaml"]
        )
    return known[path_or_name], f"policies/{path_or_name}.yaml"


def _is_path(text: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return text.endswith((".yaml", ".yml")) or any(s in text for s in separators)


@dataclass
class Draft:
    """One file on its way to a policy, over its `parent`. Goes on after each problem, to find them
    all."""

    root: Node
    label: str
    problems: list[Problem]
    parent: Policy | None = None
    rules: dict[str, RuleParams] = field(default_factory=dict)
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # rules already complained about

    def extend(self, folder: Path, depth: int) -> None:
        """Find the parent that the file names, from the `folder` that it is in."""
        node = self.root.content.get("extends")
        if node is None:
            return
        if not isinstance(node.content, dict):
            self._say("extends has to be a mapping: {policy: …, digest: …}", ("extends",))
        elif (extends := self._parse(Extends, node.content, ("extends",))) is not None:
            self.parent, problems = pinned(extends, folder, depth)
            for problem in problems:
                if problem.file is None:
                    self._say(f"extends: {problem.message}", ("extends",))
                else:
                    self.problems.append(problem)

    def policy(self) -> Policy | None:
        """The policy when the whole file is well; else None, and `problems` says why."""
        self._schema()
        self._unknown_keys()
        if self.parent is None and "extends" in self.root.content:
            return None  # which values are missing, or too loose, nobody can tell
        if self.parent is not None:
            self.rules.update(self.parent.rules)
            self.origins.update(self.parent.origins)
        header = self._header()
        self._rules()
        known = dict.fromkeys([*RULES, *self.rules, *self.broken])
        self.problems += problems_of(self.root, self.label, known)
        complete = {
            **{n: cls(severity="off") for n, cls in RULES.items() if n not in self.broken},
            **self.rules,
        }
        parts: dict[str, Section] = {
            **complete,
            **{name: getattr(header, name) if header else cls() for name, cls in SECTIONS.items()},
        }
        # Of what was complained about already nothing more is to be said.
        waivers = self._waivers()
        judged = [(number, w) for number, w in waivers if w.rule not in self.broken]
        locked = self._locked()
        paths = [(n, p) for n, p in enumerate(locked) if not {p, p.split(".")[0]} & self.broken]
        numbers = {"waivers": [n for n, _ in judged], "locked": [n for n, _ in paths]}
        for place, message in conflicts(parts, [w for _, w in judged], [p for _, p in paths]):
            if place[0] in numbers:
                place = (place[0], numbers[str(place[0])][int(place[1])], *place[2:])
            self._say(message, place)
        for number, waiver in waivers:
            if not self.problems:
                for key, message in idle(waiver, complete[waiver.rule]):
                    self._say(message, ("waivers", number, "params", key))
        if self.parent is not None and not self.problems:
            for place, message in loosened(self.parent, parts):
                self._say(message, place)
        if header is None or self.problems:
            return None
        return self._policy(header, locked, tuple(w for _, w in waivers))

    def _policy(
        self, header: Header, locked: list[str], waivers: tuple[Waiver, ...]
    ) -> Policy | None:
        above = self.parent
        extends: tuple[Ancestor, ...] = ()
        if above is not None:
            own = Ancestor(id=above.id, version=above.version, digest=above.digest)
            extends = (own, *above.extends)
            if taken := {w.id for w in above.waivers} & {w.id for w in waivers}:
                message = f"waivers: {min(taken)!r} is a waiver of {above.id}, which it extends"
                self._say(message, ("waivers",))
                return None
        return Policy(
            **{name: getattr(header, name) for name in Header.model_fields},
            rules=self.rules,
            waivers=(*(above.waivers if above else ()), *waivers),
            extends=extends,
            locked=tuple(sorted({*(above.locked if above else ()), *locked})),
            origins=self.origins,
        )

    def _say(self, message: str, place: Place) -> None:
        node = self.root.at(place)
        if node.usable:
            self.problems.append(Problem(message, self.label, node.line))

    def _schema(self) -> None:
        said_schema = self.root.content.get("schema")
        if said_schema is None:
            self._say(f"schema is missing: write schema: {SCHEMA}", ())
        elif said_schema.plain() != SCHEMA:
            self._say(f"schema has to be {SCHEMA}: this version reads no other", ("schema",))

    def _unknown_keys(self) -> None:
        for key in self.root.content:
            if key not in _TOP:
                self._say(f"unknown key {key!r}, {did_you_mean(key, _TOP)}", (key,))

    def _header(self) -> Header | None:
        content = self.root.content
        base: dict[str, Any] = {}
        if self.parent is not None:
            told = self.parent.model_dump(mode="json", include={*_INHERITED, *SECTIONS})
            base = {name: value for name, value in told.items() if value is not None}
        nodes = {k: content[k] for k in Header.model_fields if k in content}
        for name in SECTIONS:
            if name in nodes and isinstance(section := nodes[name].content, dict):
                inherited = base.get(name, {})
                base[name] = {k: v for k, v in inherited.items() if k not in section}
                for key, value in section.items():
                    self.origins[name, key] = (self.label, value.line)
        return self._parse(Header, nodes, (), base)

    def _locked(self) -> list[str]:
        node = self.root.content.get("locked")
        if node is None:
            return []
        paths = node.plain()
        if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
            self._say("locked has to be a list of rules, or of parameters (rule.name)", ("locked",))
            return []
        return paths

    def _rules(self) -> None:
        node = self.root.content.get("rules")
        if node is None and self.parent is not None:
            return
        if node is None or not isinstance(node.content, dict):
            self._say("rules is missing, or no mapping of rule names to parameters", ("rules",))
            self.broken.update(RULES)
            return
        for name, entry in node.content.items():
            place: Place = ("rules", name)
            cls = RULES.get(name) or self._plugged(name)
            if cls is not None and isinstance(entry.content, dict):
                if (rule := self._parse(cls, entry.content, place, self._above(name))) is not None:
                    self.rules[name] = rule
                    for key, value in entry.content.items():
                        self.origins[name, key] = (self.label, value.line)
                    continue
            elif cls is not None:
                self._say(f"rules.{name} has to be a mapping, such as {{severity: audit}}", place)
            self.broken.add(name)

    def _above(self, name: str) -> dict[str, Any]:
        """A rule as the parent has it; nothing of one that it leaves out, so that a child has to
        say how severe it is."""
        rule = self.parent.rules.get(name) if self.parent else None
        if rule is None or rule == type(rule)(severity="off"):
            return {}
        return rule.model_dump(mode="json")

    def _plugged(self, name: str) -> type[RuleParams] | None:
        """The parameters of a third-party rule, by the exact name of its entry point."""
        from importlib.metadata import entry_points

        found = list(entry_points(group=_GROUP, name=name))
        place: Place = ("rules", name)
        if len(found) > 1:
            providers = ", ".join(sorted(entry.value for entry in found))
            self._say(f"rule {name!r} has two providers: {providers}; uninstall one", place)
            return None
        if not found:
            known = dict.fromkeys([*RULES, *sorted(entry_points(group=_GROUP).names)])
            self._say(f"unknown rule {name!r}, {did_you_mean(name, known)}", place)
            return None
        try:
            params = getattr(found[0].load(), "Params", None)
        except SafegenError as error:
            self._say(f"rule {name!r}: {found[0].value} cannot be used: {error}", place)
            return None
        except Exception as error:  # third-party code: whatever it raises is one problem here
            self._say(f"rule {name!r}: {found[0].value} fails ({upstream(error)})", place)
            return None
        if isinstance(params, type) and issubclass(params, RuleParams):
            return params
        self._say(
            f"unknown rule {name!r}, {did_you_mean(name, RULES)} "
            f"({found[0].value} has no Params deriving from RuleParams)",
            place,
        )
        return None

    def _waivers(self) -> list[tuple[int, Waiver]]:
        node = self.root.content.get("waivers")
        if node is None:
            return []
        if not isinstance(node.content, list):
            self._say("waivers has to be a list", ("waivers",))
            return []
        return list(self._each_waiver(node.content))

    def _each_waiver(self, nodes: list[Node]) -> Iterator[tuple[int, Waiver]]:
        for number, node in enumerate(nodes):
            place: Place = ("waivers", number)
            if not isinstance(node.content, dict):
                self._say(f"{dotted(place)} has to be a mapping", place)
            elif (waiver := self._parse(Waiver, node.content, place)) is not None:
                yield number, waiver

    def _parse(
        self,
        model: type[M],
        content: dict[str, Node],
        place: Place,
        base: Mapping[str, Any] | None = None,
    ) -> M | None:
        """As `parsed`; what is wrong becomes problems."""
        found, wrong = parsed(model, content, place, base)
        for message, where in wrong:
            self._say(message, where)
        return found
