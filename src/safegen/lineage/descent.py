"""The trees of what a dataset was made from, and of what was made from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from safegen.ledger import Ledger
from safegen.lineage.facts import SourceFacts
from safegen.lineage.roots import expired
from safegen.lineage.withdrawals import Withdrawal, withdrawals
from safegen.manifest import Manifest

__all__ = ["MAX_NODES", "Descent", "Node", "Verdict"]

MAX_DEPTH = 64
MAX_NODES = 500
"""Nodes of one tree; manifests may be forged to have no end."""


@dataclass(frozen=True)
class Verdict:
    """A decision under which a dataset was made: at which gate, by which policy, how it went."""

    gate: str
    allowed: bool
    policy: str
    version: str
    warnings: int


@dataclass(frozen=True)
class Node:
    """What is known of one dataset or source, and the nodes on the next level.

    uri: where it was, as whoever used it says. statement: attestation, release or derivation;
    evidence, where nobody has stated what the data are and that is what was found in them; None
    where only the manifest of what was made from it speaks of it. by: who stated it; backend: what
    made it. synthetic_share: None where it is not known. claimed_by: the ledger
    whose claim it is. withdrawn: its own withdrawal, or that of something behind it. note: why the
    next level is not followed; more: how many nodes of it are left out.
    """

    uri: str | None
    dataset_id: str | None
    statement: str | None
    created: str | None
    by: str | None
    backend: str | None
    origin: str
    ancestry: str
    rows: int
    synthetic_share: float | None
    depth: int
    effective_depth: float
    depth_is_lower_bound: bool
    verdicts: tuple[Verdict, ...]
    expires: str | None
    license: str | None
    expired: bool
    claimed_by: str | None
    withdrawn: Withdrawal | None
    note: str | None = None
    more: int = 0
    nodes: tuple[Node, ...] = ()

    def to_json(self, name: str) -> dict[str, Any]:
        """The facts, and those of the next level under `name`."""
        told = {k: v for k, v in vars(self).items() if k not in ("nodes", "verdicts", "withdrawn")}
        return {
            **told,
            "verdicts": [vars(v) for v in self.verdicts],
            "withdrawn": None if self.withdrawn is None else vars(self.withdrawn),
            name: [n.to_json(name) for n in self.nodes],
        }


class Descent:
    """Trees of at most 500 nodes and 64 levels, from a ledger and manifests that are at hand.

    What is met again is named and not drawn again; so is what would be its own ancestor.
    """

    def __init__(self, ledger: Ledger | None, manifests: Iterable[Manifest] = ()):
        self._ledger = ledger
        self._manifests = {m.dataset_id: m for m in manifests}
        self._withdrawn = withdrawals(ledger) if ledger is not None else {}
        self._met: dict[str, Withdrawal | None] = {}
        self._line: list[str | None] = []
        self._left = MAX_NODES

    def ancestors(self, entry: Mapping[str, Any]) -> Node:
        """The tree behind a dataset or source that a manifest lists like this."""
        return self._behind(*self._node(entry))

    def ancestors_of(self, facts: SourceFacts) -> Node:
        """The tree behind data: of a whole dataset its own, else those of the datasets of which
        rows were found in it, or which another ledger claims that it is."""
        entry = facts.entry().model_dump(mode="json")
        whole = {e.dataset_id for e in facts.evidence if e.proof and e.part is None}
        if facts.dataset_id in whole:
            return self.ancestors(entry)
        told = [e for e in facts.evidence if e.synthetic or e.ring == "claim"]
        found = dict.fromkeys(e.dataset_id for e in told if e.dataset_id is not None)
        node, _ = self._node({**entry, "dataset_id": None})
        share = None if facts.origin == "unknown" else facts.synthetic_share
        node = replace(node, statement="evidence", synthetic_share=share)
        return self._behind(node, [{"dataset_id": one} for one in found])

    def descendants(self, node: Node) -> Node:
        """A node with the trees of what was made from it, as far as the ledger knows."""
        children: dict[str, list[Mapping[str, Any]]] = {}
        for record in self._ledger.records() if self._ledger is not None else ():
            for source in dict.fromkeys(record.made_from):
                children.setdefault(source, []).append({"dataset_id": record.dataset_id})
        self._met, self._left = {}, MAX_NODES
        return self._below(node, children)

    def _behind(self, node: Node, sources: Sequence[Mapping[str, Any]]) -> Node:
        if (note := self._note(node.dataset_id)) is not None:
            met = self._met.get(node.dataset_id or "")
            return replace(node, note=note, withdrawn=node.withdrawn or met)
        nodes: list[Node] = []
        with self._inside(node):
            for source in sources:
                if self._left > 0:
                    nodes.append(self._behind(*self._node(source)))
        told = [n.withdrawn for n in (node, *nodes) if n.withdrawn is not None]
        withdrawn = told[0] if told else None
        if node.dataset_id is not None:
            self._met[node.dataset_id] = withdrawn
        more = len(sources) - len(nodes)
        return replace(node, nodes=tuple(nodes), more=more, withdrawn=withdrawn)

    def _below(self, node: Node, children: Mapping[str, Sequence[Mapping[str, Any]]]) -> Node:
        if (note := self._note(node.dataset_id)) is not None:
            return replace(node, note=note)
        nodes: list[Node] = []
        made = children.get(node.dataset_id or "", ())
        with self._inside(node):
            for entry in made:
                if self._left > 0:
                    child, _ = self._node(entry)
                    child = replace(child, withdrawn=child.withdrawn or node.withdrawn)
                    nodes.append(self._below(child, children))
        return replace(node, nodes=tuple(nodes), more=len(made) - len(nodes))

    def _note(self, dataset_id: str | None) -> str | None:
        """Why a node is not followed; None where it is."""
        self._left -= 1
        if dataset_id is not None and dataset_id in self._line:
            return "it cannot be behind itself: a manifest is forged"
        if dataset_id in self._met:
            return "as above"
        if len(self._line) >= MAX_DEPTH:
            return f"more than {MAX_DEPTH} levels"
        return None

    @contextmanager
    def _inside(self, node: Node) -> Iterator[None]:
        """While the nodes of the next level are asked for."""
        self._line.append(node.dataset_id)
        yield
        self._line.pop()
        if node.dataset_id is not None:
            self._met.setdefault(node.dataset_id, None)

    def _node(self, entry: Mapping[str, Any]) -> tuple[Node, list[Mapping[str, Any]]]:
        """What is known of a source that a manifest lists, and the sources of its own."""
        dataset_id = entry.get("dataset_id")
        record = self._ledger.get(dataset_id) if self._ledger is not None and dataset_id else None
        manifest = self._manifests.get(str(dataset_id))
        told = manifest.document() if manifest is not None else entry
        told = record.manifest if record is not None else told
        stated = told is not entry
        claimed = record is not None and record.claimed
        rows = int(told.get("rows", 0))
        node = Node(
            uri=entry.get("uri"),
            dataset_id=dataset_id,
            statement=str(told.get("statement", "release")) if stated else None,
            created=told.get("created"),
            by=told.get("attested_by"),
            backend=(told.get("generator") or {}).get("backend") or _tool(told),
            origin=str(told.get("origin", "unknown")),
            ancestry=str(told.get("ancestry", "unverified")),
            rows=rows,
            synthetic_share=_share(str(told.get("origin")), told.get("composition"), rows),
            depth=int(told.get("depth", 0)),
            effective_depth=float(told.get("effective_depth", 0)),
            depth_is_lower_bound=claimed
            or bool(told["depth_is_lower_bound"] if stated else told.get("ancestry") != "attested"),
            verdicts=_verdicts(told.get("decisions") or ()),
            expires=told.get("expires"),
            license=told.get("license"),
            expired=expired(told.get("expires")),
            claimed_by=record.imported_from if record is not None and claimed else None,
            withdrawn=self._withdrawn.get(str(dataset_id)),
        )
        return node, list(told.get("sources") or ())


def _tool(manifest: Mapping[str, Any]) -> str | None:
    tool = (manifest.get("extra") or {}).get("tool")
    return tool if isinstance(tool, str) else None


def _share(origin: str, composition: Any, rows: int) -> float | None:
    if composition and rows:
        return min(int(composition.get("synthetic", 0)) / rows, 1.0)
    return {"synthetic": 1.0, "real": 0.0}.get(origin)


def _verdicts(decisions: Iterable[Any]) -> tuple[Verdict, ...]:
    found = []
    for one in decisions:
        policy, findings = one.get("policy"), one.get("findings")
        if isinstance(policy, Mapping) and isinstance(findings, Mapping):
            warned = [f for f in findings.values() if isinstance(f, Mapping)]
            found.append(
                Verdict(
                    str(one.get("gate")),
                    one.get("allowed") is True,
                    str(policy.get("id")),
                    str(policy.get("version")),
                    sum(f.get("outcome") == "warn" for f in warned),
                )
            )
    return tuple(found)
