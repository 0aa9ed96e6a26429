"""Way round: change what an evidence folder says, leave something out of it, or make one up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from forging import cli

import safegen
from safegen.evidence.checking import check_evidence
from safegen.evidence.gathering import gather
from safegen.evidence.index import INDEX, SIGNATURE, Index, statement_of
from safegen.evidence.selecting import Period
from safegen.ledger import Ledger, open_ledger
from safegen.ledger.base import canonical, genesis
from safegen.manifest import Manifest, PublicKey, SigningKey, canonical_bytes
from safegen.manifest.sign import signature_of
from safegen.policy import Policy

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Ledger:
    """A ledger of its own: attested real rows, what was derived of them, three decisions."""
    place = tmp_path_factory.mktemp("books")
    real, ledger = place / "real.parquet", place / "ledger.db"
    frame = pd.DataFrame({"age": range(200), "city": ["Ulm", "Kiel"] * 100})
    frame.to_parquet(real)
    safegen.attest(real, by="A. Lee", ledger=ledger, key=key)
    safegen.derive(frame[frame.age > 50], sources=[real], ledger=ledger, by="A. Lee")
    books = open_ledger(ledger)
    policy = Policy.load("strict")
    books.record("policy", {"digest": policy.digest, "policy": policy.effective()})
    assert safegen.check(real, policy="strict", ledger=ledger).allowed
    assert not safegen.check(pd.DataFrame({"x": range(9)}), policy="strict", ledger=ledger).allowed
    assert safegen.check(real, policy="baseline", ledger=ledger).allowed
    return books


@pytest.fixture(scope="module")
def unsigned(books: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it, in a folder without a signature: what is forged has to be found by itself."""
    out = tmp_path_factory.mktemp("unsigned") / "folder"
    gather(books, out, period=Period.of("2020-01-01", None))
    return out


