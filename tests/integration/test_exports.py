"""Documents of other standards, each held against its own project's validator, without network."""

from __future__ import annotations

import io
import json
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard
from PIL import Image

import safegen
from safegen.errors import UsageError, VerificationError
from safegen.exports import FORMATS, exported
from safegen.manifest import MANIFEST_NAME, Manifest
from safegen.manifest.identity import new_ulid
from safegen.tables.entries import data_entry

SHIPPED = Path(__file__).parents[1] / "releases" / "0.1.0" / "dataset"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("a validator asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> safegen.Dataset:
    """A real release, of columns of many types with names that are no identifiers."""
    place = tmp_path_factory.mktemp("exports")
    rng = np.random.default_rng(3)
    n = 600
    frame = pd.DataFrame(
        {
            "age in years": rng.integers(18, 90, n),
            "pay/hour (€)": np.round(rng.gamma(3, 9, n), 2),
            "city": rng.choice(["Köln", "Ulm", "a|b"], n),
            "member": rng.random(n) < 0.4,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
        }
    )
    frame.to_parquet(place / "real.parquet")
    ledger = place / "ledger.db"
    safegen.attest(place / "real.parquet", by="A | Person", license="CC-BY-4.0", ledger=ledger)
    gen = safegen.Generator(policy="lab", ledger=ledger).fit(place / "real.parquet", seed=1)
    return gen.generate(500, place / "out", seed=2)


def made(folder: Path, tables: dict[str, pa.Table], kind: str, roles: dict[str, Any]) -> Manifest:
    """A dataset's folder, by hand."""
    files, columns = [], []
    for name, table in tables.items():
        path = folder / "data" / name / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        n = table.num_rows
        for column, value in (("origin", "synthetic"), ("depth", 1.0), ("weight", 1.0)):
            table = table.append_column(f"_safegen_{column}", pa.array([value] * n))
        pq.write_table(table, path, row_group_size=10)
        files.append(data_entry(path, path.relative_to(folder).as_posix(), name))
        for field in tables[name].schema:
            role = roles.get(f"{name}.{field.name}", {"role": "feature"})
            columns.append({"name": field.name, "type": str(field.type), "table": name, **role})
    rows = sum(t.num_rows for t in tables.values())
    manifest = Manifest.model_validate(
        {
            "dataset_id": new_ulid(), "created": "2026-01-01T00:00:00Z", "kind": kind,
            "origin": "synthetic", "ancestry": "unverified", "depth": 1, "effective_depth": 1.0,
            "depth_is_lower_bound": True, "rows": rows, "composition": {"synthetic": rows},
            "logical_digest": "safegen-rows-v1:00", "files": files, "columns": columns,
            "warnings": ["a doubt"],
        }
    )  # fmt: skip
    manifest = manifest.sealed()
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    (folder / "croissant.json").write_text(exported(manifest, "croissant"))
    return manifest


def croissant_of(folder: Path) -> Any:
    import mlcroissant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlcroissant.Dataset(str(folder / "croissant.json"))


def errors_of(dataset: Any) -> set[str]:
    return set(dataset.metadata.ctx.issues.errors)


def records(dataset: Any, table: str) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(dataset.records(table))


def test_croissant_loads_back_the_rows_of_a_release(released: safegen.Dataset) -> None:
    dataset = croissant_of(released.path)
    assert errors_of(dataset) == set()
    found = records(dataset, "table")
    rows = released.to_arrow(provenance=True)
    names = [f.name for f in dataset.metadata.record_sets[0].fields]
    assert names == rows.column_names
    assert len(found) == rows.num_rows
    for record, row in zip(found, rows.to_pylist(), strict=True):
        for value, expected in zip(record.values(), row.values(), strict=True):
            if isinstance(expected, str):
                assert value.decode() == expected
            elif isinstance(expected, float):
                assert value == pytest.approx(expected, nan_ok=True)
            else:
                assert value == expected


def test_croissant_says_where_rows_come_from(released: safegen.Dataset) -> None:
    document = json.loads((released.path / "croissant.json").read_text())
    assert document["rai:hasSyntheticData"] is True
    (parent,) = document["prov:wasDerivedFrom"]
    assert parent["@id"] == f"urn:safegen:{released.manifest.sources[0].dataset_id}"
    assert "sdv.gaussian_copula" in json.dumps(document["prov:wasGeneratedBy"])
    listed = {f["contentUrl"]: f["sha256"] for f in document["distribution"] if "sha256" in f}
    data = {f.path: f.sha256[7:] for f in released.manifest.files if f.table}
    assert listed == data
    assert released.manifest.digest not in json.dumps(document)  # it covers this file


def test_croissant_of_a_changed_file_does_not_load(
    released: safegen.Dataset, tmp_path: Path
) -> None:
    document = json.loads((released.path / "croissant.json").read_text())
    document["conformsTo"] = "http://mlcommons.org/croissant/9.9"
    (tmp_path / "croissant.json").write_text(json.dumps(document))
    import mlcroissant

    with pytest.raises(mlcroissant.ValidationError):
        croissant_of(tmp_path)


def test_croissant_of_related_tables_names_their_keys(tmp_path: Path) -> None:
    tables = {
        "people": pa.table({"id": [1, 2, 3], "town": ["a", "b", "c"]}),
        "all visits": pa.table({"person": [1, 1, 3], "cost": [1.5, 2.5, 0.5]}),
    }
    roles = {
        "people.id": {"role": "key"},
        "all visits.person": {"role": "key", "references": "people.id"},
    }
    made(tmp_path, tables, "tables", roles)
    dataset = croissant_of(tmp_path)
    assert errors_of(dataset) == set()
    assert [r.name for r in dataset.metadata.record_sets] == ["people", "all visits"]
    document = json.loads((tmp_path / "croissant.json").read_text())
    visits = document["recordSet"][1]
    assert visits["field"][0]["references"] == {"field": {"@id": "people/id"}}
    assert [r["people/town"] for r in records(dataset, "people")] == [b"a", b"b", b"c"]


def test_croissant_of_images_loads_them(tmp_path: Path) -> None:
    def png(shade: int) -> bytes:
        stream = io.BytesIO()
        Image.new("L", (4, 4), shade).save(stream, "PNG")
        return stream.getvalue()

    images = pa.array([{"bytes": png(s), "path": None} for s in (10, 200)],
                      pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    made(tmp_path, {"table": pa.table({"image": images, "label": [0, 1]})}, "images", {})
    dataset = croissant_of(tmp_path)
    assert errors_of(dataset) == set()
    found = records(dataset, "table")
    assert [np.asarray(r["table/image"])[0, 0] for r in found] == [10, 200]
    assert [r["table/label"] for r in found] == [0, 1]


def every(released: safegen.Dataset) -> list[Manifest]:
    return [released.manifest, Manifest.read(SHIPPED)]


def test_cyclonedx_is_valid(released: safegen.Dataset) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for manifest in every(released):
        text = exported(manifest, "cyclonedx")
        assert validator.validate_str(text) is None
        document = json.loads(text)
        wrong = json.dumps({**document, "components": [{"type": "rows", "name": "x"}]})
        assert validator.validate_str(wrong) is not None
        (data, model) = document["components"]
        assert data["pedigree"]["ancestors"][0]["name"] == manifest.sources[0].uri
        assert model["type"] == "machine-learning-model"


def test_openlineage_is_an_event_that_its_client_makes(released: safegen.Dataset) -> None:
    from openlineage.client import event_v2 as v2
    from openlineage.client.generated import (
        dataset_version_dataset,
        output_statistics_output_dataset,
        schema_dataset,
    )
    from openlineage.client.serde import Serde

    kinds = {
        "schema": lambda f: schema_dataset.SchemaDatasetFacet(
            fields=[schema_dataset.SchemaDatasetFacetFields(**x) for x in f["fields"]]
        ),
        "version": lambda f: dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=f["datasetVersion"]
        ),
        "outputStatistics": lambda f: (
            output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=f["rowCount"], size=f["size"], fileCount=f["fileCount"]
            )
        ),
    }
    for manifest in every(released):
        event = json.loads(exported(manifest, "openlineage"))
        (output,) = event["outputs"]
        own = output["facets"].pop("safegen")
        assert own["depth"] == 1
        assert own["manifestDigest"] == manifest.digest
        facets = {
            group: {name: kinds[name](f) for name, f in output[group].items()}
            for group in ("facets", "outputFacets")
        }
        theirs = v2.RunEvent(
            eventType=v2.RunState.COMPLETE,
            eventTime=event["eventTime"],
            run=v2.Run(runId=event["run"]["runId"]),
            job=v2.Job(namespace=event["job"]["namespace"], name=event["job"]["name"]),
            inputs=[v2.InputDataset(i["namespace"], i["name"]) for i in event["inputs"]],
            outputs=[v2.OutputDataset(output["namespace"], output["name"], **facets)],
            producer=event["producer"],
        )
        made = json.loads(Serde.to_json(theirs))
        for field in made["outputs"][0]["facets"]["schema"]["fields"]:
            assert field.pop("fields") == []  # of nested ones
        assert made["schemaURL"] == event["schemaURL"]
        for group in ("facets", "outputFacets"):
            for name, facet in output[group].items():
                assert facet == {
                    **made["outputs"][0][group][name], "_producer": event["producer"]
                }, name  # fmt: skip
        for part in ("eventType", "eventTime", "run", "job"):
            assert {**event}[part] == made[part] or part in ("run", "job")
        assert event["run"]["runId"] == made["run"]["runId"]
        assert event["job"]["name"] == made["job"]["name"]


