"""Way round: two runs, or a run and a file, that want the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from forging import World, cli, finish, start

import safegen
from safegen.engines.parts import Recipe
from safegen.release import staging


def test_two_processes_one_place(world: World, tmp_path: Path) -> None:
    """Exactly one wins; the other says why not; nothing is mixed."""
    out = tmp_path / "out"
    both = [
        start("generate", "--model", world.model, "--rows", 30_000, "--seed", s, "--out", out)
        for s in (1, 2)
    ]
    ran = [finish(p) for p in both]
    assert sorted(r.code for r in ran) == [0, 1], [r.err for r in ran]
    loser = next(r for r in ran if r.code)
    assert str(out) in loser.err
    assert "Traceback" not in loser.err
    assert safegen.verify(out, deep=True).rows == 30_000
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def _publish_both(out: Path) -> None:
    more: dict[str, Any] = {"recipe": Recipe("testing.rows", {}, seed=1)}
    with (
        staging(out, dataset_id="1", **more) as one,
        staging(out, dataset_id="2", **more) as two,
    ):
        (one.folder / "one").touch()
        (two.folder / "two").touch()
        one.publish()
        two.publish()


def test_the_second_to_publish_loses(tmp_path: Path) -> None:
    """The same race, with both runs past every check before either publishes."""
    out = tmp_path / "out"
    with pytest.raises(safegen.TargetError, match="nothing was overwritten"):
        _publish_both(out)
    assert [p.name for p in out.iterdir()] == ["one"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_there_is_never_overwritten(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("generate", "--model", world.model, "--rows", 150, "--out", out)
    assert cli(*arguments).code == 0
    before = safegen.verify(out).dataset_id
    ran = cli(*arguments)
    assert (ran.code, "exists" in ran.err) == (1, True)
    assert cli(*arguments, "--if-exists", "same").code == 0
    assert safegen.verify(out).dataset_id == before
    ran = cli(*arguments, "--if-exists", "same", "--seed", 99)
    assert (ran.code, "not the one" in ran.err) == (1, True)
    assert cli(*arguments, "--if-exists", "version").code == 0
    assert safegen.verify(tmp_path / "out-2").dataset_id != before
    assert safegen.verify(out).dataset_id == before


def test_same_does_not_keep_what_was_tampered_with(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("generate", "--model", world.model, "--rows", 150, "--out", out)
    assert cli(*arguments).code == 0
    (out / "README.md").write_text("edited")
    assert cli(*arguments, "--if-exists", "same").code == 4


@pytest.mark.parametrize("if_exists", ["error", "same"])
def test_a_file_in_the_way(world: World, tmp_path: Path, if_exists: str) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    arguments = ("generate", "--model", world.model, "--rows", 150, "--if-exists", if_exists)
    assert cli(*arguments, "--out", out).code in (1, 4)
    assert cli(*arguments, "--out", out / "below").code == 1
    assert out.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert cli(*arguments, "--out", tmp_path / "free").code == 0


def test_a_folder_with_something_in_it(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(safegen.TargetError):
        world.generator.generate(150, out)
    assert [p.name for p in out.iterdir()] == ["mine"]
    (out / "mine").unlink()
    assert world.generator.generate(150, out)


def test_a_dangling_link_in_the_way(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(safegen.TargetError):
        world.generator.generate(150, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_missing_parents_are_made_and_unmade(world: World, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    assert cli("generate", "--model", world.model, "--rows", 150, "--out", out).code == 0
    assert safegen.verify(out)
    with pytest.raises(safegen.UsageError):
        world.generator.generate(150, tmp_path / "c" / "d", conditions={"nothing": 1})
    assert not (tmp_path / "c").exists()
