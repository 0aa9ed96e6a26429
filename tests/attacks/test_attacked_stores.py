"""Way round: an object store, where nothing is renamed, everybody writes, and URIs hold secrets."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import forging
import pytest
from forging import World, check, cli, finish, is_refused_as_synthetic, start

import safegen
from local_store import SECRET, Store, released
from safegen import stores, targets
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME
from safegen.manifest.check import CLAIM
from safegen.manifest.identity import new_ulid
from safegen.places import StoreError, StorePath, place_of, redacted

ROWS = 300


# ---- killed runs ---------------------------------------------------------------------------------


def _killed(world: World, store: Store, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run into s3://bucket/out that is killed without warning when it calls `at`."""
    code = (
        "import os, safegen.targets as t\n"
        f"t._StoreStaging.{at} = lambda *given: os.kill(os.getpid(), 9)\n"
        "from safegen.cli import main; main()"
    )
    monkeypatch.setattr(forging, "COMMAND", [sys.executable, "-c", code])
    out = store.uri("out")
    ran = finish(start("generate", "--model", world.model, "--rows", ROWS, "--out", out))
    assert ran.code == -9, ran.err


def test_a_killed_run_is_no_dataset_and_in_nobodys_way(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed(world, store, "publish", monkeypatch)
    (left,) = {k.split("/")[1] for k in store.names("out/")}
    assert f"out/{left}/data/part-00000.parquet" in store.names()
    out = store.uri("out")
    assert cli("verify", out).code == 4
    with pytest.raises(safegen.VerificationError):
        safegen.open(out)
    # Its rows say themselves what they are, to whoever finds them.
    assert is_refused_as_synthetic(check(out))
    # The next run with the same target works, and nobody mixes the two.
    made = world.generator.generate(ROWS, out, seed=5)
    assert cli("verify", out, "--deep").code == 0
    assert safegen.open(out).to_arrow().num_rows == ROWS
    assert left in {k.split("/")[1] for k in store.names("out/")}
    # And what is hidden in such a folder is found.
    scanned = {one["path"]: one for one in json.loads(cli("scan", out, "--json").out)}
    part = f"{out}/{left}/data/part-00000.parquet"
    assert set(scanned) == {out, part}
    assert scanned[part]["synthetic_share"] == 1.0
    assert safegen.check(out, policy="training").allowed
    assert made.manifest.dataset_id != left


def test_what_was_left_long_ago_is_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    left = new_ulid()
    for name in (f"{left}/data/part-00000.parquet", f"{CLAIM}{left}", "mine.txt"):
        store.put(f"out/{name}", b"x")
    targets._sweep(place_of(store.uri("out")))
    assert len(store.names()) == 3  # it may be of a run that works there
    monkeypatch.setattr(targets, "_FORGOTTEN_S", -60)
    targets._sweep(place_of(store.uri("out")))
    assert store.names() == ["out/mine.txt"]
    # A dataset is never what was left.
    made = released(store.uri("dataset"))
    targets._sweep(place_of(made.path))
    assert safegen.verify(made.path, deep=True)


def test_a_claim_of_a_killed_run_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(f"out/{CLAIM}{new_ulid()}", b"")
    monkeypatch.setattr(targets, "_DEAD_S", 3.0)
    began = time.monotonic()
    made = released(store.uri("out"))
    assert 1 < time.monotonic() - began < 30
    assert safegen.verify(made.path)


def test_a_signature_that_a_killed_run_left_is_not_taken_for_ours(store: Store) -> None:
    store.put(f"out/{SIGNATURE_NAME}", b"{}")
    made = released(store.uri("out"))
    assert safegen.verify(made.path)
    assert f"out/{SIGNATURE_NAME}" not in store.names()


def test_signed_in_a_store(store: Store, key: Path, other_key: Path) -> None:
    made = released(store.uri("out"), key=key)
    assert safegen.verify(made.path, trusted_keys=[f"{key}.pub"])
    with pytest.raises(safegen.VerificationError):
        safegen.verify(made.path, trusted_keys=[f"{other_key}.pub"])
    later = released(store.uri("later"))
    assert cli("sign", later.path, "--key", other_key).code == 0
    assert safegen.verify(later.path, trusted_keys=[f"{other_key}.pub"])


# ---- a store that fails --------------------------------------------------------------------------


@pytest.mark.parametrize("arrives", [False, True])
def test_a_manifest_that_may_have_arrived_names_no_deleted_rows(
    arrives: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = StorePath.write_bytes

    def fails(place: StorePath, data: bytes) -> None:
        if place.name != MANIFEST_NAME or arrives:
            plain(place, data)
        if place.name == MANIFEST_NAME:
            raise StoreError(place, "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(StorePath, "write_bytes", fails)
        with pytest.raises(safegen.TargetError, match="nothing was published"):
            released(store.uri("out"))
    assert store.names() == []
    assert safegen.verify(released(store.uri("out")).path)


def test_rows_that_went_away_are_not_published(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = targets._StoreStaging._complete

    def swept(stage: targets._StoreStaging) -> None:
        store.delete(f"out/{stage.dataset_id}/data/part-00000.parquet")
        plain(stage)

    with monkeypatch.context() as patch:
        patch.setattr(targets._StoreStaging, "_complete", swept)
        with pytest.raises(safegen.TargetError, match="were removed"):
            released(store.uri("out"))
    assert store.names() == []


def test_a_held_up_run_does_not_publish_late(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its claim may be taken for that of a killed run by then."""
    monkeypatch.setattr(targets, "_LATEST_S", -1.0)
    with pytest.raises(safegen.TargetError, match="too slow"):
        released(store.uri("out"))
    assert store.names() == []


class _Forbids(http.server.BaseHTTPRequestHandler):
    def _no(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _no

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def forbidding() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Forbids) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_every_failure_is_said_in_a_sentence(
    world: World,
    store: Store,
    forbidding: str,
    silent: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("_CONNECT_S", 1.0), ("_SILENT_S", 1.0), ("_ATTEMPTS", 1)):
        monkeypatch.setattr(stores, name, value)
    stores._connected.cache_clear()
    nowhere = silent.rpartition(":")[0] + ":9"
    cases = [
        (store.server, "s3://no-such-bucket/x.csv", "no such bucket"),
        (store.server, store.uri("x.csv"), "no such file"),
        (forbidding, store.uri("x.csv"), "no access"),
        (silent, store.uri("x.csv"), "did not answer in time"),
        (nowhere, store.uri("x.csv"), "cannot be reached"),
    ]
    arguments = ("generate", "--model", world.model, "--rows", 150, "--out")
    for endpoint, uri, said in cases:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        began = time.monotonic()
        for command in ("check", "inspect", "scan", "verify"):
            ran = cli(command, uri)
            assert ran.code == (4 if command == "verify" and said.startswith("no such") else 2)
            assert said in ran.err or (command == "scan" and "no folder" in ran.err), ran
            assert uri in ran.err
            assert "Traceback" not in ran.err
        if said != "no such file":
            ran = cli(*arguments, uri)
            assert (ran.code, said in ran.err) == (1, True), ran
            assert "nothing was published" in ran.err
        assert time.monotonic() - began < 30
    stores._connected.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.server)
    assert safegen.verify(released(store.uri("out")).path)


def test_what_cannot_be_written_beside_is_attested_in_the_ledger(
    world: World, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(place: StorePath, data: bytes) -> None:
        raise StoreError(place, "no access", 13)

    world.rows(500, 71).to_csv(tmp_path / "rows.csv", index=False)
    uri = store.put("raw/rows.csv", tmp_path / "rows.csv")
    with monkeypatch.context() as patch:
        patch.setattr(StorePath, "write_bytes", forbidden)
        assert cli("attest", uri, "--by", "an attack test").code == 0
    assert store.names() == ["raw/rows.csv"]
    assert cli("check", uri, "--policy", "strict").code == 0


# ---- laundering ----------------------------------------------------------------------------------


def test_a_scan_finds_what_is_synthetic_and_admits_what_is_honest(
    world: World, store: Store, tmp_path: Path
) -> None:
    """Re-saved as a CSV without any stamp, and put into a bucket among real files."""
    made = world.dataset.to_pandas()
    made.to_csv(tmp_path / "washed.csv", index=False)
    washed = store.put("lake/2026/washed.csv", tmp_path / "washed.csv")
    world.rows(900, 81).to_csv(tmp_path / "honest.csv", index=False)
    honest = store.put("lake/2026/honest.csv", tmp_path / "honest.csv")
    store.put("lake/notes.txt", b"nothing")
    store.put("lake/.hidden/x.csv", b"a\n1\n")
    assert cli("attest", honest, "--by", "an attack test").code == 0
    release = released(store.uri("lake/release"))
    ran = cli("scan", store.uri("lake"), "--json")
    assert ran.code == 0, ran.err
    found = {one["path"]: one for one in json.loads(ran.out)}
    assert set(found) == {washed, honest, str(release.path)}
    assert found[washed]["synthetic_share"] == 1.0
    assert (found[honest]["origin"], found[honest]["ancestry"]) == ("real", "attested")
    assert found[str(release.path)]["dataset_id"] == release.manifest.dataset_id
    assert is_refused_as_synthetic(check(washed))
    assert check(honest, policy="strict").allowed
    assert cli("attest", washed, "--by", "a liar").code == 3
    assert {one["path"] for one in json.loads(cli("scan", f"s3://{store.bucket}", "--json").out)}


def test_a_forged_sidecar_in_a_store_makes_nothing_real(
    world: World, store: Store, tmp_path: Path, no_ledger: Path
) -> None:
    world.dataset.to_pandas().to_csv(tmp_path / "washed.csv", index=False)
    washed = store.put("washed.csv", tmp_path / "washed.csv")
    world.rows(900, 82).to_csv(tmp_path / "honest.csv", index=False)
    honest = store.put("honest.csv", tmp_path / "honest.csv")
    safegen.attest(honest, by="Ada", ledger=tmp_path / "elsewhere.db")
    sidecar = store.get("honest.csv.safegen.json")
    assert any("Ada" in e.text for f in [_facts(honest)] for e in f.evidence)
    store.put("washed.csv.safegen.json", sidecar)
    assert "of other content" in str([e.text for e in _facts(washed).evidence])
    assert _facts(washed).origin == "unknown"


def _facts(source: str) -> safegen.lineage.facts.SourceFacts:
    from safegen.lineage.evidence import resolve
    from safegen.tables.sources import read_source

    return resolve(read_source(source), None)


def test_a_part_of_another_run_cannot_be_slipped_in(world: World, store: Store) -> None:
    """A consistent rewrite that names a path of another run: the ledger knows better."""
    made = world.generator.generate(ROWS, store.uri("out"))
    other = released(store.uri("other"))
    document = json.loads(store.get(f"out/{MANIFEST_NAME}"))
    theirs = other.manifest.dataset_id
    for name in store.names(f"other/{theirs}/"):
        store.put(name.replace("other/", "out/", 1), store.get(name))
    assert safegen.verify(made.path)  # nobody names it
    document["files"] = json.loads(store.get(f"other/{MANIFEST_NAME}"))["files"]
    body = {k: v for k, v in document.items() if k != "digest"}
    forged = forging.canonical_bytes({**body, "digest": forging.digest_of(body)})
    store.put(f"out/{MANIFEST_NAME}", forged)
    with pytest.raises(safegen.VerificationError):
        safegen.verify(made.path)


# ---- secrets -------------------------------------------------------------------------------------

PASSWORD = "hunter2-is/not+shown"
WITH_SECRETS = [
    f"s3://AKIA:{PASSWORD}@bucket/key.csv",
    f"s3://AKIA:{PASSWORD.replace('/', '%2F')}@bucket/key.csv",
    f"s3://{PASSWORD[:10]}@bucket/key.csv",
    f"s3://bucket/key.csv?secret_key={PASSWORD}",
    f"s3://bucket/key.csv?X-Amz-Signature={PASSWORD}",
    f"gs://bucket/key.csv?access_token={PASSWORD}",
    f"gs://me:{PASSWORD}@bucket",
    f"https://me:{PASSWORD}@host/key.csv",
    f"hdfs://me:{PASSWORD}@host/key.csv",
    f"s3:///{PASSWORD}",
]


@pytest.mark.parametrize("uri", WITH_SECRETS)
def test_a_uri_with_a_secret_is_refused_and_shown_to_nobody(
    uri: str, world: World, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ("generate", "--model", world.model, "--rows", 150)
    commands = (
        *((command, uri) for command in ("check", "verify", "inspect", "lineage", "scan")),
        ("check", f"people={uri}"),
        ("attest", uri, "--by", "Ada"),
        ("export", uri, "--format", "card"),
        (*model, "--out", uri),
        (*model, "--out", uri, "--if-exists", "same"),
        ("fit", world.real, "--save", uri),
    )
    for command in commands:
        ran = cli(*command)
        assert ran.code == 2, (command[0], ran)
        for part in ("hunter2", "shown"):
            assert part not in ran.out + ran.err
    assert list(tmp_path.iterdir()) == []
    assert store.names() == []


def test_a_stated_uri_keeps_no_secret(world: World, store: Store, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    for i, uri in enumerate([*WITH_SECRETS[:9], f"https://h/x#access_token={PASSWORD}"]):
        world.rows(300, 90 + i).to_csv(rows, index=False)
        manifest = safegen.attest(rows, by="Ada", source_uri=uri)
        assert "hunter2" not in str(manifest.document())
        assert "hunter2" not in (tmp_path / "rows.csv.safegen.json").read_text()
    for honest in (
        "https://example.org/data/adult.csv?version=3&format=csv#rows",
        "s3://bucket/people/2026",
        "https://doi.org/10.24432/C5XW20",
        "the census of 2020",
    ):
        assert redacted(honest) == honest


def test_the_environments_secret_is_written_nowhere(
    world: World, store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = store.uri("out")
    source = store.put("real.parquet", world.real)
    said = [
        cli("generate", "--model", world.model, "--rows", ROWS, "--out", out),
        cli("generate", "--model", world.model, "--rows", ROWS, "--out", out),
        cli("check", source),
        cli("verify", out, "--deep", "--json"),
        cli("lineage", out),
        cli("export", out, "--format", "croissant"),
        cli("check", store.uri("nothing.csv")),
    ]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(stores, "_ATTEMPTS", 1)
    said.append(cli("check", source))
    assert [ran.code for ran in said] == [0, 1, 0, 0, 0, 0, 2, 2]
    assert not any(s in ran.out + ran.err for ran in said for s in (SECRET, "AKIATEST"))
    for name in store.names():
        assert SECRET.encode() not in store.get(name)
    for path in (p for p in home.rglob("*") if p.is_file()):
        assert SECRET.encode() not in path.read_bytes()
    assert SECRET in os.environ.values()
