"""Which place a path or a URI names, and a store that speaks Google's protocol."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import google_store
import safegen
from local_store import released
from safegen import stores
from safegen.errors import UsageError
from safegen.places import NoObject, StoreError, StorePath, place_of, redacted, walk
from safegen.tables.sources import read_source


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("out/adult", Path("out/adult")),
        ("file:///tmp/o%20ut", Path("/tmp/o ut")),
        ("file://localhost/tmp/x", Path("/tmp/x")),
        ("C:/x", Path("C:/x")),
        ("name=s3://bucket/x", Path("name=s3://bucket/x")),
        ("s3://bucket", StorePath("s3", "bucket", "")),
        ("s3://bucket/", StorePath("s3", "bucket", "")),
        ("S3://bucket/a/b.csv", StorePath("s3", "bucket", "a/b.csv")),
        ("s3://bucket/year=2026/a b%20c.csv", StorePath("s3", "bucket", "year=2026/a b%20c.csv")),
        ("gs://bucket/me@example.org/x/", StorePath("gs", "bucket", "me@example.org/x")),
        ("gcs://bucket/x", StorePath("gs", "bucket", "x")),
    ],
)
def test_what_a_path_names(text: str, place: object) -> None:
    assert place_of(text) == place
    assert place_of(place_of(text)) == place


@pytest.mark.parametrize(
    "text",
    [
        "https://host/x.csv",
        "hdfs://host/x.csv",
        "file://host/x.csv",
        "s3://",
        "s3:///x",
        "s3://bucket//x",
        "s3://bucket/../other/x",
        "s3://bucket/./x",
        "s3://bu cket/x",
        "s3://bucket:9000/x",
        "s3://bucket/x?versionId=1",
    ],
)
def test_what_no_place_is(text: str) -> None:
    with pytest.raises(UsageError):
        place_of(text)


def test_a_store_path_is_as_a_path_is() -> None:
    path = place_of("s3://bucket/a/b.tar.gz")
    assert isinstance(path, StorePath)
    assert (path.name, str(path.parent), str(path.parent.parent)) == (
        "b.tar.gz",
        "s3://bucket/a",
        "s3://bucket",
    )
    assert str(path.with_name("c")) == str(path.parent / "c") == "s3://bucket/a/c"
    assert path.with_suffix(".bz2").name == "b.tar.bz2"
    assert path.relative_to(path.parent.parent).parts == ("a", "b.tar.gz")
    assert path.is_relative_to(path.parent)
    assert not place_of("s3://bucket/ab").is_relative_to(path.parent)
    assert pickle.loads(pickle.dumps(path)) == path
    error = StoreError(path, "no access", 13)
    assert (str(error), error.errno) == ("s3://bucket/a/b.tar.gz: no access", 13)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(error, safegen.SafegenError)


def test_a_local_place_is_never_taken_for_one_in_a_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder of this machine"):
        safegen.Generator.load("s3://bucket/model")
    with pytest.raises(UsageError, match="as text"):
        place_of(Path("s3://bucket/x"))
    with pytest.raises(TypeError):
        open(place_of("s3://bucket/x"))  # type: ignore[call-overload]  # noqa: SIM115
    assert list(tmp_path.iterdir()) == []


def test_redacted_twice_is_redacted() -> None:
    text = "s3://a:b/c@bucket/x?sig=1&v=2;token=3#pass=4"
    assert redacted(text) == "s3://…@bucket/x?sig=…&v=2;token=…#pass=…"
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("When x for key 'TOKEN/503' in bucket 'b': AWS Error ACCESS_DENIED during", "no access"),
        ("key 'ACCESS_DENIED' in bucket 'connect': AWS Error SLOW_DOWN during", "fewer requests"),
        ("key 'x': AWS Error NO_SUCH_BUCKET (Request ID: a403b)", "no such bucket"),
        ("key 'x': AWS Error NETWORK_CONNECTION: curlCode: 28, Timeout was reached", "in time"),
        ("key 'x': AWS Error NETWORK_CONNECTION: curlCode: 6, Could not resolve", "be reached"),
        ("key 'secret TOKEN' in 'x': AWS Error INTERNAL_FAILURE (503)", "failed with INTERNAL_F"),
        ("whatever is new", "the store failed; try again"),
    ],
)
def test_what_a_store_says_is_told_in_our_words(text: str, said: str) -> None:
    """Names of keys are not taken for a reason, and nothing of the text is shown."""
    with pytest.raises(StoreError, match=said) as caught, stores.told("s3://b/x"):
        raise OSError(text)
    assert "key '" not in str(caught.value)
    assert "Request" not in str(caught.value)


# ---- Google's protocol ---------------------------------------------------------------------------


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Starts the store, empty, or one that answers with a code."""
    with ExitStack() as stack:

        def start(*code: int) -> None:
            server = subprocess.Popen(
                [sys.executable, google_store.__file__, *map(str, code)],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(server)
            stack.callback(server.kill)
            assert server.stdout is not None
            port = int(server.stdout.readline())
            monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{port}")

        yield start


def test_google_is_a_store_as_any_other(google: Callable[..., None]) -> None:
    google()
    path = place_of("gs://box/a/b/x.csv")
    assert isinstance(path, StorePath)
    assert not path.exists()
    path.write_bytes(b"n\n1\n2\n")
    assert path.read_bytes() == path.open().read() == b"n\n1\n2\n"
    assert path.read_range(2, 3) == b"1\n2"
    assert (path.stat().st_size, path.parent.is_dir()) == (6, True)
    assert [str(p) for p in place_of("gs://box").rglob("*") if p.is_file()] == [str(path)]
    (path.parent / "y.csv").write_bytes(b"n\n")
    walked = [(str(at), folders, files) for at, folders, files in walk(place_of("gs://box"))]
    assert walked == [
        ("gs://box", ["a"], []),
        ("gs://box/a", ["b"], []),
        ("gs://box/a/b", [], ["x.csv", "y.csv"]),
    ]
    assert read_source("gs://box/a/b/x.csv").tables["table"].table().num_rows == 2
    path.unlink()
    with pytest.raises(NoObject):
        path.open()


def test_a_release_goes_to_google(google: Callable[..., None]) -> None:
    google()
    made = released("gs://box/out", 1_000)
    assert safegen.verify("gs://box/out", deep=True) == made.manifest
    assert made.to_arrow().num_rows == 1_000


@pytest.mark.parametrize(
    ("code", "said"), [(403, "no access"), (503, "reached|fewer requests|in time")]
)
def test_google_that_fails_is_said(
    google: Callable[..., None], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_SILENT_S", 1.0)
    google(code)
    asks: list[Callable[[Any], object]] = [
        lambda p: p.open(),
        lambda p: p.write_bytes(b"x"),
        lambda p: list(p.iterdir()),
    ]
    for ask in asks:
        with pytest.raises(StoreError, match=said):
            ask(place_of("gs://box/x.csv"))
