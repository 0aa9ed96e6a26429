"""A policy over another: what is left out is the parent's, what is locked may only be tightened."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from policy_nodes import node
from safegen.errors import PolicyError
from safegen.policy import RULES, SECTIONS, Policy, diff, explain, raised
from safegen.policy.load import Draft

KEYS = [f"MCowBQYDK2VwAyEA{c * 43}=" for c in "AIEMQU"]
PARENT = f"""\
schema: safegen.policy/v1
id: acme/base
version: "3"
description: The company's.
contact: governance@acme.example
locked: [lineage, manifest.signature]
approvals: {{approvers: [{{name: j.doe, key: {KEYS[0]}}}]}}
rules:
  lineage: {{severity: enforce, max_depth: 1.0, unattested: warn, withdrawals: head.json}}
  manifest: {{severity: enforce, signature: required}}
  support: {{severity: warn, min_expected: 12.0}}
"""
CHILD = """\
schema: safegen.policy/v1
extends: {policy: base.yaml, digest: "DIGEST"}
id: acme/credit
version: "1"
"""


def parent(folder: Path, text: str = PARENT, name: str = "base.yaml") -> Policy:
    (folder / name).write_text(text)
    return Policy.load(folder / name)


def child(folder: Path, more: str = "", name: str = "team.yaml", of: str = "base.yaml") -> Policy:
    text = CHILD.replace("DIGEST", Policy.load(folder / of).digest).replace("base.yaml", of)
    (folder / name).write_text(text + more)
    return Policy.load(folder / name)


def refused(folder: Path, more: str, **names: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        child(folder, more, **names)
    return [f"{Path(str(p.file)).name}:{p.line} {p.message}" for p in caught.value.problems]


def test_what_a_child_leaves_out_is_as_in_its_parent(tmp_path):
    above = parent(tmp_path)
    below = child(tmp_path, "rules:\n  support: {min_expected: 11.0}\n")
    assert {d.where: d.change for d in diff(above, below)} == {"support.min_expected": "TIGHTEN"}
    assert (below.contact, below.description) == (above.contact, above.description)
    assert below.approvals == above.approvals
    assert below.locked == ("lineage", "manifest.signature")
    [ancestor] = below.extends
    assert (ancestor.id, ancestor.version, ancestor.digest) == ("acme/base", "3", above.digest)
    assert below.digest != above.digest
    rows = {f"{r.rule}.{r.parameter}": r.origin for r in explain(below)}
    assert rows["support.min_expected"] == f"{tmp_path / 'team.yaml'}:6"
    assert rows["lineage.max_depth"] == f"{tmp_path / 'base.yaml'}:9"
    assert rows["support.tail"] == "default"


def test_a_shipped_policy_is_extended_by_its_name(tmp_path):
    strict = Policy.load("strict")
    path = tmp_path / "team.yaml"
    path.write_text(CHILD.replace("base.yaml", "strict").replace("DIGEST", strict.digest))
    assert diff(strict, Policy.load(path)) == []
    assert [a.id for a in Policy.load(path).extends] == ["strict"]


def test_a_parent_that_has_changed_since_it_was_pinned_is_refused(tmp_path):
    parent(tmp_path)
    child(tmp_path)
    changed = parent(tmp_path, PARENT.replace("max_depth: 1.0", "max_depth: 2.0"))
    with pytest.raises(PolicyError) as caught:
        Policy.load(tmp_path / "team.yaml")
    [problem] = caught.value.problems
    assert problem.line == 2
    assert "not the policy that is pinned" in problem.message
    assert changed.digest in problem.message


def test_locks_are_part_of_what_is_pinned(tmp_path):
    locked = parent(tmp_path)
    free = parent(tmp_path, PARENT.replace("locked: [lineage, manifest.signature]\n", ""))
    assert locked.digest != free.digest


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("lineage: {max_depth: 2.0}", "lineage.max_depth: 2.0 is looser than 1.0, which acme/base"),
        ("lineage: {unattested: allow}", "lineage.unattested: allow is looser than warn"),
        ("lineage: {severity: audit}", "lineage.severity: audit is looser than enforce"),
        ("manifest: {signature: optional}", "manifest.signature: optional is looser"),
        ("lineage: {withdrawals: elsewhere.json}", "not to be compared"),
    ],
)
def test_a_child_cannot_loosen_what_is_locked(tmp_path, rules, expected):
    parent(tmp_path)
    [problem] = refused(tmp_path, f"rules:\n  {rules}\n")
    assert problem.startswith("team.yaml:6 ")
    assert expected in problem


def test_a_child_may_tighten_what_is_locked_and_loosen_the_rest(tmp_path):
    parent(tmp_path)
    below = child(
        tmp_path,
        "rules:\n  lineage: {max_depth: 0.0, unattested: refuse}\n"
        "  manifest: {in_band: optional}\n  support: {severity: off}\n",
    )
    assert below.rule("lineage").max_depth == 0.0
    assert below.rule("support").severity == "off"


def test_a_grandchild_cannot_loosen_what_its_grandparent_locks(tmp_path):
    parent(tmp_path)
    between = child(tmp_path, "locked: [support]\nrules:\n  lineage: {max_depth: 0.5}\n")
    assert between.locked == ("lineage", "manifest.signature", "support")
    [problem] = refused(
        tmp_path, "rules:\n  lineage: {max_depth: 1.0}\n", name="group.yaml", of="team.yaml"
    )
    assert "1.0 is looser than 0.5" in problem
    below = child(tmp_path, "locked: []\n", name="group.yaml", of="team.yaml")
    assert below.locked == between.locked
    assert [a.id for a in below.extends] == ["acme/credit", "acme/base"]


def test_who_may_waive_is_locked_with_whatever_is_locked(tmp_path):
    parent(tmp_path)
    mine = f"approvals: {{approvers: [{{name: me, key: {KEYS[1]}}}]}}\n"
    [problem] = refused(tmp_path, mine)
    assert problem.startswith("team.yaml:5 approvals.approvers")
    assert child(tmp_path, "approvals: {signature: required}\n").approvals.signature == "required"
    # Its honest twin: where nothing is locked a child names its own.
    parent(tmp_path, PARENT.replace("locked: [lineage, manifest.signature]\n", ""))
    assert [a.name for a in child(tmp_path, mine).approvals.approvers] == ["me"]


def test_a_rule_that_the_parent_leaves_out_needs_a_severity(tmp_path):
    parent(tmp_path)
    [problem] = refused(tmp_path, "rules:\n  privacy: {copies: 0.1}\n")
    assert "rules.privacy.severity: is missing" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("locked: [linage]", "locked: no rule or section 'linage', did you mean 'lineage'?"),
        ("locked: [lineage.max_dept]", "did you mean 'max_depth'?"),
        ("locked: lineage", "locked has to be a list"),
        ("locked: [1]", "locked has to be a list"),
        ("locked: [report, 'nobody.x']", "locked: no rule or section 'nobody'"),
    ],
)
def test_a_lock_on_nothing_is_refused(tmp_path, text, expected):
    path = tmp_path / "p.yaml"
    path.write_text(PARENT.replace("locked: [lineage, manifest.signature]", text))
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    [problem] = caught.value.problems
    assert problem.line == 6
    assert expected in problem.message


@pytest.mark.parametrize(
    ("extends", "expected"),
    [
        ("{policy: base.yaml}", "extends.digest: is missing"),
        ("{policy: base.yaml, digest: latest}", "extends.digest"),
        ("{policy: bse.yaml, digest: DIGEST}", "has problems of its own"),
        ("base.yaml", "extends has to be a mapping"),
        ("{policy: base.yaml, digest: DIGEST, sha: x}", "unknown key 'sha'"),
    ],
)
def test_a_parent_has_to_be_there_and_pinned(tmp_path, extends, expected):
    digest = parent(tmp_path).digest
    (tmp_path / "team.yaml").write_text(
        CHILD.replace(
            '{policy: base.yaml, digest: "DIGEST"}', extends.replace("DIGEST", f'"{digest}"')
        )
    )
    with pytest.raises(PolicyError) as caught:
        Policy.load(tmp_path / "team.yaml")
    assert any(p.line == 2 and expected in p.message for p in caught.value.problems)


def test_the_problems_of_a_parent_are_told_with_its_file_and_line(tmp_path):
    parent(tmp_path)
    child(tmp_path)
    (tmp_path / "base.yaml").write_text(PARENT.replace("unattested: warn", "unattested: maybe"))
    with pytest.raises(PolicyError) as caught:
        Policy.load(tmp_path / "team.yaml")
    assert [(Path(str(p.file)).name, p.line) for p in caught.value.problems] == [
        ("base.yaml", 9),
        ("team.yaml", 2),
    ]


def test_a_circle_of_policies_ends(tmp_path):
    text = CHILD.replace("base.yaml", "team.yaml").replace("DIGEST", "sha256:" + "0" * 64)
    (tmp_path / "team.yaml").write_text(text)
    with pytest.raises(PolicyError, match="more than 8 policies one on another, or a circle"):
        Policy.load(tmp_path / "team.yaml")


# ---- random trees --------------------------------------------------------------------------------


def value(chance: random.Random, key: str, parameter: Any) -> Any:
    """Any value that the parameter takes; None for those that are left alone here."""
    if parameter.order == "listed":
        return chance.choice([w for w in parameter.levels if w != "off"])
    if key == "approvers":
        some = chance.sample(range(len(KEYS)), chance.randint(0, 3))
        return [{"name": f"p{n}", "key": KEYS[n]} for n in some]
    if key == "trusted_keys":
        return chance.sample(KEYS, chance.randint(1, 4))
    if isinstance(parameter.default, bool):
        return chance.random() < 0.5
    if isinstance(parameter.default, float):
        # Within every bound that a parameter has: around its default.
        return round(parameter.default * chance.uniform(0.6, 1.0), 3) or None
    if isinstance(parameter.default, int) and key != "signers":
        return max(parameter.default + chance.randint(-1, 3), 2)
    return None


def document(chance: random.Random, *, whole: bool) -> dict[str, Any]:
    """A policy, or what a child says of one."""
    said: dict[str, Any] = {"schema": "safegen.policy/v1", "id": "p", "version": "1"}
    if whole:
        said |= {"description": "d", "contact": "c"}
    parts = {**RULES, **SECTIONS}
    for name, cls in parts.items():
        if chance.random() < 0.5 and not (whole and name in ("lineage", "manifest")):
            continue
        entry = {}
        for key, parameter in cls.parameters().items():
            if chance.random() < (1.0 if whole and key == "severity" else 0.4):
                chosen = value(chance, key, parameter)
                if chosen is not None:
                    entry[key] = chosen
        (said if name in SECTIONS else said.setdefault("rules", {}))[name] = entry
    paths = [p for n, c in parts.items() for p in (n, *(f"{n}.{k}" for k in c.parameters()))]
    said["locked"] = chance.sample(paths, chance.randint(0, 4))
    return said


def built(said: dict[str, Any], above: Policy | None) -> Policy | None:
    return Draft(node(said), "policy.yaml", [], above).policy()


def locked_changes(above: Policy, below: Policy) -> list[str]:
    """What a child asks less of what is locked above it, found without `merge`."""
    found = []
    for path in [*above.locked, *(["approvals"] if above.locked else [])]:
        name, _, only = path.partition(".")
        for key, parameter in type(above.parts[name]).parameters().items():
            if only in ("", key):
                was, now = (getattr(p.parts[name], key) for p in (above, below))
                change = parameter.compare(was, now)
                found += [f"{path} {change}"] if change not in ("SAME", "TIGHTEN") else []
    return found


def trees(count: int, seed: int) -> tuple[int, int]:
    """Grow parents with children and grandchildren; how many children were made, and refused."""
    chance = random.Random(seed)
    made = refused = 0
    for _ in range(count):
        line: list[Policy] = []
        for depth in range(3):
            said = document(chance, whole=depth == 0)
            policy = built(said, line[-1] if line else None)
            if policy is None:
                refused += 1
                continue
            for above in line:
                assert not locked_changes(above, policy), (above.locked, said)
                assert set(above.locked) <= set(policy.locked)
            made += bool(line)
            line.append(policy)
    return made, refused


def test_no_child_of_a_locked_parent_is_looser():
    made, refused = trees(400, seed=7)
    assert made > 50
    assert refused > 100


@pytest.mark.slow
def test_no_child_of_a_locked_parent_is_looser_in_ten_thousand_trees():
    made, refused = trees(10_000, seed=8)
    assert made > 2_000
    assert refused > 2_000


def together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two children say, the second over the first, as one says it."""
    both = {**one, **other, "locked": [*one["locked"], *other["locked"]]}
    for name in SECTIONS:
        if name in one and name in other:
            both[name] = {**one[name], **other[name]}
    above, below = one.get("rules", {}), other.get("rules", {})
    both["rules"] = {n: {**above.get(n, {}), **below.get(n, {})} for n in (*above, *below)}
    return both


