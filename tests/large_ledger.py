"""A ledger as a company's after years: sources, chains, fans, mixtures, withdrawals, decisions.

Everything goes through `Ledger.register` and `.record`, in one transaction, so that ten thousand
datasets take seconds. The same arguments give the same ledger, but for its ids and keys.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from safegen.ledger import Ledger, LogEntry, Record, base, open_ledger
from safegen.manifest import Manifest

__all__ = ["Growing", "large_ledger"]

BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
BACKENDS = ("sdv.gaussian_copula", "ctgan", "diffusion.tabular", "sdv.tvae")
RULES = {
    "lineage/depth": "effective depth {n}: what was found comes from a generator",
    "lineage/unattested": "{n} sources whose origin nobody states",
    "manifest/signature": "no key was given",
    "schema/missingness": "largest gap +0.0{n}50 in column {n}",
    "support/levels": "{n} of 9 strata present",
    "fidelity/shape": "shape error 0.0{n}",
    "privacy/copies": "{n} rows nearer to a real row than to any other",
}
POLICIES = [
    {
        "id": name,
        "version": f"1.{minor}.0",
        "digest": "sha256:" + base.sha256(f"{name} {minor}".encode()),
        "contact": "governance@example.org",
    }
    for minor in range(3)
    for name in ("baseline", "strict", "anchored")
]
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Growing:
    """A ledger that grows, reproducibly: each method registers or records one thing."""

    def __init__(self, ledger: Ledger, seed: int = 7, every: float = 45.0):
        """every: minutes between two things."""
        self.ledger = ledger
        self.random = random.Random(seed)
        self.records: dict[str, Record] = {}
        self._time = BEGIN
        self._every = every

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """One transaction around everything inside, and the quick way to canonical bytes."""
        ledger: Any = self.ledger
        with ledger._transaction(write=True) as db:

            @contextmanager
            def same(*, write: bool = False) -> Iterator[Any]:
                yield db

            def quick(value: object, what: str) -> bytes:
                return base.quick(value)

            with (
                mock.patch.object(ledger, "_transaction", same),
                mock.patch.object(base, "canonical", quick),
            ):
                yield

    def now(self) -> str:
        """A moment later than the last one."""
        self._time += timedelta(minutes=self._every * 2 * self.random.random())
        return self._time.isoformat(timespec="seconds").replace("+00:00", "Z")

    def source(self, place: str, *, origin: str = "real", **more: Any) -> Record:
        """What somebody attested."""
        return self.register(
            statement="attestation",
            origin=origin,
            depth=int(origin == "synthetic"),
            extra={"source_uri": place},
            **{"attested_by": self.random.choice(("Ada", "Grace", "Emmy")), **more},
        )

    def release(self, *sources: Record | Mapping[str, Any], name: str = "", **more: Any) -> Record:
        """What was made from these: records, or entries of a manifest's `sources`."""
        entries = [entry(s, name) if isinstance(s, Record) else dict(s) for s in sources]
        least = any(e["ancestry"] != "attested" and e["origin"] != "real" for e in entries)
        return self.register(
            **{
                "depth": 1 + max((e["depth"] for e in entries), default=0),
                "ancestry": "unverified" if least else "attested",
                "sources": entries,
                **more,
            }
        )

    def register(self, *, extra: Mapping[str, Any] | None = None, **more: Any) -> Record:
        """A record with these fields of its manifest, and others as they would be."""
        created = more.pop("created", None) or self.now()
        rows = more.pop("rows", None) or self.random.choice((500, 12_000, 100_000, 2_000_000))
        origin = more.pop("origin", "synthetic")
        depth = more.pop("depth", 1)
        policy = self.random.choice(POLICIES)
        released = more.get("statement", "release") == "release"
        document: dict[str, Any] = {
            "schema": "safegen.manifest/v1",
            "dataset_id": more.pop("dataset_id", None) or self._id(),
            "created": created,
            "statement": "release",
            "kind": "table",
            "origin": origin,
            "ancestry": "attested",
            "depth": depth,
            "effective_depth": depth,
            "depth_is_lower_bound": more.get("ancestry") == "unverified",
            "rows": rows,
            "composition": {
                "real": rows if origin == "real" else rows // 2 if origin == "mixed" else 0,
                "synthetic": 0 if origin == "real" else rows - (rows // 2) * (origin == "mixed"),
            },
            "generator": self._generator() if released else None,
            "sources": [],
            "columns": [
                {"name": f"column_{i}", "role": "feature", "table": "table", "type": "double"}
                for i in range(24)
            ],
            "policy": {k: policy[k] for k in ("id", "version", "digest")} if released else None,
            "decisions": [
                self._decision(gate, True, policy, created, []) for gate in ("admission", "release")
            ]
            if released
            else [],
            "safeguards": {rule.partition("/")[0]: {"severity": "enforce"} for rule in RULES},
            "measurements": [],
            "claims": [],
            "privacy": {"dp": None, "real_rows": 0},
            "files": self._files(rows) if released else [],
            "logical_digest": more.pop("logical_digest", None) or self._digest(),
            "license": self.random.choice((None, "CC-BY-4.0", "proprietary")),
            "attested_by": None,
            "expires": None,
            "warnings": [],
            "extra": dict(extra or {}),
            **more,
        }
        manifest = Manifest.model_validate(document)
        told = manifest.document()
        for part in (told, *told["sources"]):
            part["effective_depth"] = _whole(part["effective_depth"])
        body = {k: v for k, v in told.items() if k != "digest"}
        told["digest"] = "sha256:" + base.sha256(base.canonical(body, "manifest"))
        record = replace(
            Record.of(manifest, None),
            effective_depth=told["effective_depth"],
            manifest=told,
            manifest_digest=told["digest"],
        )
        self.ledger.register(record, {})
        self.records[record.dataset_id] = record
        return record

    def decision(
        self,
        *sources: Record,
        gate: str = "admission",
        blocked: tuple[str, ...] = (),
        **more: Any,
    ) -> LogEntry:
        """A decision about these sources; refused by the findings that block it."""
        policy = self.random.choice(POLICIES)
        subject = [f"{name_of(s)} ({s.rows:,} rows)" for s in sources]
        said = self._decision(gate, not blocked, policy, self.now(), blocked)
        told = {"subject": subject, "sources": [entry(s) for s in sources]}
        return self.ledger.record("decision", {**said, **told, **more})

    def withdraw(self, record: Record, reason: str = "the consent was taken back") -> LogEntry:
        """Take a dataset back."""
        payload = {"dataset_id": record.dataset_id, "by": "Ada", "reason": reason}
        return self.ledger.record("withdrawal", payload)

    def _decision(
        self, gate: str, allowed: bool, policy: Mapping[str, str], time: str, blocked: Any
    ) -> dict[str, Any]:
        findings = {}
        for name, observed in RULES.items():
            warned = name not in blocked and self.random.random() < 0.05
            findings[name] = {
                "status": "unmet" if warned or name in blocked else "met",
                "observed": observed.format(n=self.random.randrange(9)),
                "required": "at most what the policy says, with an interval that lies within it",
                "n": 12_000,
                "interval": [0.125, 0.25],
                "method": "Newcombe 1998, method 10, 95 %",
                "severity": "warn" if warned else "enforce",
                "outcome": "block" if name in blocked else "warn" if warned else "pass",
            }
        return {
            "allowed": allowed,
            "gate": gate,
            "time": time,
            "policy": dict(policy),
            "ledger": {
                "url": "sqlite:///srv/ledger.db",
                "ledger_id": "0" * 32,
                "datasets": len(self.records),
                "head": "0" * 64,
                "key_epochs": ["0" * 16],
            },
            "subject": [],
            "findings": findings,
            "waivers": [],
            "notes": ["attested? yes; detected? clean: rows of all releases are found"],
        }

    def _generator(self) -> dict[str, Any]:
        return {
            "backend": self.random.choice(BACKENDS),
            "license": "Apache-2.0",
            "versions": {"safegen": "0.1.0"},
            "options": {"epochs": 300},
            "seed": "11",
            "fit_seed": "7",
            "reproducible": True,
        }

    def _files(self, rows: int) -> list[dict[str, Any]]:
        groups = [
            {"offset": 4 + i * 90_000, "bytes": 90_000, "rows": rows // 8, "leaf": self._digest()}
            for i in range(8)
        ]
        return [
            {
                "path": "data/part-00000.parquet",
                "bytes": 720_004,
                "sha256": f"sha256:{self._digest()}",
                "table": "table",
                "rows": rows,
                "merkle_root": self._digest(),
                "row_groups": groups,
            }
        ]

    def _id(self) -> str:
        return "01" + "".join(self.random.choices(_ALPHABET, k=24))

    def _digest(self) -> str:
        return f"{self.random.getrandbits(256):064x}"


def _whole(number: float) -> float:
    """As RFC 8785 writes a number without a fraction."""
    return int(number) if number == int(number) else number


def entry(record: Record, name: str = "") -> dict[str, Any]:
    """A record as the manifest of what was made from it lists it."""
    return {
        "uri": name or name_of(record),
        "logical_digest": record.logical_digest,
        "dataset_id": record.dataset_id,
        "origin": record.origin,
        "ancestry": record.ancestry,
        "depth": record.depth,
        "effective_depth": record.effective_depth,
        "rows": record.rows,
        "evidence": [],
    }


def name_of(record: Record) -> str:
    """Where a record's data would lie."""
    place = record.manifest["extra"].get("source_uri")
    return str(place or f"out/{record.dataset_id[-6:].lower()}")


def large_ledger(
    path: Path, datasets: int = 10_000, decisions: int | None = None, seed: int = 7
) -> Ledger:
    """A ledger with so many datasets, and twice as many decisions.

    A fifth are releases of one popular source; the others are chains of up to 12 models, fans,
    mixtures with real data, and derivations, on a source for each 25 of them. One in 40 comes from
    a source of which no record is known, one in 100 is withdrawn.
    """
    ledger = open_ledger(path)
    growing = Growing(ledger, seed, every=525_600 / (3 * datasets))
    draw = growing.random
    wanted = 2 * datasets if decisions is None else decisions
    with growing.at_once():
        popular = growing.source("s3://lake/customers.parquet")
        families: list[list[Record]] = []
        made = [popular]
        while len(made) < datasets:
            one = draw.random()
            if one < 0.2:
                record = growing.release(popular)
            elif one < 0.24 or not families:
                record = growing.source(f"s3://lake/{draw.choice(WORDS)}-{len(families)}.parquet")
                families.append([record])
            elif one < 0.265:
                record = growing.release(strange(growing))
            else:
                family = families[-1 - min(int(draw.expovariate(0.05)), len(families) - 1)]
                behind = [family[-1] if draw.random() < 0.5 else draw.choice(family)]
                if draw.random() < 0.15:
                    behind.append(draw.choice(family if draw.random() < 0.9 else made))
                if behind[0].depth > 11:
                    behind = [family[0]]
                kind = "mixed" if len(behind) > 1 and draw.random() < 0.5 else "synthetic"
                record = growing.release(*{b.dataset_id: b for b in behind}.values(), origin=kind)
                family.append(record)
            made.append(record)
            if draw.random() < 0.01:
                growing.withdraw(draw.choice(made[1:] or made))
            for _ in range(int(wanted / datasets + draw.random())):
                refused = draw.random() < 0.1
                blocked = tuple(draw.sample(sorted(RULES), 1 + draw.randrange(2)))
                gate = draw.choice(("admission", "release"))
                growing.decision(record, gate=gate, blocked=blocked if refused else ())
    return ledger


WORDS = ("patients", "claims", "orders", "clicks", "meters", "loans", "visits", "shipments")


def strange(growing: Growing) -> dict[str, Any]:
    """A source that a manifest names and nobody has registered."""
    return {
        "uri": f"/home/somebody/{growing.random.choice(WORDS)}.csv",
        "logical_digest": f"{growing.random.getrandbits(256):064x}",
        "dataset_id": None,
        "origin": "unknown",
        "ancestry": "unverified",
        "depth": 0,
        "effective_depth": 0,
        "rows": 4_000,
        "evidence": [],
    }
