"""Ways to get below what an organisation pins: arguments, environment, files of one's own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from forging import cli

import safegen
from safegen import folders
from safegen.dataset import sign
from safegen.errors import PolicyError, UsageError, VerificationError
from safegen.gates import load_policy
from safegen.ledger import open_ledger
from safegen.ledger.places import ledger_place
from safegen.manifest import PublicKey, new_key
from safegen.policy import Policy, diff
from safegen.policy.organisation import FILE, pins
from safegen.testing import example_table

pytestmark = pytest.mark.usefixtures("own_home")

FLOOR = """\
schema: safegen.policy/v1
id: acme/floor
version: "1"
description: The least.
contact: governance@acme.example
rules:
  lineage: {severity: enforce, unattested: refuse, ledger: required}
  manifest: {severity: enforce}
  support: {severity: enforce, min_expected: 8.0, tail: 0.02}
"""
LAX = """\
schema: safegen.policy/v1
id: lax
version: "1"
description: Anything goes.
contact: nobody
report: {real_values: true}
rules:
  lineage: {severity: audit, max_depth: 9.0, unattested: warn}
  manifest: {severity: audit, in_band: optional}
  support: {severity: off}
waivers:
  - {id: W, rule: lineage, params: {unattested: allow}, reason: r, ticket: t, requested_by: me,
     approved_by: [you, them], expires: 2099-01-01}
