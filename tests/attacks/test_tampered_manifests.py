"""Way round: edit the manifest itself, with or without mending its self-digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from forging import (
    World,
    check,
    cli,
    document,
    is_refused_as_synthetic,
    reseal,
    rewrite,
    unmet,
)

import safegen
from safegen.manifest import MANIFEST_NAME, Manifest, canonical_bytes

EDITS: dict[str, Any] = {
    "dataset_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "created": "2020-01-01T00:00:00Z",
    "statement": "attestation",
    "kind": "images",
    "origin": "real",
    "ancestry": "unverified",
    "depth": 0,
    "effective_depth": 0.0,
    "depth_is_lower_bound": True,
    "rows": 1,
    "composition": {"real": 3000, "synthetic": 0},
    "generator": None,
    "sources": [],
    "columns": [],
    "policy": None,
    "decisions": [],
    "safeguards": {},
    "measurements": [],
    "claims": [{"definition": "support", "test": "none"}],
    "privacy": {"dp": {"epsilon": 0.1}, "real_rows": 0},
    "logical_digest": "safegen-rows-v1:" + "0" * 64,
    "license": "CC0-1.0",
    "attested_by": "nobody",
    "expires": "2099-01-01",
    "warnings": ["none"],
    "extra": {},
}


def test_every_field_is_tried(world: World) -> None:
    assert set(EDITS) == set(document(world.dataset.path)) - {"schema", "digest", "files"}


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_field(
    world: World, tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.copy(tmp_path / "copy")
    assert cli("verify", folder).code == 0
    edited = document(folder) | {field: EDITS[field]}
    # Naive: the self-digest no longer matches.
    (folder / MANIFEST_NAME).write_bytes(canonical_bytes(edited))
    ran = cli("verify", folder)
    assert (ran.code, "self-digest" in ran.err) == (4, True)
    # Consistent: only the ledger can tell. The id is what it is looked up by, so a new one hides.
    reseal(folder, edited)
    ran = cli("verify", folder)
    if field == "dataset_id":
        assert (ran.code, "has no record of it" in ran.err) == (4, True)
        reseal(folder, edited | {"decisions": []})  # without the witnesses nobody knows it
        ran = cli("verify", folder)
        assert "no ledger at hand knows it" in ran.out
    else:
        assert (ran.code, "the ledger recorded" in ran.err) == (4, True)
    # However it is edited, it does not turn into something to train on. Nor where no ledger is.
    assert is_refused_as_synthetic(check(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    assert is_refused_as_synthetic(check(folder))


def test_an_edited_list_of_files(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    whole = document(folder)
    for i in range(len(whole["files"])):
        reseal(folder, whole | {"files": whole["files"][:i] + whole["files"][i + 1 :]})
        with pytest.raises(safegen.VerificationError, match="not in the manifest"):
            safegen.verify(folder)
    reseal(folder, whole)
    assert safegen.verify(folder)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "data/../../outside.txt",
        "/etc/hostname",
        "data\\part-00000.parquet",
        "..\\outside.txt",
        "data/./part-00000.parquet",
        "data//part-00000.parquet",
        "data/part-00000.parquet/",
        "nul\x00byte",
        ".",
        "..",
        "safegen.manifest.json",
        "safegen.manifest.dsse.json",
    ],
)
def test_a_path_that_leaves_the_folder(world: World, tmp_path: Path, path: str) -> None:
    folder = world.copy(tmp_path / "copy")
    (tmp_path / "outside.txt").write_text("outside")
    whole = document(folder)
    entry = {**whole["files"][0], "path": path}
    reseal(folder, whole | {"files": [*whole["files"], entry]})
    with pytest.raises(safegen.VerificationError, match="not a path that a manifest may name"):
        safegen.verify(folder, deep=True)
    assert cli("verify", folder, "--deep").code == 4


def test_a_file_named_twice(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    whole = document(folder)
    reseal(folder, whole | {"files": [*whole["files"], whole["files"][0]]})
    with pytest.raises(safegen.VerificationError, match="named twice"):
        safegen.verify(folder)


def _pretty(data: bytes) -> bytes:
    return json.dumps(json.loads(data), indent=1).encode()


@pytest.mark.parametrize(
    "spoil",
    [
        _pretty,
        lambda d: d + b"\n",
        lambda d: b"\xef\xbb\xbf" + d,
        lambda d: d.replace(b'"depth":1,', b'"depth":1,"depth":1,'),
        lambda d: d.replace(b'"origin":"synthetic"', b'"origin":"real","origin":"synthetic"', 1),
        lambda d: d.replace(b'"depth":1,', b'"depth":1.0,'),
        lambda d: d.replace(b'"rows":3000', b'"rows":NaN'),
        lambda d: d.replace(b'"rows":3000', b'"rows":' + b"9" * 5000),
        lambda d: d.replace(b'"rows":3000', b'"rows":9007199254740993'),
        lambda d: d.replace(b'"extra":{', b'"extra":{"a":"\\ud800",'),
        lambda d: d.replace(b'"extra":{', b'"extra":{"a":' + b"[" * 900 + b"]" * 900 + b","),
        lambda d: d.replace(b'"extra":{', b'"extra":{"a":' + b"[" * 10**5 + b"]" * 10**5 + b","),
        lambda d: d.decode().encode("utf-16"),
        lambda d: d[:-1],
        lambda d: b"",
        lambda d: b"[]",
        lambda d: b"null",
        lambda d: b"{}",
        lambda d: b"\xff\xfe\x00",
        lambda d: b" " * (64 * 1024 * 1024 + 1),
        lambda d: b"[" * 10**6,
    ],
    ids=lambda f: None,
)
def test_a_manifest_in_other_bytes(world: World, tmp_path: Path, spoil: Any) -> None:
    folder = world.copy(tmp_path / "copy")
    place = folder / MANIFEST_NAME
    good = place.read_bytes()
    bad = spoil(good)
    assert bad != good
    place.write_bytes(bad)
    with pytest.raises(safegen.VerificationError):
        safegen.verify(folder)
    ran = cli("verify", folder)
    assert (ran.code, MANIFEST_NAME in ran.err) == (4, True), ran.err
    place.write_bytes(good)
    assert safegen.verify(folder)


def test_deep_nesting_with_a_matching_digest(world: World, tmp_path: Path, no_ledger: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    for depth in (10, 100, 250, 500, 900):
        nested: Any = 1
        for _ in range(depth):
            nested = [nested]
        edited = document(world.dataset.path) | {"extra": {"deep": nested}}
        try:
            reseal(folder, edited)
        except safegen.ManifestError:
            break  # deeper than can be written is deeper than can be read
        assert cli("verify", folder).code in (0, 4)


def test_a_newer_minor_version_is_read_and_kept(
    world: World, tmp_path: Path, no_ledger: Path
) -> None:
    """Fields that this version does not know are covered by the digest and not thrown away."""
    folder = world.copy(tmp_path / "copy")
    newer = document(folder) | {"watermark": {"scheme": "x", "keys": ["a", "b"]}}
    newer["files"][0]["compression"] = "zstd"
    newer["generator"]["engine"] = "ray"
    reseal(folder, newer)
    manifest = safegen.verify(folder, deep=True)
    kept = json.loads(manifest.to_bytes())
    assert kept == document(folder)
    assert kept["watermark"] == {"scheme": "x", "keys": ["a", "b"]}
    assert kept["files"][0]["compression"] == "zstd"
    newer["watermark"]["keys"] = []
    (folder / MANIFEST_NAME).write_bytes(
        canonical_bytes(newer | {"digest": document(folder)["digest"]})
    )
    assert cli("verify", folder).code == 4


@pytest.mark.parametrize(
    "schema", ["safegen.manifest/v2", "safegen.manifest/v1.1", "other/v1", "", "v1", None, 1]
)
def test_another_major_version_is_refused(world: World, tmp_path: Path, schema: Any) -> None:
    folder = world.copy(tmp_path / "copy")
    reseal(folder, document(folder) | {"schema": schema})
    with pytest.raises(safegen.VerificationError, match="schema that this version cannot read"):
        safegen.verify(folder)
    assert cli("verify", folder).code == 4
    assert is_refused_as_synthetic(check(folder))


def test_a_field_of_another_type_is_not_quoted(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    reseal(folder, document(folder) | {"rows": "CANARY-7f3a"})
    with pytest.raises(safegen.VerificationError) as error:
        safegen.verify(folder)
    assert "rows" in str(error.value)
    assert "CANARY" not in str(error.value)


def _fewer(table: pa.Table) -> pa.Table:
    return table.slice(100)


def test_a_consistent_rewrite_is_known_to_the_ledger(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    rewrite(folder, _fewer)
    with pytest.raises(safegen.VerificationError, match="consistent rewrite"):
        safegen.verify(folder)
    ran = cli("verify", folder, "--deep")
    assert ran.code == 4
    assert "lineage/intact" in unmet(check(folder, "training"))


def test_where_no_ledger_is_a_rewrite_is_called_unsigned(
    world: World, tmp_path: Path, no_ledger: Path
) -> None:
    """Nothing can tell it, so nothing pretends to."""
    folder = world.copy(tmp_path / "copy")
    rewrite(folder, _fewer)
    ran = cli("verify", folder, "--deep")
    assert ran.code == 0
    assert "UNSIGNED, and no ledger at hand knows it" in ran.out
    assert "a rewrite" in " ".join(ran.out.split())
    assert not no_ledger.exists()  # looking does not make a ledger


def test_a_rewrite_with_other_rows_is_found_by_content(
    world: World, tmp_path: Path, no_ledger: Path
) -> None:
    """Digests of files mended, and the digest of the rows forgotten: `--deep` finds it."""
    folder = world.copy(tmp_path / "copy")
    before = document(folder)
    rewrite(
        folder, lambda t: t.take(pc.sort_indices(t, sort_keys=[(t.schema.names[0], "ascending")]))
    )
    assert document(folder)["logical_digest"] == before["logical_digest"]  # order is not content
    assert cli("verify", folder, "--deep").code == 0
    rewrite(
        folder,
        lambda t: t.set_column(0, t.schema.field(0), t.column(0).take(pa.array([0] * len(t)))),
    )
    reseal(folder, document(folder) | {"logical_digest": before["logical_digest"]})
    assert cli("verify", folder).code == 0
    ran = cli("verify", folder, "--deep")
    assert (ran.code, "logical digest" in ran.err) == (4, True)


def test_a_folder_that_calls_itself_real_is_not(
    world: World, tmp_path: Path, no_ledger: Path
) -> None:
    """Everything rewritten, every mark taken off, no ledger: then it is unknown, never real."""
    folder = world.copy(tmp_path / "copy")

    def bare(table: pa.Table) -> pa.Table:
        keep = [n for n in table.schema.names if not n.startswith("_safegen_")]
        return table.select(keep).replace_schema_metadata(None)

    rewrite(folder, bare)
    real = {"origin": "real", "depth": 0, "effective_depth": 0.0, "generator": None}
    real |= {"composition": {"real": 2900}, "statement": "attestation", "attested_by": "me"}
    reseal(folder, document(folder) | real)
    assert Manifest.read(folder).origin == "real"
    decision = check(folder)
    assert [r.finding.name for r in decision.warnings] == ["lineage/unattested"]
    assert not check(folder, "training").allowed
    assert not check(folder, "strict").allowed


def test_a_manifest_that_plays_the_depth_down(
    world: World, tmp_path: Path, no_ledger: Path
) -> None:
    """A synthetic row has a depth of 1 at least, and its own column outweighs a total."""
    folder = world.copy(tmp_path / "marked")
    little = {"origin": "mixed", "depth": 0, "effective_depth": 0.0}
    little |= {"composition": {"real": 2999, "synthetic": 1}}
    reseal(folder, document(folder) | little)
    found = check(folder).findings["lineage/depth"].observed
    assert "effective depth 1: 3,000 of 3,000 rows" in found

    folder = world.copy(tmp_path / "bare")
    names = [c["name"] for c in document(folder)["columns"]]
    rewrite(folder, lambda t: t.select(names).replace_schema_metadata(None))
    reseal(folder, document(folder) | {"depth": 0, "effective_depth": 0.0})
    assert is_refused_as_synthetic(check(folder))
