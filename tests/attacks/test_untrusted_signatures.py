"""Way round: bring a dataset that nobody signed, or somebody whom the policy does not trust."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from forging import World, cli, document, rewrite, unmet

import safegen
from safegen.dataset import sign
from safegen.errors import AdmissionRefused, PolicyError, ReleaseRefused
from safegen.manifest import SIGNATURE_NAME, PublicKey, canonical_bytes, new_key

RULE = "manifest/signature"
Policies = Callable[..., Path]


@pytest.fixture
def policy(tmp_path: Path) -> Policies:
    """A policy for training that asks for signatures."""

    def written(
        trusted: Sequence[Path] = (), signers: int = 1, signature: str = "required"
    ) -> Path:
        keys = ", ".join(PublicKey.read(f"{k}.pub").text for k in trusted)
        path = tmp_path / f"p{len(list(tmp_path.glob('*.yaml')))}.yaml"
        path.write_text(
            "schema: safegen.policy/v1\nid: signed\nversion: '1'\ndescription: d\ncontact: us\n"
            "rules:\n  lineage: {severity: enforce, max_depth: 1.0}\n"
            f"  manifest: {{severity: enforce, signature: {signature}, trusted_keys: [{keys}], "
            f"signers: {signers}}}\n"
        )
        return path

    return written


@pytest.fixture
def dataset(world: World, tmp_path: Path) -> Path:
    """A release that nobody signed."""
    return world.copy(tmp_path / "dataset")


def test_unsigned_is_refused_for_that_and_signed_is_admitted(
    dataset: Path, policy: Policies, key: Path, other_key: Path
) -> None:
    for trusted in ([], [key]):
        wanted = policy(trusted)
        decision = safegen.check(dataset, policy=wanted)
        assert unmet(decision) == {RULE}
        assert "safegen sign" in str(decision)
        with pytest.raises(AdmissionRefused):
            safegen.open(dataset, policy=wanted)
        assert cli("check", dataset, "--policy", wanted).code == 3
    # By somebody else, whom this ledger saw sign it: enough where no key is named.
    sign(dataset, other_key)
    assert safegen.check(dataset, policy=policy()).allowed
    assert unmet(safegen.check(dataset, policy=policy([key]))) == {RULE}
    with pytest.raises(AdmissionRefused):
        safegen.open(dataset, policy=policy([key]))
    sign(dataset, key)
    assert safegen.check(dataset, policy=policy([key])).allowed
    assert safegen.open(dataset, policy=policy([key])).manifest.rows
    assert safegen.check(dataset, policy=policy([key], signature="optional")).allowed


def test_strict_refuses_an_unsigned_dataset_for_that(dataset: Path, key: Path) -> None:
    assert {RULE, "lineage/depth"} <= unmet(safegen.check(dataset, policy="strict"))
    sign(dataset, key)
    assert RULE not in unmet(safegen.check(dataset, policy="strict"))


def test_elsewhere_the_key_of_the_policy_is_enough(
    dataset: Path, policy: Policies, key: Path, other_key: Path, no_ledger: Path
) -> None:
    sign(dataset, key)
    assert safegen.open(dataset, policy=policy([key])).manifest.rows
    assert safegen.check(dataset, policy=policy([other_key, key])).allowed
    # Nobody here knows whose it is.
    assert unmet(safegen.check(dataset, policy=policy())) == {RULE}
    named = safegen.open(dataset, policy=policy(), trusted_keys=[f"{key}.pub"])
    assert named.manifest.rows


def test_two_signatures_are_two_keys(
    dataset: Path, policy: Policies, key: Path, other_key: Path
) -> None:
    two = policy([key, other_key], signers=2)
    sign(dataset, key)
    assert unmet(safegen.check(dataset, policy=two)) == {RULE}
    sign(dataset, key)
    envelope = document(dataset, SIGNATURE_NAME)
    envelope["signatures"] *= 2
    (dataset / SIGNATURE_NAME).write_bytes(canonical_bytes(envelope))
    assert RULE in unmet(safegen.check(dataset, policy=two))
    # The same signature under another's name.
    envelope["signatures"][1]["keyid"] = PublicKey.read(f"{other_key}.pub").id
    (dataset / SIGNATURE_NAME).write_bytes(canonical_bytes(envelope))
    assert RULE in unmet(safegen.check(dataset, policy=two))
    (dataset / SIGNATURE_NAME).unlink()
    sign(dataset, key)
    sign(dataset, other_key)
    assert safegen.check(dataset, policy=two).allowed


def test_a_key_that_is_retired_counts_until_it_is_taken_out(
    dataset: Path, policy: Policies, key: Path, tmp_path: Path
) -> None:
    """Key rotation: both are trusted, then what stays is signed again, then the old one goes."""
    new = tmp_path / "new"
    new_key(new)
    sign(dataset, key)
    assert safegen.check(dataset, policy=policy([key, new])).allowed
    assert unmet(safegen.check(dataset, policy=policy([new]))) == {RULE}
    sign(dataset, new)
    assert safegen.check(dataset, policy=policy([new])).allowed


def test_a_signature_of_other_rows_does_not_count(
    dataset: Path, policy: Policies, key: Path, no_ledger: Path
) -> None:
    sign(dataset, key)
    (dataset / "README.md").write_text("made by others")
    assert RULE in unmet(safegen.check(dataset, policy=policy([key])))
    rewrite(dataset, lambda t: t.slice(10))
    assert RULE in unmet(safegen.check(dataset, policy=policy([key])))


def test_rows_without_their_manifest_are_not_signed(
    world: World, dataset: Path, policy: Policies, key: Path, tmp_path: Path
) -> None:
    sign(dataset, key)
    bare = tmp_path / "bare.csv"
    pd.read_parquet(dataset / "data").to_csv(bare, index=False)
    assert RULE in unmet(safegen.check(bare, policy=policy([key])))
    # Nor real rows unsigned datasets: a named person states what they are.
    assert safegen.check(world.real, policy=policy([key])).allowed


def test_of_several_tables_each_needs_its_signature(
    world: World, dataset: Path, policy: Policies, key: Path, tmp_path: Path
) -> None:
    sign(dataset, key)
    other = world.copy(tmp_path / "other")
    both = {"one": dataset, "two": other}
    assert RULE in unmet(safegen.check(both, policy=policy([key])))
    bare = {"one": dataset, "two": pd.read_parquet(other / "data")}
    assert RULE in unmet(safegen.check(bare, policy=policy([key])))
    assert RULE in unmet(safegen.check(dataset, other, policy=policy([key])))
    shutil.rmtree(other)
    sign(world.copy(other), key)
    assert RULE not in unmet(safegen.check(both, policy=policy([key])))


def test_a_release_is_signed_by_a_key_that_the_policy_trusts(
    world: World, policy: Policies, key: Path, other_key: Path, tmp_path: Path
) -> None:
    for given in (None, other_key):
        gen = safegen.Generator.load(world.model, policy=policy([key]), key=given)
        with pytest.raises(ReleaseRefused) as refused:
            gen.generate(200, tmp_path / "made")
        assert unmet(refused.value.decision) == {RULE}
    gen = safegen.Generator.load(world.model, policy=policy([key]), key=key)
    assert gen.generate(200, tmp_path / "made").path.exists()


@pytest.mark.parametrize(
    ("trusted", "signers", "word"),
    [
        (["a"], 1, "trusted_keys"),
        (["MCowBQYDK2VwAyEA" + "A" * 42 + "B="], 1, "trusted_keys"),  # the same key in other words
        (["MCowBQYDK2VwAyEA" + "A" * 43 + "="] * 2, 1, "a key twice"),
        (["MCowBQYDK2VwAyEA" + "A" * 43 + "="], 2, "names 1 keys"),
    ],
)
def test_keys_that_are_none_are_no_policy(
    trusted: list[Any], signers: int, word: str, policy: Policies
) -> None:
    path = policy()
    text = path.read_text().replace("[]", f"{trusted}").replace("signers: 1", f"signers: {signers}")
    path.write_text(text)
    with pytest.raises(PolicyError, match=word):
        safegen.Policy.load(path)
