"""Every field of the manifest, of its signature, and every file, changed one at a time: found by
the library, and by the verifier that a sceptic reads (`tools/verify_manifest.py`), which shares no
line with it.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forging import World, document, flip, reseal
from hypothesis import given, settings
from hypothesis import strategies as st

import safegen
from safegen.dataset import inspect_folder
from safegen.errors import VerificationError
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME, canonical_bytes

TOOL = Path(__file__).parents[2] / "tools" / "verify_manifest.py"
Place = tuple[str | int, ...]


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("verify_manifest", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = _tool()


@pytest.fixture(scope="module")
def signed(world: World, key: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("matrix")
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
        return safegen.Generator.load(world.model, key=key).generate(300, place / "out").path


@pytest.fixture
def folder(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "copy"))


def by_library(folder: Path, key: Path) -> bool:
    """Whether it verifies, without any ledger's help."""
    try:
        inspect_folder(folder, [f"{key}.pub"])
    except VerificationError:
        return False
    return True


def by_tool(folder: Path, key: Path) -> bool:
    try:
        return not list(tool.problems_of(str(folder), dict([tool.public_key(f"{key}.pub")])))
    except (tool.Bad, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False


def refused(folder: Path, key: Path) -> bool:
    """By both; that they disagree is an error of the test's."""
    found = by_library(folder, key), by_tool(folder, key)
    assert found[0] == found[1], found
    return not found[0]


def leaves(value: Any, at: Place = ()) -> Iterator[Place]:
    """The place of every value, those of lists and objects too."""
    if at:
        yield at
    pairs: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(value, dict):
        pairs = iter(value.items())
    elif isinstance(value, list):
        pairs = iter(enumerate(value))
    for name, inner in pairs:
        yield from leaves(inner, (*at, name))


def one_of_each(value: Any) -> list[Place]:
    """Places, one of each kind: of a list of a hundred findings the first."""
    kinds = {tuple("*" if isinstance(x, int) else x for x in at): at for at in leaves(value)}
    return [*kinds.values()]


def changed(document: dict[str, Any], at: Place) -> dict[str, Any]:
    other = copy.deepcopy(document)
    holder: Any = other
    for step in at[:-1]:
        holder = holder[step]
    old = holder[at[-1]]
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, int | float):
        new = old + 1
    elif isinstance(old, str):
        new = old[:-1] + ("0" if old[-1:] != "0" else "1")
    elif isinstance(old, list):
        new = old[:-1] if old else ["x"]
    elif isinstance(old, dict):
        new = dict([*old.items()][1:]) if old else {"x": 1}
    else:
        new = "x"
    holder[at[-1]] = new
    return other


def test_the_honest_one_verifies(folder: Path, key: Path, other_key: Path) -> None:
    assert not refused(folder, key)
    assert refused(folder, other_key)
    ran = subprocess.run(
        [sys.executable, "-I", TOOL, folder, "--key", f"{key}.pub"], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "verified; SIGNED by a key that you named\n"
    ran = subprocess.run([sys.executable, "-I", TOOL, folder], capture_output=True, text=True)
    assert (ran.returncode, "not known here" in ran.stderr) == (4, True)
    (folder / SIGNATURE_NAME).unlink()
    ran = subprocess.run([sys.executable, "-I", TOOL, folder], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout[:20]) == (0, "verified; UNSIGNED: ")
    assert refused(folder, key)


def test_every_field_of_the_manifest(folder: Path, key: Path) -> None:
    whole = document(folder)
    places = one_of_each(whole)
    assert len(places) > 150
    for at in places:
        edited = changed(whole, at)
        (folder / MANIFEST_NAME).write_bytes(canonical_bytes(edited))
        assert refused(folder, key), at
        if at != ("digest",):
            reseal(folder, edited)
            assert refused(folder, key), at
    reseal(folder, whole)
    assert not refused(folder, key)


def test_every_field_of_the_signature(folder: Path, key: Path) -> None:
    whole = document(folder, SIGNATURE_NAME)
    for at in leaves(whole):
        (folder / SIGNATURE_NAME).write_bytes(canonical_bytes(changed(whole, at)))
        assert refused(folder, key), at
    (folder / SIGNATURE_NAME).write_bytes(canonical_bytes(whole))
    assert not refused(folder, key)


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: flip(p, 0),
        lambda p: flip(p, p.stat().st_size // 2),
        lambda p: flip(p, -1),
        _longer,
        _shorter,
        lambda p: p.write_bytes(b""),
        lambda p: p.unlink(),
        lambda p: p.rename(p.with_name("renamed")),
        lambda p: shutil.copy(p, p.with_name("extra")),
    ],
    ids=["first", "middle", "last", "longer", "shorter", "empty", "gone", "renamed", "added"],
)
def test_every_file(signed: Path, tmp_path: Path, key: Path, spoil: Callable[[Path], Any]) -> None:
    names = [f["path"] for f in document(signed)["files"]]
    assert any(n.startswith("data/") for n in names)
    for number, name in enumerate(names):
        copied = Path(shutil.copytree(signed, tmp_path / str(number)))
        spoil(copied / name)
        assert refused(copied, key), name