"""


@pytest.fixture
def floor(tmp_path: Path) -> Policy:
    (tmp_path / "floor.yaml").write_text(FLOOR)
    return Policy.load(tmp_path / "floor.yaml")


@pytest.fixture
def lax(tmp_path: Path) -> Path:
    (tmp_path / "lax.yaml").write_text(LAX)
    return tmp_path / "lax.yaml"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for settings."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(folders, "_system_folder", lambda: folder)
    return folder


def pin(folder: Path, floor: Policy | None = None, more: str = "") -> Path:
    """An organisation file, whose floor lies in the folder above."""
    text = "schema: safegen.org/v1\n" + more
    if floor is not None:
        text += f'floor: {{policy: ../floor.yaml, digest: "{floor.digest}"}}\n'
    (folder / FILE).write_text(text)
    return folder / FILE


def looser(policy: Policy, floor: Policy) -> list[str]:
    return [d.where for d in diff(floor, policy) if d.change not in ("TIGHTEN", "SAME")]


@pytest.mark.parametrize("name", [*Policy.shipped(), "lax"])
def test_no_policy_is_below_the_floor(name, system, floor, lax):
    named = str(lax) if name == "lax" else name
    free = load_policy(named)
    assert name not in ("lax", "lab") or looser(free, floor)
    pin(system, floor)
    under = load_policy(named)
    assert [w for w in looser(under, floor) if not w.startswith("waivers.")] == []
    assert floor.digest in [a.digest for a in under.extends]
    assert "governance@acme.example (floor acme/floor)" in under.contact  # whose refusal it may be
    # The policy is the same however often it is raised, and keeps what is tighter than the floor.
    assert load_policy(under) == under
    assert not [d for d in diff(free, under) if d.change == "LOOSEN"]


def test_no_combination_of_arguments_and_environment_gets_below(
    system, floor, lax, tmp_path, monkeypatch
):
    pin(system, floor)
    other = tmp_path / "elsewhere"
    (other / "safegen").mkdir(parents=True)
    harmless = pin(other / "safegen")  # an organisation file that pins nothing
    named = {
        "SAFEGEN_ORG": (None, "", str(harmless)),
        "XDG_CONFIG_HOME": (None, str(other), "relative"),
        "XDG_CONFIG_DIRS": (None, str(other)),
        "HOME": (None, str(other)),
        "SAFEGEN_LEDGER": (None, str(tmp_path / "l.db")),
    }
    count = 0
    for chosen in itertools.product(*named.values()):
        with monkeypatch.context() as patch:
            for variable, value in zip(named, chosen, strict=True):
                if value is None:
                    patch.delenv(variable, raising=False)
                else:
                    patch.setenv(variable, value)
            for policy in (lax, "lab", Policy.load(lax)):
                under = load_policy(policy)
                assert [w for w in looser(under, floor) if not w.startswith("waivers.")] == []
                count += 1
    assert count == 3 * 3 * 2 * 2 * 2 * 3


def test_a_waiver_of_ones_own_does_not_lower_the_floor(system, floor, lax, tmp_path):
    source = tmp_path / "real.parquet"
    pq.write_table(example_table(300, seed=4), source)
    free = safegen.check(source, policy=lax, ledger=tmp_path / "free.db")
    assert free.allowed
    pin(system, floor)
    decision = safegen.check(source, policy=lax, ledger=tmp_path / "l.db")
    assert not decision.allowed
    assert decision.waivers[0]["status"] == "not accepted"
    assert decision.policy["extends"] == [floor.digest]
    # The honest twin: attested data is admitted under the floor.
    safegen.attest(source, by="a test", ledger=tmp_path / "l.db")
    assert safegen.check(source, policy=lax, ledger=tmp_path / "l.db").allowed


def test_a_policy_put_into_a_generator_later_is_under_the_floor(system, floor, lax):
    generator = safegen.Generator(policy=lax)
    pin(system, floor)
    generator.policy = Policy.load(lax)
    assert [w for w in looser(generator.policy, floor) if not w.startswith("waivers.")] == []


@pytest.mark.parametrize("where", ["argument", "variable", "object", "relative"])
def test_no_other_ledger_is_used_than_the_one_that_is_pinned(where, system, tmp_path, monkeypatch):
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    other = open_ledger(theirs)
    pin(system, more="ledger: ../ours.db\n")
    source = example_table(50, seed=1)
    assert ledger_place(None) == ours
    assert safegen.check(source).ledger["url"].endswith("ours.db")
    assert safegen.check(source, ledger=ours).ledger["url"].endswith("ours.db")
    arguments: dict[str, Any] = {}
    if where == "variable":
        monkeypatch.setenv("SAFEGEN_LEDGER", str(theirs))
    else:
        arguments["ledger"] = other if where == "object" else theirs
        if where == "relative":
            arguments["ledger"] = os.path.relpath(theirs)
    with pytest.raises(UsageError, match="the ledger is pinned to"):
        safegen.check(source, **arguments)
    with pytest.raises(UsageError, match="the ledger is pinned to"):
        safegen.Generator(**arguments).fit(source)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, PublicKey]:
    return {name: new_key(tmp_path / name) for name in ("ours", "theirs")}


def test_a_key_that_is_not_pinned_vouches_for_nothing(system, keys, tmp_path):
    source = tmp_path / "real.parquet"
    pq.write_table(example_table(400, seed=9), source)
    safegen.attest(source, by="a test")
    generator = safegen.Generator(key=tmp_path / "theirs").fit(source)
    theirs = generator.generate(200, tmp_path / "theirs-data").path
    safegen.Generator(key=tmp_path / "ours").fit(source).generate(200, tmp_path / "ours-data")
    public = tmp_path / "theirs.pub"
    assert safegen.verify(theirs, [public])
    pin(system, more=f"trusted_keys: [{keys['ours'].text}]\n")
    with pytest.raises(UsageError, match="one that was given is none of them"):
        safegen.verify(theirs, [public])
    with pytest.raises(VerificationError, match="signed by a key that is not known here"):
        safegen.verify(theirs)
    assert safegen.verify(tmp_path / "ours-data")
    assert safegen.verify(tmp_path / "ours-data", [tmp_path / "ours.pub"])
    assert load_policy("strict").rule("manifest").trusted_keys == (keys["ours"].text,)
    with pytest.raises(UsageError, match="none of them"):
        sign(theirs, tmp_path / "theirs")


def test_a_policy_that_trusts_none_of_the_pinned_keys_is_refused(system, keys, floor, tmp_path):
    trusting = tmp_path / "p.yaml"
    rule = f"manifest: {{severity: enforce, trusted_keys: [{keys['theirs'].text}]}}"
    trusting.write_text(FLOOR.replace("manifest: {severity: enforce}", rule))
    assert load_policy(trusting).rule("manifest").trusted_keys
    pin(system, more=f"trusted_keys: [{keys['ours'].text}]\n")
    with pytest.raises(PolicyError, match="too few of the keys that it trusts are pinned"):
        load_policy(trusting)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("schema: safegen.org/v2\n", "1: schema has to be safegen.org/v1"),
        ("floor: {policy: x.yaml}\n", "schema has to be safegen.org/v1"),
        ("schema: safegen.org/v1\nflor: {}\n", "2: unknown key 'flor', did you mean 'floor'?"),
        ("schema: safegen.org/v1\nfloor: {policy: ../floor.yaml}", "2: floor.digest: is missing"),
        (
            "schema: safegen.org/v1\n"
            f"floor: {{policy: ../floor.yaml, digest: 'sha256:{'0' * 64}'}}",
            "2: floor: ../floor.yaml is not the policy that is pinned",
        ),
        ("schema: safegen.org/v1\ntrusted_keys: [x]\n", "2: trusted_keys[0]"),
        ("schema: safegen.org/v1\nledger: 3\n", "2: ledger: has to be text"),
    ],
)
def test_an_organisation_file_that_cannot_be_used_stops_everything(text, expected, system, floor):
    (system / FILE).write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy("baseline")
    assert expected in "; ".join(f"{p.line}: {p.message}" for p in caught.value.problems)
    with pytest.raises(PolicyError):
        ledger_place(None)


def test_lint_reads_organisation_files(system, floor):
    path = pin(system, floor)
    assert cli("policy", "lint", path).code == 0
    path.write_text("schema: safegen.org/v1\nfloor: {policy: ../floor.yaml, digest: x}\nledgr: y\n")
    ran = cli("policy", "lint", path)
    assert ran.code == 2
    assert f"{path}:2: floor.digest" in ran.err
    assert "did you mean 'ledger'?" in ran.err


def test_a_variable_that_names_no_file_stops_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFEGEN_ORG", str(tmp_path / "gone.yaml"))
    with pytest.raises(PolicyError, match="there is no such file"):
        load_policy("baseline")


def test_a_folder_or_a_broken_link_in_its_place_stops_everything(system):
    (system / FILE).mkdir()
    with pytest.raises(PolicyError, match="this is a folder"):
        load_policy("baseline")
    (system / FILE).rmdir()
    (system / FILE).symlink_to(system / "gone")
    with pytest.raises(PolicyError, match="there is no such file"):
        load_policy("baseline")


def test_a_floor_that_is_changed_after_it_was_pinned_stops_everything(system, floor, tmp_path):
    pin(system, floor)
    load_policy("baseline")
    (tmp_path / "floor.yaml").write_text(FLOOR.replace("unattested: refuse", "unattested: allow"))
    # This process has read it already and keeps what was pinned; a new one finds out.
    assert load_policy("lab").rule("lineage").unattested == "refuse"
    from safegen.policy import organisation

    organisation._known.clear()
    with pytest.raises(PolicyError, match="is not the policy that is pinned"):
        load_policy("baseline")


def test_files_of_the_user_and_the_system_both_apply(system, floor, tmp_path, monkeypatch):
    pin(system, floor, more="ledger: /srv/ours.db\n")
    user = tmp_path / "config" / "safegen"
    user.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    stricter = tmp_path / "config" / "floor.yaml"
    stricter.write_text(
        FLOOR.replace("min_expected: 8.0", "min_expected: 5.0").replace("id: acme", "id: other")
    )
    pin(user, Policy.load(stricter))
    found = pins()
    assert len(found.floors) == 2
    assert load_policy("baseline").rule("support").min_expected == 5.0
    (user / FILE).write_text("schema: safegen.org/v1\nledger: /srv/mine.db\n")
    with pytest.raises(PolicyError, match="pins another one"):
        load_policy("baseline")


def test_a_model_from_the_laboratory_stays_there(tmp_path):
    source = tmp_path / "real.parquet"
    pq.write_table(example_table(400, seed=5), source)
    safegen.attest(source, by="a test")
    place = safegen.Generator(policy="lab").fit(source).save(tmp_path / "model")
    for policy, ancestry in (("lab", "attested"), ("baseline", "unverified")):
        generator = safegen.Generator.load(place, policy=policy)
        made = generator.generate(200, tmp_path / policy)
        assert made.manifest.ancestry == ancestry, policy
    with pytest.raises(safegen.AdmissionRefused, match="refuses no training data"):
        safegen.Generator.load(place, policy="strict")
    with pytest.raises(safegen.AdmissionRefused):
        safegen.open(tmp_path / "baseline", policy="training")
    # The honest twin.
    place = safegen.Generator(policy="baseline").fit(source).save(tmp_path / "other")
    made = safegen.Generator.load(place).generate(200, tmp_path / "fine")
    assert made.manifest.ancestry == "attested"
    assert safegen.open(tmp_path / "fine", policy="training")


def test_data_made_under_another_policy_is_refused_where_one_is_asked_for(
    floor, tmp_path, monkeypatch
):
    source, ledger = tmp_path / "real.parquet", tmp_path / "own.db"
    pq.write_table(example_table(400, seed=6), source)
    safegen.attest(source, by="a test", ledger=ledger)
    (tmp_path / "team.yaml").write_text(
        "schema: safegen.policy/v1\nid: acme/team\nversion: '1'\n"
        f"extends: {{policy: floor.yaml, digest: '{floor.digest}'}}\n"
    )
    consumer = tmp_path / "consumer.yaml"
    consumer.write_text(
        "schema: safegen.policy/v1\nid: acme/use\nversion: '1'\n"
        f"extends: {{policy: training, digest: '{Policy.load('training').digest}'}}\n"
        f"rules:\n  manifest: {{made_under: ['{floor.digest}']}}\n"
    )
    made = {}
    for policy in ("baseline", str(tmp_path / "floor.yaml"), str(tmp_path / "team.yaml")):
        generator = safegen.Generator(policy=policy, ledger=ledger).fit(source)
        made[Path(policy).stem] = generator.generate(200, tmp_path / f"by-{Path(policy).stem}").path
    for name, allowed in (("baseline", False), ("floor", True), ("team", True)):
        decision = safegen.check(made[name], policy=consumer, ledger=ledger)
        assert decision.allowed is allowed, name
        assert decision.findings["manifest/policy"].status == ("met" if allowed else "unmet")
    # What was derived from both is as its worst part; from the good ones alone it is good.
    rows = [safegen.open(made[n], ledger=ledger).to_pandas() for n in ("floor", "team", "baseline")]
    good, bad = rows[0].merge(rows[1], how="cross").head(50), rows[0].merge(rows[2], how="cross")
    bad = bad.head(50)
    safegen.derive(good, sources=[made["floor"], made["team"]], ledger=ledger)
    safegen.derive(bad, sources=[made["floor"], made["baseline"]], ledger=ledger)
    found = [
        safegen.check(frame, policy=consumer, ledger=ledger).findings["manifest/policy"].status
        for frame in (good, bad)
    ]
    assert found == ["met", "unmet"]
    # A manifest that nobody vouches for may say what it likes.
    stranger = tmp_path / "stranger.db"
    decision = safegen.check(made["floor"], policy=consumer, ledger=stranger)
    assert decision.findings["manifest/policy"].status == "unmet"


def test_a_floor_takes_no_list_of_withdrawals_away(system, floor, tmp_path):
    careful = tmp_path / "careful.yaml"
    careful.write_text(FLOOR.replace("unattested: refuse", "withdrawals: /srv/head.json"))
    free = load_policy(careful)
    pin(system, floor)
    assert load_policy(careful).rule("lineage").withdrawals == "/srv/head.json"
    # Where the floor names one it counts, and a policy that names none has it.
    (tmp_path / "floor.yaml").write_text(
        FLOOR.replace("ledger: req", "withdrawals: /f, ledger: req")
    )
    pin(system, Policy.load(tmp_path / "floor.yaml"))
    for policy in (free, "lab"):
        assert load_policy(policy).rule("lineage").withdrawals == "/f"
    # Taking the list out of a policy loosens it, which `policy diff` has to say.
    careful.write_text(careful.read_text().replace("withdrawals: /srv/head.json", "max_depth: 0.0"))
    without = Policy.load(careful)
    assert [d.change for d in diff(free, without)] == ["LOOSEN"]
    assert [d.change for d in diff(without, free)] == ["TIGHTEN"]
