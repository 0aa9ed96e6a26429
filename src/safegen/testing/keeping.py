"""Checks of saved models: the same rows, the same bytes, nothing real, nothing run unverified."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from safegen.contracts import curves_of
from safegen.errors import BackendError, VerificationError
from safegen.models import read_model, write_model
from safegen.testing.sampling import same
from safegen.testing.subject import Subject, check, reproducible


@contextlib.contextmanager
def _saved(subject: Subject) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        folder.mkdir()
        subject.model.save(folder)
        yield folder


def _files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@check()
def saves(subject: Subject) -> None:
    """A saved model, loaded, gives the same rows."""
    with _saved(subject) as folder:
        assert _files(folder), "save writes no file"
        loaded = subject.backend.load(folder)
        for block in (0, 1):
            made = subject.sample(30, block=block, model=loaded)
            if subject.backend.reproducible:
                assert same(made, subject.sample(30, block=block)), (
                    "a loaded model gives other rows"
                )


@check(when=lambda s: reproducible(s) and not s.backend.pickles)
def same_bytes(subject: Subject) -> None:
    """The same model is the same bytes, saved twice or loaded and saved again."""
    with _saved(subject) as folder, _saved(subject) as again:
        first = _files(folder)
        assert first == _files(again), "two saves of one model differ"
        with tempfile.TemporaryDirectory() as name:
            subject.backend.load(folder).save(Path(name))
            assert first == _files(Path(name)), "a loaded model is saved otherwise"


@check("table", "tables", "sequences")
def keeps_no_ids(subject: Subject) -> None:
    """No id or personal value of a real row is in a saved model, in plain or in base64."""
    secret = {
        str(value).encode()
        for _, column, values in subject.columns()
        if column.kind in ("id", "personal") and pa.types.is_string(values.type)
        for value in values.drop_null().to_pylist()
    }
    with _saved(subject) as folder:
        for name, data in _files(folder).items():
            texts = [data, *_decoded(data)]
            found = sum(any(value in text for text in texts) for value in secret)
            assert not found, f"{name} holds {found} real ids"


def _decoded(data: bytes) -> Iterator[bytes]:
    """What the long strings of a JSON document stand for when they are base64."""
    with contextlib.suppress(ValueError):
        waiting = [json.loads(data)]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                waiting += part.values()
            elif isinstance(part, list):
                waiting += part
            elif isinstance(part, str) and len(part) > 16:
                with contextlib.suppress(ValueError):
                    yield base64.b64decode(part, validate=True)


class _Planted:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@check()
def refuses_tampered(subject: Subject) -> None:
    """A model folder that was changed is refused before the backend reads a byte of it."""
    with tempfile.TemporaryDirectory() as name:
        whole, mark = Path(name, "whole"), Path(name, "mark")
        write_model(whole, subject.model, _document(subject))
        loaded = read_model(whole).load(subject.backend)
        if subject.backend.reproducible:
            assert same(subject.sample(20, model=loaded), subject.sample(20)), (
                "a loaded model gives other rows"
            )
        for number, file in enumerate(sorted(_files(whole / "model"))):
            changed = Path(name, str(number))
            shutil.copytree(whole, changed)
            (changed / "model" / file).write_bytes(pickle.dumps(_Planted(mark)))
            try:
                read_model(changed).load(subject.backend)
            except VerificationError as error:
                said = str(error)
            else:
                raise AssertionError(f"{file} was replaced, and the model is loaded")
            assert file in said, f"the refusal does not name {file}"
            assert not mark.exists(), f"what was planted in {file} has run"


def _document(subject: Subject) -> dict[str, Any]:
    """What a Generator would write beside the model, of no source."""
    schemas = {n: s.model_dump(mode="json") for n, s in subject.example.schemas.items()}
    options = subject.options.model_dump(mode="json")
    empty: dict[str, Any] = {"facts": [], "places": [], "doubts": [], "versions": {}}
    name = subject.backend.name
    return {"backend": name, "options": options, "seed": "1", "schemas": schemas, **empty}


@check(when=lambda s: not s.backend.pickles)
def refuses_broken_files(subject: Subject) -> None:
    """A file that is missing, cut or replaced by a pickle is a BackendError, and nothing runs.

    This is what `pickles = False` promises: a model that no ledger knows may then be read.
    """
    with _saved(subject) as folder:
        mark = folder.parent / "mark"
        for name, data in _files(folder).items():
            for what, content in (
                ("missing", None),
                ("cut in half", data[: len(data) // 2]),
                ("replaced by a pickle", pickle.dumps(_Planted(mark))),
            ):
                path = folder / name
                path.unlink()
                if content is not None:
                    path.write_bytes(content)
                try:
                    made = subject.sample(10, model=subject.backend.load(folder))
                except BackendError:
                    pass
                else:  # a file that says nothing about the rows, a licence for instance
                    assert same(made, subject.sample(10)), f"{name} {what}: it loads other rows"
                finally:
                    path.write_bytes(data)
                assert not mark.exists(), f"what was planted in {name} has run: pickles is True"


@check()
def curves(subject: Subject) -> None:
    """Training curves are at most 1,000 finite numbers each, and are saved with the model."""
    try:
        known = curves_of(subject.model)
    except BackendError as error:
        raise AssertionError(str(error)) from None
    assert all(known.values()), "a curve holds no number"
    if not known:
        return
    with _saved(subject) as folder:
        loaded = curves_of(subject.backend.load(folder))
    assert loaded == known, "a loaded model has other curves"