def test_the_card_is_one_that_the_hub_reads(released: safegen.Dataset) -> None:
    text = (released.path / "README.md").read_text(encoding="utf-8")
    assert text == exported(released.manifest, "card")
    data = DatasetCard(text).data.to_dict()
    assert data["tags"] == ["synthetic", "safegen"]
    assert data["size_categories"] == ["n<1K"]
    assert data["x-safegen"]["depth"] == 1
    (config,) = data["configs"]
    (split,) = config["data_files"]
    found = {p.relative_to(released.path).as_posix() for p in released.path.glob(split["path"])}
    assert found == {f.path for f in released.manifest.files if f.table}
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["annotations_creators"] == ["machine-generated"]
    body = text.split("---\n", 2)[2]
    assert all(line.count(" | ") == 1 for line in body.splitlines() if line.startswith("| "))


def test_only_what_verifies_is_exported(released: safegen.Dataset, tmp_path: Path) -> None:
    import shutil
    from contextlib import redirect_stdout

    from safegen.cli import main

    def run(*words: str) -> tuple[object, str]:
        out = io.StringIO()
        with pytest.raises(SystemExit) as end, redirect_stdout(out):
            main(["export", *words])
        return end.value.code, out.getvalue()

    for name in FORMATS:
        code, text = run(str(released.path), "--format", name)
        assert code == 0
        assert text == exported(released.manifest, name)
    assert run(str(released.path), "--format", "spdx")[0] == 2
    copy = Path(shutil.copytree(released.path, tmp_path / "copy"))
    (copy / "README.md").write_text("edited")
    assert run(str(copy), "--format", "croissant") == (4, "")
    with pytest.raises(VerificationError):
        safegen.verify(copy)
    with pytest.raises(UsageError, match="formats are croissant"):
        exported(released.manifest, "spdx")
