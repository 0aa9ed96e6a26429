"""Decisions taken again: never against what the gates themselves would have said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safegen import gates, plugins
from safegen.decision import Finding
from safegen.gates import Books, Release
from safegen.ledger.base import LogEntry, canonical, parsed
from safegen.lineage.facts import Evidence, Root, SourceFacts
from safegen.lineage.heads import Listed, Withdrawn
from safegen.manifest.sign import key_id
from safegen.measure.gains import Probe
from safegen.measure.profile import TableTally, profiles
from safegen.policy import Policy, Waiver, diff
from safegen.policy.merge import raised
from safegen.policy.rules import RULES
from safegen.replaying import replay
from safegen.replaying.changes import moved
from safegen.replaying.rejudge import Rejudge
from safegen.safeguards.schema import SchemaKept
from safegen.tables.schema import infer_schema

KEYS = [f"MCowBQYDK2VwAyEA{c * 42}A=" for c in "AB"]
IDS = [key_id(key) for key in KEYS]
MADE_BY = "sha256:" + "b" * 64
ROOT = Root("real.parquet", "rows:aa", "01A", 1000)


class Memory:
    """As much of a ledger as decisions need, through its JSON; the newest entry is the last."""

    url, ledger_id = "sqlite:///memory.db", "0" * 32

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []

    def state(self) -> dict[str, Any]:
        return {"url": self.url, "datasets": 3, "key_epochs": ["e"], "key_epochs_missing": []}

    def record(self, kind: str, payload: Mapping[str, Any]) -> None:
        kept = parsed(canonical(dict(payload), "payload"))
        self.entries.append(LogEntry(len(self.entries) + 1, "", kind, kept, "", ""))

    def log(self, *, after: int = 0, kind: str | None = None) -> Iterator[LogEntry]:
        return iter([e for e in self.entries if kind in (None, e.kind)])


def books() -> tuple[Memory, Books]:
    gates._RECORDED.clear()
    memory = Memory()
    return memory, Books(memory, memory.state())


def policy(id_: str = "p", waivers: Any = (), **rules: Any) -> Policy:
    """A policy of the rules named, enforced where they do not say."""
    given_ = {"lineage": {"severity": "audit"}, "manifest": {"severity": "audit"}, **rules}
    made = {n: RULES[n](**{"severity": "enforce", **values}) for n, values in given_.items()}
    return Policy(
        id=id_, version="1", description="d", contact="c", rules=made, waivers=tuple(waivers)
    )


def answered(memory: Memory, new: Policy) -> list[str]:
    """What `new` says of each recorded decision, the oldest first."""
    policies = {e.payload["digest"]: e.payload["policy"] for e in memory.log(kind="policy")}
    rejudge = Rejudge(new, policies)
    return [rejudge(e.payload).answer for e in memory.log(kind="decision")]


# ---- admissions: a world, what a policy gathers of it, and what is true --------------------------


@dataclass(frozen=True)
class World:
    """Sources as they are, whoever looks; whether a fit is under way, and what it would show."""

    sources: tuple[SourceFacts, ...]
    doubts: tuple[str, ...]
    fits: bool
    gain: float

    def admit(self, rules: Policy, kept: Books) -> bool:
        known = {key_id(k) for k in rules.rule("manifest").trusted_keys} | {IDS[0]}  # type: ignore[attr-defined]
        facts = [
            replace(
                s,
                evidence=tuple(
                    replace(e, signers=tuple(k for k in e.signers if k in known))
                    for e in s.evidence
                ),
            )
            for s in self.sources
        ]
        shares = [s.synthetic_share for s in facts]
        due = "anchor" in rules.at("admission") and any(shares) and not all(shares)
        probe = None
        if due and self.fits:
            again = int(300 * self.gain)
            probe = Probe((1000, 1000, 1000), (("a#1", 100, 300, again), ("b#1", 400, 410, 400)))
        return gates.admit(rules, facts, kept, self.doubts, probe).allowed


def listed(place: str, keys: Any, most: timedelta) -> Listed:
    """As `lineage.heads.listed`, of two lists that are 30 hours old and signed by the first key."""
    if IDS[0] not in [k.id for k in keys]:
        return Listed(place, problem="not signed by a trusted key")
    old = "too old" if most < timedelta(hours=30) else None
    w = Withdrawn(dataset_id="01B", behind="01B", time="2026-01-01", by="me", reason="why")
    return Listed(place, {"01B": w} if place == "bad" else {}, "2026-01-01", old)


@pytest.fixture(autouse=True)
def _lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "listed", listed)


def source(
    kind: str, rows: int, signers: tuple[str, ...] = (), days: int = 3, k: int = 0
) -> SourceFacts:
    stated = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    attested = kind not in ("unknown", "doubtful", "half")
    says = {
        "real": Evidence("ledger", "t", "real", proof=True, stated=stated, dataset_id="01A"),
        "told": Evidence("sidecar", "t", "real", proof=True, stated=stated),
        "unknown": Evidence("none", "t", "unknown"),
        "made": Evidence("manifest", "t", "synthetic", 1.0, 1, 1.0, proof=True, dataset_id="01B",
                         roots=(ROOT,), signers=signers, policies=(MADE_BY,)),
        "doubtful": Evidence("stamp", "t", "synthetic", 1.0, 2, 2.0),
        "half": Evidence("columns", "t", "mixed", 0.5, 1, 0.5),
    }[kind]  # fmt: skip
    synthetic = {"made": 1.0, "doubtful": 1.0, "half": 0.5}.get(kind, 0.0)
    origin: Any = {"real": "real", "told": "real", "unknown": "unknown", "half": "mixed"}
    return SourceFacts(
        f"{kind}{k}", rows, "rows:aa" if kind == "real" else f"rows:{k}", {"e": "keyed"},
        origin.get(kind, "synthetic"), "attested" if attested else "unverified", says.depth,
        says.effective_depth, not attested, synthetic, (says,),
        problems=("broken",) if rows == 666 else (), dataset_id=says.dataset_id,
    )  # fmt: skip


worlds = st.builds(
    World,
    st.lists(
        st.builds(
            source,
            st.sampled_from(["real", "told", "unknown", "made", "doubtful", "half"]),
            st.sampled_from([300, 666, 1000, 2000]),
            st.sampled_from([(), (IDS[0],), (IDS[1],), tuple(IDS)]),
            st.sampled_from([3, 400]),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda s: s.uri,
    ).map(tuple),
    st.sampled_from([(), ("why",)]),
    st.booleans(),
    st.sampled_from([1.0, 1.3, 3.0]),
)
SEVERITIES = st.sampled_from(["audit", "warn", "enforce", "enforce", "enforce"])
ATTITUDES = st.sampled_from(["allow", "warn", "refuse"])
lineages = st.fixed_dictionaries(
    {
        "severity": SEVERITIES,
        "max_depth": st.sampled_from([0.0, 0.5, 1.0]),
        "max_synthetic_share": st.sampled_from([0.4, 1.0]),
        "unattested": ATTITUDES,
        "unverified": ATTITUDES,
        "ledger": st.sampled_from(["optional", "required"]),
        "withdrawals": st.sampled_from(["", "", "bad", "good"]),
        "withdrawals_max_age": st.sampled_from([24.0, 48.0]),
        "withdrawals_on_unreachable": ATTITUDES,
    }
)
manifests = st.fixed_dictionaries(
    {
        "severity": SEVERITIES,
        "signature": st.sampled_from(["optional", "required"]),
        "trusted_keys": st.sampled_from([(), (KEYS[0],), (KEYS[1],), tuple(KEYS)]),
        "made_under": st.sampled_from([(), (), (MADE_BY,), ("sha256:" + "c" * 64, MADE_BY)]),
    }
)
anchors = st.fixed_dictionaries(
    {
        "severity": st.sampled_from(["off", "audit", "enforce"]),
        "max_synthetic_per_real": st.sampled_from([0.2, 1.0, 5.0]),
        "max_gain": st.sampled_from([0.4, 0.9, 2.0]),
        "max_age_days": st.sampled_from([100, 3650]),
        "inconclusive": st.sampled_from(["pass", "warn", "fail"]),
    }
)
policies = st.builds(
    lambda lineage, manifest, anchor: policy(lineage=lineage, manifest=manifest, anchor=anchor),
    lineages,
    manifests,
    anchors,
)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(worlds, policies, policies)
def test_an_admission_is_never_told_otherwise_than_the_gate_tells_it(
    world: World, old: Policy, new: Policy
) -> None:
    memory, kept = books()
    world.admit(old, kept)
    [answer] = answered(memory, new)
    assert answer in ("cannot tell", "allow" if world.admit(new, books()[1]) else "refuse")


@FEW
@given(worlds, policies)
def test_the_same_policy_says_the_same(world: World, same: Policy) -> None:
    memory, kept = books()
    allowed = world.admit(same, kept)
    assert answered(memory, same) == ["allow" if allowed else "refuse"]


@FEW
@given(worlds, policies, policies)
def test_a_tighter_policy_admits_nothing_that_was_refused(
    world: World, old: Policy, floor: Policy
) -> None:
    memory, kept = books()
    if not world.admit(old, kept):
        assert answered(memory, tightened(old, floor)) != ["allow"]


def tightened(old: Policy, floor: Policy) -> Policy:
    """A policy with the tighter value of each ordered parameter, and its own of the others."""
    own = {"lineage": ("withdrawals",), "manifest": ("trusted_keys", "made_under")}
    rules = {
        name: params.model_copy(
            update={key: getattr(old.rules[name], key) for key in own.get(name, ())}
        )
        for name, params in floor.rules.items()
    }
    found = raised(old, floor.model_copy(update={"rules": rules}))
    assert {d.change for d in diff(old, found)} <= {"TIGHTEN"}
    return found


def told(world: World, old: Policy, new: Policy) -> tuple[str, str]:
    """What `new` says of an admission by `old`, and what it is in truth."""
    memory, kept = books()
    world.admit(old, kept)
    [answer] = answered(memory, new)
    return answer, "allow" if world.admit(new, books()[1]) else "refuse"


def test_an_anchor_is_as_old_as_it_was_when_the_decision_was_taken() -> None:
    memory, kept = books()
    World((source("made", 100), source("real", 1000, days=50)), (), False, 1.0).admit(
        policy(anchor={"severity": "audit"}), kept
    )
    for answer, date in (("allow", "2026-01-01"), ("refuse", "2126-01-01")):
        memory.entries[-1].payload["time"] = f"{date}T00:00:00Z"
        assert answered(memory, policy(anchor={"max_age_days": 3000})) == [answer]


@pytest.mark.parametrize("keys", [(), (KEYS[0],), (KEYS[1],), tuple(KEYS)])
@pytest.mark.parametrize("place", ["bad", "good"])
def test_a_list_of_withdrawals_is_believed_by_the_keys_of_then(place: str, keys: Any) -> None:
    """Also where the rule that names the list is what it was."""
    world = World((source("made", 100),), (), False, 1.0)
    rule = {
        "max_depth": 1.0,
        "withdrawals": place,
        "withdrawals_max_age": 48.0,
        "withdrawals_on_unreachable": "refuse",
    }
    old = policy(lineage=rule, manifest={"severity": "audit", "trusted_keys": (KEYS[0],)})
    new = policy(lineage=rule, manifest={"severity": "audit", "trusted_keys": keys})
    answer, truth = told(world, old, new)
    assert answer == (truth if keys == (KEYS[0],) else "cannot tell")
    rule = {**rule, "withdrawals_on_unreachable": "warn"}
    looser = policy(lineage=rule, manifest={"severity": "audit", "trusted_keys": (KEYS[0],)})
    truth = "refuse" if place == "bad" else "allow"
    assert told(world, old, looser) == (truth, truth)


@pytest.mark.parametrize(
    ("was", "new", "signers", "answer"),
    [
        ((KEYS[0],), (KEYS[0],), (IDS[0],), "allow"),
        ((KEYS[0],), (KEYS[0],), (), "refuse"),
        ((KEYS[0],), (KEYS[1],), (IDS[1],), "cannot tell"),  # nobody looked for this one
        (tuple(KEYS), (KEYS[1],), (IDS[1],), "allow"),
        (tuple(KEYS), (KEYS[1],), (IDS[0],), "refuse"),
        ((KEYS[0],), tuple(KEYS), (IDS[0],), "allow"),
        ((KEYS[1],), (), (IDS[1],), "cannot tell"),  # perhaps the ledger does not know it
        ((KEYS[1],), (), (), "refuse"),
    ],
)
def test_a_signature_that_nobody_looked_for_may_be_there(
    was: Any, new: Any, signers: Any, answer: str
) -> None:
    world = World((source("made", 100, signers),), (), False, 1.0)
    old, asked_ = (
        policy(manifest={"severity": s, "signature": "required", "trusted_keys": k})
        for s, k in (("audit", was), ("enforce", new))
    )
    found, truth = told(world, old, asked_)
    assert found == answer
    assert found in ("cannot tell", truth)
    # The word of a manifest for its policy counts by a key that is known, too.
    old, asked_ = (
        policy(manifest={"severity": s, "made_under": (MADE_BY,), "trusted_keys": k})
        for s, k in (("audit", was), ("enforce", new))
    )
    found, truth = told(world, old, asked_)
    assert found in ("cannot tell", truth)
    assert found == truth or was != new


def test_a_gain_that_nobody_probed_is_not_told() -> None:
    world = World((source("made", 100), source("real", 1000)), (), True, 1.0)
    off = policy(anchor={"severity": "off"})
    for gain, truth in ((1.0, "allow"), (3.0, "refuse")):
        probed = replace(world, gain=gain)
        on = policy(anchor={"max_gain": 2.0})
        assert told(probed, off, on) == ("cannot tell", truth)
        watched = policy(anchor={"max_gain": 0.4, "severity": "audit"})
        assert told(probed, watched, on) == (truth, truth)
    # A check fits nothing, then and now.
    watched = policy(anchor={"max_gain": 0.4, "severity": "audit"})
    assert told(replace(world, fits=False), watched, policy(anchor={"max_gain": 2.0}))[0] == "allow"


def test_most_admissions_can_be_told() -> None:
    """What nobody can tell of an admission is what nobody looked for: not what is recorded."""
    answers: Counter[str] = Counter()
    every = [
        policy(lineage={"max_depth": depth, "unattested": attitude}, anchor={"severity": severity})
        for depth in (0.0, 1.0)
        for attitude in ("warn", "refuse")
        for severity in ("off", "enforce")
    ]
    for kind in ("real", "unknown", "made", "half"):
        for other in ("real", "made"):
            world = World((source(kind, 300), source(other, 1000, k=1)), (), True, 1.0)
            memory, kept = books()
            for old in every:
                world.admit(old, kept)
            for new in every:
                answers.update(answered(memory, new))
    assert answers["cannot tell"] < 0.1 * answers.total()
    assert min(answers["allow"], answers["refuse"]) > 0.2 * answers.total()


# ---- releases ------------------------------------------------------------------------------------

ROWS = 1_000


def table(seed: int, rows: int = ROWS, missing: float = 0.2) -> pa.Table:
    rng = np.random.default_rng([5, seed])
    return pa.table(
        {
            "country": rng.choice(["a", "b", "c"], rows, p=[0.85, 0.11, 0.04]),
            "score": pa.array(rng.normal(size=rows), mask=rng.random(rows) < missing),
        }
    )


def staged(made: pa.Table, **more: Any) -> Release:
    schema = infer_schema(table(0))
    tally = TableTally(profiles({"table": table(0)}, {"table": schema})["table"])
    tally.update(made)
    in_band = {"table": {"synthetic": made.num_rows}}
    return Release(
        made.num_rows, made.num_rows, {}, {"table": schema}, {"table": tally.profile},
        {"table": tally}, in_band=in_band, **more,
    )  # fmt: skip


RELEASES = [
    staged(table(1)),
    staged(table(2, 60)),
    staged(table(3, missing=0.0), signer="s" * 64),
    staged(table(4, missing=0.24)),
    staged(table(5).slice(0, 0)),
    staged(table(6).filter(pa.compute.not_equal(table(6).column("country"), "c"))),
]
asked = st.fixed_dictionaries(
    {
        "schema": st.fixed_dictionaries(
            {
                "severity": st.sampled_from(["off", "audit", "warn", "enforce", "enforce"]),
                "missing_margin": st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.3]),
                "out_of_range": st.sampled_from([0.0, 0.001, 0.01, 0.5]),
                "inconclusive": st.sampled_from(["pass", "warn", "fail"]),
            }
        ),
        "support": st.fixed_dictionaries(
            {
                "severity": st.sampled_from(["off", "audit", "enforce", "enforce"]),
                "min_real_rows": st.sampled_from([5, 30, 200]),
                "min_expected": st.sampled_from([1.0, 10.0, 30.0]),
                "inconclusive": st.sampled_from(["pass", "warn", "fail"]),
            }
        ),
        "manifest": manifests,
    }
).map(lambda rules: policy(**rules))


def released(rules: Policy, context: Release, kept: Books) -> bool:
    return gates.release(rules, context, kept, ["rows"], [source("real", 10)]).allowed


@FEW
@given(st.sampled_from(RELEASES), asked, asked)
def test_a_release_is_never_told_otherwise_than_the_gate_tells_it(
    context: Release, old: Policy, new: Policy
) -> None:
    memory, kept = books()
    before = released(old, context, kept)
    [answer] = answered(memory, new)
    assert answer in ("cannot tell", "allow" if released(new, context, books()[1]) else "refuse")
    assert answered(memory, old) == ["allow" if before else "refuse"]
    assert before or answered(memory, tightened(old, new)) != ["allow"]


@pytest.mark.parametrize(
    ("was", "new", "told"),
    [
        ({"missing_margin": 0.02}, {"missing_margin": 0.1}, "allow"),  # by the numbers recorded
        ({"missing_margin": 0.1}, {"missing_margin": 0.02}, "refuse"),
        ({"missing_margin": 0.02}, {"missing_margin": 0.02, "severity": "warn"}, "allow"),
        ({"missing_margin": 0.02, "severity": "audit"}, {"missing_margin": 0.02}, "refuse"),
        ({"severity": "off"}, {"missing_margin": 0.1}, "cannot tell"),
    ],
)
def test_a_margin_moves_beside_what_was_measured(
    was: dict[str, Any], new: dict[str, Any], told: str
) -> None:
    memory, kept = books()
    context = RELEASES[3]  # 4 % more are missing than should be: certain at 1,000 rows of 0.1
    usual = {"inconclusive": "fail", "out_of_range": 0.5}
    released(policy(schema={**usual, **was}), context, kept)
    assert answered(memory, policy(schema={**usual, **new})) == [told]


def test_what_was_not_evaluated_is_not_taken_for_met() -> None:
    memory, kept = books()
    released(policy(), RELEASES[0], kept)
    found = Rejudge(policy(schema={}), {})(memory.entries[-1].payload)
    assert (found.answer, found.because) == ("cannot tell", ("schema/all",))
    for severity in ("audit", "warn"):  # whatever it would find, it refuses nobody
        assert answered(memory, policy(schema={"severity": severity})) == ["allow"]
    lost = policy(schema={}, manifest={"signature": "required"})
    [verdict] = [Rejudge(lost, {})(e.payload) for e in memory.log(kind="decision")]
    assert (verdict.answer, verdict.because) == ("refuse", ("manifest/signature",))


def test_a_safeguard_that_looked_at_what_was_not_kept_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Trusting(SchemaKept):
        def release(self, context: Any, params: Any) -> list[Finding]:
            rows = getattr(context, "staged", None)  # and takes nothing for nothing wrong
            return [Finding("schema", "columns", "unmet" if rows else "met", "o", "r")]

    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda group, name: Trusting if name == "schema" else load(group, name)
    )
    memory, kept = books()
    released(policy(schema={"severity": "off"}), RELEASES[0], kept)
    assert answered(memory, policy(schema={})) == ["cannot tell"]


def test_a_rule_of_another_package_that_says_nothing_more_goes_by_its_declared_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Plain:
        rule = "schema"

        def admission(self, context: Any, params: Any) -> list[Finding]:
            return []

        def release(self, context: Any, params: Any) -> list[Finding]:
            share = sum(t.rows for t in context.staged.values()) / 1_000_000
            status: Any = "met" if share <= params.out_of_range else "unmet"
            return [Finding("schema", "share", status, "o", "r")]

    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda group, name: Plain if name == "schema" else load(group, name)
    )
    memory, kept = books()
    at = {m: policy(schema={"out_of_range": m}) for m in (0.0, 0.0001, 0.1, 0.5)}
    assert not released(at[0.0001], RELEASES[0], kept)
    assert [answered(memory, at[m]) for m in (0.0, 0.0001, 0.1)] == [
        ["refuse"],
        ["refuse"],
        ["cannot tell"],
    ]
    memory, kept = books()
    assert released(at[0.1], RELEASES[0], kept)
    assert [answered(memory, at[m]) for m in (0.0, 0.1, 0.5)] == [
        ["cannot tell"],
        ["allow"],
        ["allow"],
    ]


# ---- waivers -------------------------------------------------------------------------------------


def waiver(**more: Any) -> Waiver:
    usual = {"id": "W-1", "rule": "lineage", "params": {"max_depth": 1.0}, "reason": "r"}
    people = {"ticket": "t", "requested_by": "a", "approved_by": ("b",)}
    return Waiver(**{**usual, **people, "expires": datetime.now(UTC).date(), **more})


def test_waivers_of_the_new_policy_count_as_they_stood_on_that_day() -> None:
    memory, kept = books()
    world = World((source("made", 100, (IDS[0],)),), (), False, 1.0)
    assert not world.admit(policy(lineage={}), kept)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    for more, told in [
        ({}, "allow"),
        ({"scope": "01B"}, "allow"),
        ({"scope": "01C"}, "refuse"),
        ({"expires": yesterday}, "refuse"),
        ({"params": {"max_depth": 0.5}}, "refuse"),
        ({"rule": "anchor", "params": {"max_gain": 5.0}}, "refuse"),
    ]:
        new = policy(lineage={}, waivers=[waiver(**more)])
        assert (more, answered(memory, new)) == (more, [told])
        assert world.admit(new, books()[1]) == (told == "allow")


@FEW
@given(worlds, policies, policies, st.sampled_from([0.5, 1.0]), st.booleans())
def test_with_waivers_an_admission_is_not_told_otherwise_either(
    world: World, old: Policy, new: Policy, depth: float, both: bool
) -> None:
    def waived(p: Policy) -> Policy:
        return Policy(**{**dict(p), "waivers": (waiver(params={"max_depth": depth}),)})

    memory, kept = books()
    old, new = waived(old) if both else old, waived(new)
    before = world.admit(old, kept)
    [answer] = answered(memory, new)
    assert answer in ("cannot tell", "allow" if world.admit(new, books()[1]) else "refuse")
    assert answered(memory, old) == ["allow" if before else "refuse"]


@pytest.mark.parametrize("least", [60, 5000])
def test_a_waived_release_is_so_again_under_the_same_policy(least: int) -> None:
    """By what was recorded of it, for nobody can measure that any more."""
    memory, kept = books()
    same = policy(
        support={},
        waivers=[waiver(rule="support", params={"min_real_rows": least})],
    )
    allowed = released(same, RELEASES[5], kept)  # a level of 40 rows is gone
    assert answered(memory, same) == ["allow" if allowed else "refuse"]
    assert allowed
    [refuses] = answered(memory, policy(support={}))
    assert refuses == "refuse"


@pytest.mark.parametrize(
    "was", [{"severity": "audit"}, {"severity": "warn"}, {"inconclusive": "pass"}]
)
def test_what_no_waiver_was_asked_about_then_is_not_told_by_the_record(was: Any) -> None:
    """The same waiver; but a rule that refused nobody has not been asked with its values."""
    lower = [waiver(rule="support", params={"min_expected": 50.0})]
    few = staged(table(7).slice(0, 60))
    for context, usual in ((RELEASES[5], {}), (few, {"min_real_rows": 200, "min_expected": 40.0})):
        memory, kept = books()
        new = policy(support={**usual, "inconclusive": "fail"}, waivers=lower)
        old = policy(support={**usual, "inconclusive": "fail", **was}, waivers=lower)
        released(old, context, kept)
        truth = "allow" if released(new, context, books()[1]) else "refuse"
        assert answered(memory, new)[0] in ("cannot tell", truth)


# ---- what a ledger may hold ----------------------------------------------------------------------


def older(memory: Memory) -> None:
    """As an older version wrote them: no policies, no grounds."""
    memory.entries = [e for e in memory.entries if e.kind == "decision"]
    for entry in memory.entries:
        del entry.payload["grounds"]


def test_decisions_of_older_versions_are_told_by_shipped_policies() -> None:
    memory, kept = books()
    world = World((source("unknown", 100),), (), False, 1.0)
    baseline, strict = map(Policy.load, ("baseline", "strict"))
    assert world.admit(baseline, kept)
    assert not world.admit(strict, kept)
    older(memory)
    assert answered(memory, baseline)[0] == "allow"
    assert answered(memory, strict)[1] == "refuse"
    assert answered(memory, strict)[0] != "allow"


def test_what_was_taken_mildly_may_not_be_under_a_stricter_parameter() -> None:
    """Unmet as before; but a warning then, and a refusal now."""
    memory, kept = books()
    half = World((source("half", 300),), (), False, 1.0)
    assert half.admit(policy(lineage={"max_depth": 1.0}), kept)
    new = policy(lineage={"max_depth": 1.0, "unverified": "refuse"})
    assert answered(memory, new) == ["refuse"]
    for entry in memory.log(kind="decision"):
        del entry.payload["grounds"]
    assert answered(memory, new) == ["cannot tell"]


def test_how_mild_a_finding_of_an_older_version_was_may_be_unknown() -> None:
    """Under a rule that warns everything warns; whether it may do more nobody wrote down."""
    memory, kept = books()
    unknown = World((source("unknown", 300),), (), False, 1.0)
    for attitude in ("warn", "refuse"):
        unknown.admit(policy(lineage={"severity": "warn", "unattested": attitude}), kept)
    mild, strict = (policy(lineage={"unattested": attitude}) for attitude in ("warn", "refuse"))
    assert (answered(memory, mild)[0], answered(memory, strict)[1]) == ("allow", "refuse")
    for entry in memory.log(kind="decision"):
        del entry.payload["grounds"]
    assert (answered(memory, mild)[0], answered(memory, strict)[1]) == ("cannot tell",) * 2


@FEW
@given(worlds, policies, policies)
def test_without_grounds_less_is_told_and_nothing_wrong(
    world: World, old: Policy, new: Policy
) -> None:
    memory, kept = books()
    before = world.admit(old, kept)
    for entry in memory.entries:
        entry.payload.pop("grounds", None)
    [answer] = answered(memory, new)
    assert answer in ("cannot tell", "allow" if world.admit(new, books()[1]) else "refuse")
    assert answered(memory, old) == ["allow" if before else "refuse"]


def test_a_policy_that_nobody_has_leaves_everything_open() -> None:
    memory, kept = books()
    released(policy("other", schema={}), RELEASES[0], kept)
    older(memory)
    [entry] = memory.log(kind="decision")
    found = Rejudge(policy(schema={"missing_margin": 0.3}), {})(entry.payload)
    assert found.answer == "cannot tell"
    assert found.parameters == ("the policy that decided, which the ledger does not have",)


def test_a_policy_that_is_not_what_its_digest_says_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory, kept = books()
    released(
        policy("other", schema={"missing_margin": 0.1, "out_of_range": 0.5}), RELEASES[3], kept
    )
    monkeypatch.setattr("safegen.replaying.open_ledger", lambda *_, **__: memory)
    new = policy(schema={"missing_margin": 0.2, "out_of_range": 0.5})
    assert replay(new).outcomes["allow -> allow"] == 1
    memory.entries[0].payload["policy"]["rules"]["schema"]["missing_margin"] = 0.2  # a digit
    assert replay(new).outcomes["allow -> cannot tell"] == 1


def test_entries_that_cannot_be_read_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, kept = books()
    world = World((source("real", 100),), (), False, 1.0)
    for _ in range(4):
        world.admit(policy(lineage={}), kept)
    good = [e.payload for e in memory.log(kind="decision")]
    good[0]["time"] = "yesterday"
    del good[1]["findings"]
    good[2]["findings"] = {"lineage/depth": {"status": "odd", "outcome": "pass"}}
    memory.record("decision", {"allowed": True})
    monkeypatch.setattr("safegen.replaying.open_ledger", lambda *_, **__: memory)
    found = replay(policy(lineage={"max_depth": 1.0}), since="2020-01-01")
    assert (found.decisions, found.unreadable) == (1, 4)


def test_what_changes_is_listed_newest_first_and_no_more_than_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory, kept = books()
    monkeypatch.setattr("safegen.replaying.open_ledger", lambda *_, **__: memory)
    deep, new = policy("deep", lineage={"max_depth": 1.0}), policy("flat", lineage={})
    for k in range(5):
        for kind, by in (("made", deep), ("real", new)):
            World((source(kind, 100, k=k),), (), False, 1.0).admit(by, kept)
    for n, entry in enumerate(memory.log(kind="decision")):
        entry.payload["time"] = f"2026-01-{n + 1:02d}T00:00:00Z"
    found = replay(new, most=2)
    assert {k: n for k, n in found.outcomes.items() if n} == {
        "allow -> allow": 5,
        "allow -> refuse": 5,
    }
    assert [r.time[:10] for r in found.refused] == ["2026-01-09", "2026-01-07"]
    [first, _] = found.refused
    assert (first.because, first.policy) == (("lineage/depth",), "deep")
    assert first.dataset_ids == ("01B",)
    assert first.about == ("made4 (100 rows, synthetic, attested)",)
    assert len(replay(new, most=None).refused) == 5
    assert replay(new, since="2026-01-09").decisions == 2
    assert replay(new, since="2026-01-09T00:00:01Z").decisions == 1
    assert replay(new, by="flat").outcomes["allow -> refuse"] == 0
    assert replay(new, gate="release").decisions == 0
    assert parsed(canonical(found.to_json(), "result"))["decisions"] == 10


def test_rows_that_one_rule_holds_out_are_there_for_the_others() -> None:
    fidelity = {"utility_drop": 0.1}
    old = policy(fidelity=fidelity, privacy={"held_out": 0.1}).effective()["rules"]
    for held, change in ((0.1, {}), (0.2, {"held_out": "TIGHTEN"}), (0.0, {"held_out": "LOOSEN"})):
        new = policy(fidelity=fidelity, privacy={"held_out": held})
        settled = SimpleNamespace(rule=new.rule, held_out=gates.held_out(new))
        found = moved(old, "fidelity", new.rule("fidelity"), settled)
        assert found is not None
        assert found.changes == change


def test_rows_that_would_have_been_others_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, kept = books()
    monkeypatch.setattr("safegen.replaying.open_ledger", lambda *_, **__: memory)
    released(policy("old", selection={"pool": 4}), RELEASES[0], kept)
    assert replay(policy(selection={"pool": 4, "severity": "audit"})).shaped == {}
    held = {"severity": "audit", "held_out": 0.1}
    found = replay(policy(selection={"pool": 3}, fidelity=held))
    assert found.shaped == {"selection": 1, "held_out": 1}
