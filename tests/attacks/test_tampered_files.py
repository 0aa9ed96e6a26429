"""Way round: change what lies in a released folder, and leave the manifest alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from forging import World, check, cli, flip, is_refused_as_synthetic

import safegen

DATA = "data/part-00000.parquet"


def _named(folder: Path, name: str) -> None:
    """The folder does not verify, in Python and on the command line, and the file is named."""
    with pytest.raises(safegen.VerificationError) as error:
        safegen.verify(folder)
    assert any(name in str(p) for p in error.value.problems), str(error.value)
    ran = cli("verify", folder)
    assert ran.code == 4
    assert name in ran.err
    assert not ran.out
    with pytest.raises((safegen.AdmissionRefused, safegen.SourceError)):
        safegen.guard(folder, policy="training")
    with pytest.raises(safegen.VerificationError):
        safegen.open(folder)


def test_the_untouched_copy_verifies(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    assert safegen.verify(folder, deep=True).dataset_id == world.dataset.manifest.dataset_id
    ran = cli("verify", folder, "--deep")
    assert (ran.code, "UNSIGNED; the ledger" in ran.out) == (0, True)
    assert safegen.open(folder).manifest == world.dataset.manifest


@pytest.mark.parametrize("offset", [0, 4, 1000, 20_000, -1, -5, -400])
def test_a_changed_byte_of_data(world: World, tmp_path: Path, offset: int) -> None:
    folder = world.copy(tmp_path / "copy")
    flip(folder / DATA, offset)
    _named(folder, DATA)


@pytest.mark.parametrize("name", ["README.md", "report.html"])
@pytest.mark.parametrize("offset", [0, -1])
def test_a_changed_byte_of_a_page(world: World, tmp_path: Path, name: str, offset: int) -> None:
    folder = world.copy(tmp_path / "copy")
    flip(folder / name, offset)
    _named(folder, name)


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\n")


def _rename(path: Path) -> None:
    path.rename(path.with_name("renamed" + path.suffix))


def _link(path: Path) -> None:
    """The same bytes, but from somewhere else, where they can change later."""
    elsewhere = path.parents[2] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", [DATA, "README.md"])
@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, lambda p: p.write_bytes(b""), _append, _rename, _link, _fifo, _folder],
    ids=["removed", "emptied", "longer", "renamed", "link", "fifo", "folder"],
)
def test_a_spoiled_file(
    world: World, tmp_path: Path, name: str, spoil: Callable[[Path], object]
) -> None:
    folder = world.copy(tmp_path / "copy")
    spoil(folder / name)
    with pytest.raises(safegen.VerificationError) as error:
        safegen.verify(folder)
    assert any(name in str(p) for p in error.value.problems)
    assert cli("verify", folder).code == 4


@pytest.mark.parametrize(
    "name",
    [
        "more.parquet",
        ".hidden",
        "data/part-00001.parquet",
        "data/.hidden.parquet",
        "data/_more.parquet",
        "more/deep/down.txt",
        ".safegen-staging-x/left",
        "safegen.manifest.json.bak",
        "data/safegen.manifest.json",
    ],
)
def test_an_added_file(world: World, tmp_path: Path, name: str) -> None:
    folder = world.copy(tmp_path / "copy")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes((folder / DATA).read_bytes())
    _named(folder, name)


def test_an_added_link_to_a_folder(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    (folder / "data" / "more").symlink_to(world.dataset.path / "data")
    _named(folder, "data/more")


def test_an_empty_folder_holds_nothing_and_changes_nothing(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    (folder / "empty").mkdir()
    assert safegen.verify(folder).rows == world.dataset.manifest.rows


@pytest.mark.parametrize("name", ["safegen.manifest.json", "safegen.manifest.dsse.json"])
@pytest.mark.parametrize("spoil", [_link, _fifo, _folder], ids=["link", "fifo", "folder"])
def test_a_document_that_is_no_plain_file(
    world: World, tmp_path: Path, name: str, spoil: Callable[[Path], object]
) -> None:
    folder = world.copy(tmp_path / "a" / "b" / "copy")
    (folder / name).touch()
    spoil(folder / name)
    _named(folder, name)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\x1b[2J\x1b[1;1HVERIFIED", b"a\nVERIFIED"])
def test_a_file_name_that_tricks_the_terminal(world: World, tmp_path: Path, name: bytes) -> None:
    folder = world.copy(tmp_path / "copy")
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("x")
    with pytest.raises(safegen.VerificationError) as error:
        safegen.verify(folder)
    text = str(error.value)
    assert "not in the manifest" in text
    assert text.isprintable()
    text.encode()
    ran = cli("verify", folder, "--json")
    assert ran.code == 4
    ran.out.encode()


def test_all_problems_are_listed_at_once(world: World, tmp_path: Path) -> None:
    folder = world.copy(tmp_path / "copy")
    flip(folder / DATA, 100)
    (folder / "README.md").unlink()
    (folder / "added").touch()
    with pytest.raises(safegen.VerificationError) as error:
        safegen.verify(folder)
    text = str(error.value)
    assert all(name in text for name in (DATA, "README.md", "added"))


def test_a_damaged_folder_is_still_known_for_what_it_is(world: World, tmp_path: Path) -> None:
    """Breaking the manifest does not make the rows any more real."""
    folder = world.copy(tmp_path / "copy")
    (folder / "safegen.manifest.json").write_text("{}")
    assert is_refused_as_synthetic(check(folder))
    (folder / "safegen.manifest.json").unlink()
    assert is_refused_as_synthetic(check(folder))


def test_a_truncated_parquet_file_is_no_source(world: World, tmp_path: Path) -> None:
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(world.file.read_bytes()[:-100])
    assert cli("check", cut).code == 2
    assert cli("check", world.real).code == 0