def test_a_link_to_the_same_bytes(folder: Path, tmp_path: Path, key: Path) -> None:
    for entry in document(folder)["files"]:
        path = folder / entry["path"]
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        assert refused(folder, key)
        path.unlink()
        (tmp_path / path.name).rename(path)
    assert not refused(folder, key)


def test_the_row_groups_of_the_manifest(folder: Path, key: Path) -> None:
    """Consistently sealed and signed by nobody: the tree alone says it."""
    (folder / SIGNATURE_NAME).unlink()
    whole = document(folder)
    (data,) = [i for i, f in enumerate(whole["files"]) if f["merkle_root"]]
    for place in ("merkle_root", "leaf"):
        at = ("files", data, place) if place != "leaf" else ("files", data, "row_groups", 0, place)
        reseal(folder, changed(whole, at))
        assert any("differs" in p for p in tool.problems_of(str(folder), {}))
        with pytest.raises(VerificationError, match="differs"):
            inspect_folder(folder, deep=True)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"schema":"safegen.manifest/v1"}', b"[" * 100_000],
)
def test_documents_that_are_none(folder: Path, key: Path, data: bytes) -> None:
    for name in (MANIFEST_NAME, SIGNATURE_NAME):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        assert refused(folder, key)
        (folder / name).write_bytes(kept)


# ---- the verifier's own cryptography and canonical form ------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_as_rfc8785_has_them(value: float) -> None:
    assert tool.number(value).encode() == rfc8785.dumps(value)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.floats(-1e300, 1e300) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@given(JSON)
def test_documents_are_written_as_rfc8785_has_them(value: Any) -> None:
    assert tool.canonical(value).encode() == rfc8785.dumps(value)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 511))
def test_signatures_verify_as_openssl_has_them(message: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert tool.signed(public, message, signature)
    assert not tool.signed(public, message + b"x", signature)
    spoiled = bytearray(signature)
    spoiled[bit // 8] ^= 1 << bit % 8
    assert not tool.signed(public, message, bytes(spoiled))
    # S + L is the same number modulo the group's order: RFC 8032 has it refused.
    again = int.from_bytes(signature[32:], "little") + tool.Q
    if again < 2**256:
        assert not tool.signed(public, message, signature[:32] + again.to_bytes(32, "little"))


def test_rfc_8032s_own_example() -> None:
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
        "1cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert tool.signed(public, b"", signature)


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import json; print(json.dumps([m.split('.')[0] for m in sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    loaded = set(json.loads(ran.stdout.splitlines()[-1]))
    assert loaded <= set(sys.stdlib_module_names) | {"__main__"}
    assert len(TOOL.read_text().splitlines()) <= 300
