"""From a file or a shipped name to a Policy, or to every problem at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from safegen.errors import PolicyError, Problem, SafegenError, upstream
from safegen.policy.document import Node, read
from safegen.policy.model import SCHEMA, Header, Origin, Place, Policy, conflicts
from safegen.policy.params import RuleParams
from safegen.policy.rules import RULES
from safegen.policy.waiver import Waiver
from safegen.policy.wording import did_you_mean, dotted, said

__all__ = ["Examined", "examine", "load", "shipped"]

M = TypeVar("M", bound=BaseModel)

_TOP = ("schema", *Header.model_fields, "rules", "waivers")
_GROUP = "safegen.safeguards"  # entry points of third-party rules


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


def examine(path_or_name: str | Path, text: str | None = None) -> Examined:
    """What a file or shipped name holds, or would hold with that `text`. Raises nothing: problems
    are part of the answer."""
    try:
        path, label = _locate(path_or_name)
        root, problems = read(path, label, text)
    except PolicyError as error:
        return Examined(None, list(error.problems), [])
    draft = _Draft(root, label, problems)
    policy = draft.policy()
    problems.sort(key=lambda problem: problem.line or 0)
    count = len(policy.waivers) if policy else 0
    places = [(label, root.at(("waivers", number)).line) for number in range(count)]
    return Examined(policy, problems, places)


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
class _Draft:
    """One file on its way to a policy. Goes on after each problem, to find them all."""

    root: Node
    label: str
    problems: list[Problem]
    rules: dict[str, RuleParams] = field(default_factory=dict)
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # rules already complained about

    def policy(self) -> Policy | None:
        """The policy when the whole file is well; else None, and `problems` says why."""
        self._schema()
        self._unknown_keys()
        header = self._header()
        self._rules()
        waivers = self._waivers()
        complete = {
            **{n: cls(severity="off") for n, cls in RULES.items() if n not in self.broken},
            **self.rules,
        }
        judged = [w for _, w in waivers if w.rule not in self.broken]
        places = [number for number, w in waivers if w.rule not in self.broken]
        for place, message in conflicts(complete, judged):
            if place[0] == "waivers":
                place = ("waivers", places[int(place[1])], *place[2:])
            self._say(message, place)
        if header is None or self.problems:
            return None
        return Policy(
            **{name: getattr(header, name) for name in Header.model_fields},
            rules=self.rules,
            waivers=tuple(w for _, w in waivers),
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
        return self._parse(Header, {k: content[k] for k in Header.model_fields if k in content}, ())

    def _rules(self) -> None:
        node = self.root.content.get("rules")
        if node is None or not isinstance(node.content, dict):
            self._say("rules is missing, or no mapping of rule names to parameters", ("rules",))
            self.broken.update(RULES)
            return
        for name, entry in node.content.items():
            place: Place = ("rules", name)
            cls = RULES.get(name) or self._plugged(name)
            if cls is not None and isinstance(entry.content, dict):
                if (rule := self._parse(cls, entry.content, place)) is not None:
                    self.rules[name] = rule
                    for key, value in entry.content.items():
                        self.origins[name, key] = (self.label, value.line)
                    continue
            elif cls is not None:
                self._say(f"rules.{name} has to be a mapping, such as {{severity: audit}}", place)
            self.broken.add(name)

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

    def _parse(self, model: type[M], content: dict[str, Node], place: Place) -> M | None:
        """A model from nodes; its errors become problems with line and nearest key."""
        values: dict[str, Any] = {key: node.plain() for key, node in content.items()}
        try:
            # Through JSON, whose strict mode takes a list for a tuple and text for a date,
            # and still takes no text for a number.
            return model.model_validate_json(json.dumps(values))
        except ValidationError as error:
            for details in error.errors(include_url=False):
                path = tuple(details["loc"])
                at = path[:-1] if details["type"] == "extra_forbidden" else path
                name = dotted((*place, *at))
                message = said(details, model)
                self._say(f"{name}: {message}" if name else message, (*place, *path))
            return None
