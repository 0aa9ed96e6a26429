"""Models that a forger wrote, digests and all: each is refused when it is read, at no cost."""

from __future__ import annotations

import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen import plugins
from safegen.errors import BackendError
from safegen.tables.schema import infer_schema

INFINITY = float("inf")
TINY: dict[str, dict[str, Any]] = {
    "sdv.gaussian_copula": {},
    "ctgan": {
        "epochs": 1,
        "embedding_dim": 8,
        "batch_size": 100,
        "generator_dim": [8],
        "discriminator_dim": [8],
    },
    "diffusion.tabular": {"steps": 2, "width": 8, "layers": 1, "batch_size": 32, "device": "cpu"},
    "sdv.par": {"epochs": 1, "device": "cpu"},
    "sdv.hma": {},
}


def source(name: str) -> tuple[dict[str, pa.Table], dict[str, dict[str, Any]]]:
    """Tables for a backend, and the declarations of their columns."""
    rng = np.random.default_rng(0)
    rows = pa.table({"x": rng.normal(size=240), "k": rng.choice(list("abc"), 240)})
    if name == "sdv.par":
        keys = {"who": [i // 8 for i in range(240)], "at": range(240)}
        for title, values in keys.items():
            rows = rows.append_column(title, pa.array(values))
        roles: Any = {"who": {"role": "sequence_key"}, "at": {"role": "sequence_index"}}
        return {"t": rows}, {"t": roles}
    if name == "sdv.hma":
        parents = pa.table({"id": range(60), "z": rng.normal(size=60)})
        children = rows.append_column("of", pa.array(rng.integers(0, 60, 240)))
        declared: Any = {"p": {"id": {"role": "id"}}, "c": {"of": {"references": "p.id"}}}
        return {"p": parents, "c": children}, declared
    return {"t": rows}, {"t": {}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A fitted model's folder, made once; each caller gets a copy of its own."""
    import shutil

    made: dict[str, Path] = {}

    def copy(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("model")
            backend = plugins.load(plugins.BACKENDS, name)()
            tables, roles = source(name)
            schemas = {n: infer_schema(t, roles[n]) for n, t in tables.items()}
            options = backend.Options.model_validate(TINY[name])
            backend.fit(tables, schemas, options, seed=1).save(made[name])
        place = tmp_path_factory.mktemp("copy") / "model"
        shutil.copytree(made[name], place)
        return place

    return copy


def put(document: Any, at: tuple[Any, ...], value: Any) -> None:
    for step in at[:-1]:
        document = document[step]
    document[at[-1]] = value


def loaded(name: str, folder: Path) -> Any:
    return plugins.load(plugins.BACKENDS, name)().load(folder)


NUMBER = ("codec", "columns", 0)
FORGED: list[tuple[str, str, tuple[Any, ...], Any]] = [
    *[
        (name, "model.json", at, value)
        for name in ("sdv.gaussian_copula", "ctgan", "diffusion.tabular")
        for at, value in [
            (("block_rows",), INFINITY),
            (("block_rows",), -5),
            (("codec",), []),
            (("codec", "columns"), None),
            ((*NUMBER, "exponent"), []),
            ((*NUMBER, "decimals"), []),
            ((*NUMBER, "low"), []),
            ((*NUMBER, "high"), INFINITY),
            ((*NUMBER, "fill"), "x"),
        ]
    ],
    ("ctgan", "model.json", ("network", "embedding_dim"), INFINITY),
    ("ctgan", "model.json", ("network", "embedding_dim"), 10_000_000),
    ("ctgan", "model.json", ("network", "layers"), [10_000_000]),
    ("ctgan", "model.json", ("network", "kind"), {}),
    ("ctgan", "model.json", ("parts",), {"x": 1}),
    ("ctgan", "model.json", ("curves",), [1]),
    ("diffusion.tabular", "model.json", ("network",), [10_000_000, 1]),
    ("diffusion.tabular", "model.json", ("network",), [8_192, 64]),
    ("diffusion.tabular", "model.json", ("network",), None),
    ("diffusion.tabular", "model.json", ("schedule", "sampler"), "none"),
    ("diffusion.tabular", "model.json", ("schedule", "steps"), []),
    ("diffusion.tabular", "model.json", ("schedule", "sigma_min"), INFINITY),
    ("diffusion.tabular", "model.json", ("curves",), None),
    ("sdv.par", "model.json", ("parts",), []),
    ("sdv.par", "model.json", ("parts", "longest"), 0),
    ("sdv.par", "model.json", ("parts", "grid"), 0),
    ("sdv.par", "model.json", ("parts", "index"), []),
    ("sdv.par", "model.json", ("sample_size",), INFINITY),
    ("sdv.par", "context/model.json", ("block_rows",), INFINITY),
    ("sdv.hma", "model.json", ("tiers",), 7),
    ("sdv.hma", "model.json", ("shares", 0, 1), INFINITY),
    ("sdv.hma", "model.json", ("tiers", 1, "codec"), []),
]


@pytest.mark.parametrize(("name", "file", "at", "value"), FORGED)
def test_whatever_a_document_says_it_is_refused_when_it_is_read(
    saved: Callable[[str], Path], name: str, file: str, at: tuple[Any, ...], value: Any
) -> None:
    folder = saved(name)
    loaded(name, folder).sample(3, seed=1, block=0)
    document = json.loads((folder / file).read_text())
    put(document, at, value)
    (folder / file).write_text(json.dumps(document))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BackendError, match="fit it again"):
        loaded(name, folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


@pytest.mark.parametrize("name", ["sdv.gaussian_copula", "sdv.hma", "sdv.par"])
def test_an_array_of_ten_million_million_numbers_is_refused(
    saved: Callable[[str], Path], name: str
) -> None:
    folder = saved(name)
    loaded(name, folder)
    with zipfile.ZipFile(folder / "arrays.npz") as archive:
        arrays = {member: archive.read(member) for member in archive.namelist()}
    member = next(iter(arrays))
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"
    arrays[member] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        for title, raw in arrays.items():
            archive.writestr(title, raw)
    with pytest.raises(BackendError, match="fit it again"):
        loaded(name, folder)


def test_arrays_that_grow_when_they_are_read_or_hold_no_numbers_are_refused(
    tmp_path: Path,
) -> None:
    from safegen.backends.arrays import load_arrays

    plain = {"a": np.zeros(1_000)}
    np.savez(tmp_path / "plain.npz", **plain)  # type: ignore[arg-type]
    assert load_arrays(tmp_path / "plain.npz")["a"].shape == (1_000,)
    np.savez_compressed(tmp_path / "bomb.npz", **plain)  # type: ignore[arg-type]
    np.savez(tmp_path / "text.npz", a=np.array(["x"]))
    for name in ("bomb.npz", "text.npz"):
        with pytest.raises(ValueError, match=r"^$"):
            load_arrays(tmp_path / name)


@pytest.mark.parametrize("name", ["ctgan", "diffusion.tabular", "sdv.par"])
def test_weights_of_another_kind_are_refused(saved: Callable[[str], Path], name: str) -> None:
    from safegen.backends.networks import load_tensors, save_tensors

    folder = saved(name)
    (file,) = folder.glob("*.safetensors")
    tensors = load_tensors(file)
    save_tensors(file, tensors)
    loaded(name, folder)
    key = next(k for k, t in tensors.items() if k.endswith("weight") and t.ndim == 2)
    for wrong in (tensors[key].double(), tensors[key][:1], tensors[key] * INFINITY):
        save_tensors(file, {**tensors, key: wrong})
        with pytest.raises(BackendError, match="fit it again"):
            loaded(name, folder)