def lines(count: int, seed: int) -> int:
    chance = random.Random(seed)
    met = 0
    for _ in range(count):
        top, one, other = (document(chance, whole=n == 0) for n in range(3))
        top["locked"] = top["locked"][:1]
        one["locked"] = []  # else what both say may be looser than what the first one says
        if (above := built(top, None)) is None or (between := built(one, above)) is None:
            continue
        if (one_by_one := built(other, between)) is not None:
            merged = built(together(one, other), above)
            assert merged is not None
            assert asked(merged) == asked(one_by_one)
            met += 1
    return met


def test_merging_is_associative():
    assert lines(800, seed=5) > 20


@pytest.mark.slow
def test_merging_is_associative_in_ten_thousand_lines():
    assert lines(10_000, seed=6) > 300


def policies(chance: random.Random, count: int) -> list[Policy]:
    found: list[Policy] = []
    while len(found) < count:
        if (policy := built(document(chance, whole=True), None)) is not None:
            found.append(policy)
    return found


def asked(policy: Policy) -> dict[str, Any]:
    """What a policy asks: without its name, and who is above it in which order."""
    body = policy.effective()
    return {k: body.get(k) for k in ("rules", "report", "approvals", "locked")}


def floors(count: int, seed: int) -> int:
    chance = random.Random(seed)
    met = 0
    for _ in range(count):
        policy, low, high = policies(chance, 3)
        low, high = (
            f.model_copy(update={"approvals": f.approvals.model_copy(update=SIGNED)})
            for f in (low, high)
        )
        try:
            under = raised(policy, low)
        except PolicyError:
            continue
        met += 1
        # Not looser than either in anything, and it says so itself.
        for asks in (policy, low):
            less = [
                d
                for d in diff(asks, under)
                if d.change == "LOOSEN" and not (asks is policy and "approvers" in d.where)
            ]
            assert less == []
        assert asked(raised(under, low)) == asked(under)
        assert low.digest in [a.digest for a in under.extends]
        try:
            one_by_one = raised(under, high)
            together = raised(policy, raised(low, high))
        except PolicyError:
            continue
        assert asked(one_by_one) == asked(together)
    return met


SIGNED = {"signature": "required"}


def test_a_floor_is_never_loosened_and_floors_are_associative():
    assert floors(100, seed=3) > 50


@pytest.mark.slow
def test_a_floor_is_never_loosened_and_floors_are_associative_in_ten_thousand():
    assert floors(10_000, seed=4) > 5_000