@pytest.fixture(scope="module")
def signed(
    books: Ledger, unsigned: Path, key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same, signed."""
    out = tmp_path_factory.mktemp("signed") / "folder"
    gather(books, out, period=Period.of("2020-01-01", None), key=SigningKey(key))
    return out


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / "copy")
    return to / "copy"


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
    return found


def resealed(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Write the index anew, so that it names the files as they now are."""
    index = document(folder)
    index["files"] = [
        {
            "path": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (INDEX, SIGNATURE)
    ]
    change(index)
    (folder / INDEX).write_bytes(canonical_bytes(index))


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines()]


def write(folder: Path, found: list[dict[str, Any]]) -> None:
    lines = [canonical_bytes(e) + b"\n" for e in found]
    (folder / "log.jsonl").write_bytes(b"".join(lines))


def rehashed(entry: dict[str, Any]) -> dict[str, Any]:
    body = {k: v for k, v in entry.items() if k != "hash"}
    return {**body, "hash": hashlib.sha256(canonical(body, "entry")).hexdigest()}


# ---- the honest folder ---------------------------------------------------------------------------


def test_the_honest_folders_verify(books: Ledger, signed: Path, unsigned: Path, key: Path) -> None:
    keys = [PublicKey.read(f"{key}.pub")]
    for folder, trusted in ((signed, keys), (unsigned, None)):
        checked = check_evidence(folder, trusted, books)
        assert checked.problems == []
        assert checked.compared
    ran = cli("evidence", "--verify", signed, "--trusted-key", f"{key}.pub")
    assert (ran.code, "SIGNED by" in ran.out) == (0, True)
    ran = cli("evidence", "--verify", unsigned)
    assert (ran.code, "UNSIGNED" in ran.out) == (0, True)


# ---- one thing at a time -------------------------------------------------------------------------


def test_each_byte_of_each_file_counts(signed: Path, key: Path, tmp_path: Path) -> None:
    keys = [PublicKey.read(f"{key}.pub")]
    folder = copy(signed, tmp_path)
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    assert len({p.relative_to(folder).parts[0] for p in paths}) == 11  # each kind of file
    for path in paths:
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert check_evidence(folder, keys).problems, (path.name, at)
        for spoiled in (whole[:-1], whole + b"\n", b""):
            path.write_bytes(spoiled)
            assert check_evidence(folder, keys).problems, path.name
        path.unlink()
        assert check_evidence(folder, keys).problems, path.name
        path.write_bytes(whole)
    assert check_evidence(folder, keys).problems == []


def test_what_is_added_is_found(signed: Path, key: Path, tmp_path: Path) -> None:
    keys = [PublicKey.read(f"{key}.pub")]
    folder = copy(signed, tmp_path)
    for more in ("README.md", "manifests/more.json"):
        (folder / more).write_text("see https://example.org")
        assert [more in p for p in check_evidence(folder, keys).problems] == [True]
        (folder / more).unlink()
    (folder / "empty").mkdir()
    assert check_evidence(folder, keys).problems == ["empty: an empty folder"]
    (folder / "empty").rmdir()
    (folder / "link").symlink_to(folder / "log.jsonl")
    assert check_evidence(folder, keys).problems == ["link: neither a file nor a folder"]
    (folder / "link").unlink()
    page = folder / "index.html"
    page.rename(folder / "page.html")
    assert len(check_evidence(folder, keys).problems) == 2
    (folder / "page.html").rename(page)
    assert check_evidence(folder, keys).problems == []


def test_a_link_in_the_place_of_a_file_is_not_followed(
    signed: Path, key: Path, tmp_path: Path
) -> None:
    folder = copy(signed, tmp_path)
    shutil.move(folder / "log.jsonl", tmp_path / "elsewhere")
    (folder / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    problems = check_evidence(folder, [PublicKey.read(f"{key}.pub")]).problems
    assert "log.jsonl: neither a file nor a folder" in problems


# ---- the signature -------------------------------------------------------------------------------


def test_a_signature_that_was_taken_off_or_is_anothers_is_found(
    signed: Path, unsigned: Path, key: Path, other_key: Path, tmp_path: Path, books: Ledger
) -> None:
    ours = [PublicKey.read(f"{key}.pub")]
    folder = copy(signed, tmp_path)
    assert "not known here" in check_evidence(folder).problems[0]
    assert (
        "not known here" in check_evidence(folder, [PublicKey.read(f"{other_key}.pub")]).problems[0]
    )
    envelope = (folder / SIGNATURE).read_bytes()
    (folder / SIGNATURE).unlink()
    assert "says that it was signed" in check_evidence(folder).problems[0]
    # Who says in the index, too, that nobody signed it, has an unsigned folder.
    resealed(folder, lambda index: index.update(signed_by=None))
    assert "a trusted key was asked for" in check_evidence(folder, ours).problems[0]
    # The signature of another folder, by the same key.
    gather(books, tmp_path / "other", period=Period.of("2021-01-01", None), key=SigningKey(key))
    (tmp_path / "other" / SIGNATURE).write_bytes(envelope)
    assert "not of this evidence.json" in check_evidence(tmp_path / "other", ours).problems[0]
    # A signature of a manifest is none of a folder.
    shutil.copy(next((signed / "envelopes").iterdir()), folder / SIGNATURE)
    assert "not of this evidence.json" in check_evidence(folder, ours).problems[0]


def test_a_folder_that_names_another_signer_is_found(
    signed: Path, key: Path, other_key: Path, tmp_path: Path
) -> None:
    folder, other = copy(signed, tmp_path), PublicKey.read(f"{other_key}.pub")
    resealed(folder, lambda index: index.update(signed_by=other.id))
    statement = statement_of((folder / INDEX).read_bytes())
    (folder / SIGNATURE).write_bytes(signature_of(statement, SigningKey(key)))
    problems = check_evidence(folder, [PublicKey.read(f"{key}.pub"), other]).problems
    assert problems == ["evidence.json: it names another key than the one that signed it"]


def test_an_edit_that_fits_is_found_by_the_signature(
    signed: Path, key: Path, tmp_path: Path
) -> None:
    folder = copy(signed, tmp_path)
    (folder / "index.html").write_text("<h1>All is well</h1>")
    resealed(folder)
    problems = check_evidence(folder, [PublicKey.read(f"{key}.pub")]).problems
    assert [p for p in problems if "not of this evidence.json" in p] == problems


# ---- rewrites of an unsigned folder, in which all digests fit ------------------------------------


def drop_an_entry(folder: Path) -> None:
    found = entries(folder)
    [gone] = [e for e in found if e["kind"] == "decision"][:1]
    write(folder, [e for e in found if e["seq"] != gone["seq"]])

    def fewer(index: dict[str, Any]) -> None:
        index["ledger"]["entries"] -= 1
        index["ledger"]["decisions"] -= 1
        index["ledger"]["refused"] -= not gone["payload"]["allowed"]
        for policy in index["policies"]:
            policy["decisions"] -= policy["digest"] == gone["payload"]["policy"]["digest"]

    resealed(folder, fewer)


def turn_a_refusal(folder: Path) -> None:
    found = entries(folder)
    at = next(i for i, e in enumerate(found) if e["payload"].get("allowed") is False)
    found[at]["payload"]["allowed"] = True
    found[at] = rehashed(found[at])
    write(folder, found)
    resealed(folder, lambda index: index["ledger"].update(refused=0))


def change_an_entry(folder: Path) -> None:
    found = entries(folder)
    found[0]["payload"]["origin"] = "synthetic"
    write(folder, found)
    resealed(folder)


def swap_two_entries(folder: Path) -> None:
    found = entries(folder)
    write(folder, [found[1], found[0], *found[2:]])
    resealed(folder)


def cut_the_log(folder: Path) -> None:
    found = entries(folder)
    write(folder, found[:-1])

    def fewer(index: dict[str, Any]) -> None:
        index["ledger"]["entries"] -= 1
        index["ledger"]["decisions"] -= 1
        index["policies"] = [p for p in index["policies"] if p["id"] != "baseline"]

    (folder / f"policies/{Policy.load('baseline').digest[7:]}.json").unlink()
    resealed(folder, fewer)


def another_manifest(folder: Path) -> None:
    path = next((folder / "manifests").iterdir())
    manifest = Manifest.from_bytes(path.read_bytes())
    forged = manifest.model_copy(update={"rows": 7, "attested_by": "somebody else"}).sealed()
    path.write_bytes(forged.to_bytes())

    def named(index: dict[str, Any]) -> None:
        for one in index["datasets"]:
            if one["dataset_id"] == manifest.dataset_id:
                one.update(manifest_digest=forged.digest, rows=7)

    resealed(folder, named)


def a_manifest_and_its_entry(folder: Path) -> None:
    another_manifest(folder)
    digests = {d["dataset_id"]: d["manifest_digest"] for d in document(folder)["datasets"]}
    found = entries(folder)
    for one in found:
        if one["kind"] == "register":
            one["payload"]["manifest_digest"] = digests[one["payload"]["dataset_id"]]
    write(folder, [rehashed(e) for e in found])
    resealed(folder)


def leave_a_dataset_out(folder: Path) -> None:
    gone = document(folder)["datasets"][-1]["dataset_id"]
    for path in folder.rglob(f"{gone}.*"):
        path.unlink()
    resealed(folder, lambda index: index["datasets"].pop())


def another_policy(folder: Path) -> None:
    path = folder / f"policies/{Policy.load('strict').digest[7:]}.json"
    policy = json.loads(path.read_bytes())
    policy["rules"]["lineage"]["severity"] = "audit"
    path.write_bytes(canonical_bytes(policy))
    resealed(folder)


def deny_a_policy(folder: Path) -> None:
    resealed(folder, lambda index: index["policies"].pop())


def another_signer(folder: Path) -> None:
    """A key of one's own under the name of the one that signed."""
    from safegen.manifest import new_key

    path = next((folder / "keys").iterdir())
    path.write_text(new_key(folder.parent / "mine").pem)
    resealed(folder)


def another_head(folder: Path) -> None:
    resealed(folder, lambda index: index["ledger"].update(head="0" * 64))


REWRITES: list[tuple[Change, str]] = [
    (drop_an_entry, "are missing"),
    (turn_a_refusal, "does not follow from the one before it"),
    (change_an_entry, "was changed"),
    (swap_two_entries, "comes after entry"),
    (cut_the_log, "are missing"),
    (another_manifest, "does not register dataset"),
    (a_manifest_and_its_entry, "does not follow from the one before it"),
    (leave_a_dataset_out, "is left out"),
    (another_policy, "not the policy with this digest"),
    (deny_a_policy, "not those that the decisions name"),
    (another_signer, "another than its name"),
    (another_head, "is not the head"),
]


@pytest.mark.parametrize(("change", "word"), REWRITES, ids=[c.__name__ for c, _ in REWRITES])
def test_a_rewrite_in_which_all_digests_fit_is_found(
    change: Change, word: str, unsigned: Path, signed: Path, key: Path, tmp_path: Path
) -> None:
    base = unsigned
    if change is another_signer:  # there are envelopes in the signed one, by its side
        base = signed
    folder = copy(base, tmp_path)
    change(folder)
    Index.from_bytes((folder / INDEX).read_bytes())
    problems = check_evidence(folder).problems
    assert any(word in p for p in problems), problems


def test_a_rewrite_of_everything_is_found_by_the_ledger_only(
    unsigned: Path, books: Ledger, tmp_path: Path
) -> None:
    """A forger who has no key and rewrites the whole chain: UNSIGNED says that this may be."""
    folder = copy(unsigned, tmp_path)
    found, prev = entries(folder), genesis(books.ledger_id, books.state()["key_epochs"][-1])
    assert found[0]["prev"] == prev
    for i, one in enumerate(found):
        if one["payload"].get("allowed") is False:
            one["payload"]["allowed"] = True
        found[i] = rehashed({**one, "prev": prev})
        prev = found[i]["hash"]
    write(folder, found)
    resealed(folder, lambda index: index["ledger"].update(refused=0, head=prev))
    checked = check_evidence(folder)
    assert checked.problems == []
    assert "could not be noticed" in checked.standing
    assert "has no such entry" in check_evidence(folder, ledger=books).problems[0]
    ran = cli("evidence", "--verify", folder, "--ledger", books.url)
    assert (ran.code, "has no such entry" in ran.err) == (4, True)


@pytest.mark.parametrize(
    "spoiled",
    [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"schema":"safegen.evidence/v2"}', b"\xff"],
)
def test_an_index_that_is_none_is_no_traceback(
    spoiled: bytes, unsigned: Path, tmp_path: Path
) -> None:
    folder = copy(unsigned, tmp_path)
    (folder / INDEX).write_bytes(spoiled)
    ran = cli("evidence", "--verify", folder, "--json")
    assert (ran.code, json.loads(ran.out)["verified"]) == (4, False)
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 10_000,
        b'{"hash":1,"kind":2,"payload":3,"prev":4,"seq":"x","time":6}',
        b'{"hash":"","kind":"","payload":{},"prev":"","seq":true,"time":""}',
    ],
)
def test_lines_of_the_log_that_are_none_are_no_traceback(
    line: bytes, unsigned: Path, tmp_path: Path
) -> None:
    folder = copy(unsigned, tmp_path)
    with (folder / "log.jsonl").open("ab") as stream:
        stream.write(line + b"\n")
    resealed(folder)
    assert any("no entry of a log" in p for p in check_evidence(folder).problems)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a//b", "evidence.json"])
def test_an_index_that_names_paths_outside_reads_none(
    path: str, unsigned: Path, tmp_path: Path
) -> None:
    folder = copy(unsigned, tmp_path)
    (tmp_path / "outside").write_text("x")

    def named(index: dict[str, Any]) -> None:
        index["files"].append({"path": path, "bytes": 1, "sha256": f"sha256:{'0' * 64}"})

    resealed(folder, named)
    problems = check_evidence(folder).problems
    assert any("not a path that it may name" in p or "missing" in p for p in problems)
    assert not any("changed" in p or "size" in p for p in problems)
