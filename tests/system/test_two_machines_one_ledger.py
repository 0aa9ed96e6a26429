"""The story on two machines with one ledger on a server: attest, generate, check, be refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import safegen
from postgres_server import Postgres
from safegen.cli import main
from safegen.ledger import open_ledger
from safegen.testing import example_table

pytestmark = pytest.mark.system
Machine = Callable[[str], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Go to a machine: a home of its own, the same organisation file."""

    def go(name: str) -> None:
        for folder in ("DATA", "CONFIG", "CACHE"):
            monkeypatch.setenv(f"XDG_{folder}_HOME", str(tmp_path / name / folder.lower()))

    return go


@pytest.fixture
def address(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A ledger that an organisation file pins, and that nobody has founded yet."""
    with postgres.database() as name:
        url = postgres.url(name)
        (tmp_path / "org.yaml").write_text(f'schema: safegen.org/v1\nledger: "{url}"\n')
        monkeypatch.setenv("SAFEGEN_ORG", str(tmp_path / "org.yaml"))
        yield url


def cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(str(ended.value.code or 0))


def test_what_one_machine_releases_the_other_one_knows(
    machine: Machine, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, out = tmp_path / "real.parquet", tmp_path / "out"
    pq.write_table(example_table(1_200), real)
    machine("first")
    assert cli("attest", real, "--by", "Ada") == 0
    assert cli("generate", real, "--policy", "lab", "--rows", 900, "--out", out) == 0
    made = safegen.open(out, policy="lab")
    assert {d["ledger"]["url"] for d in made.manifest.decisions} == {address}
    bare = tmp_path / "bare.csv"
    made.to_pandas().head(600).to_csv(bare, index=False)

    machine("second")
    # Without the ledger's key copies cannot be found, which is said, and refused.
    decision = safegen.check(bare, policy="baseline")
    assert "lineage/ledger" in {r.finding.name for r in decision.reasons}
    ledger_id = open_ledger().ledger_id
    keys = tmp_path / "second" / "config" / "safegen" / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / f"first/config/safegen/keys/{ledger_id}.json", keys)
    decision = safegen.check(bare, policy="baseline")
    assert "lineage/ledger" not in {r.finding.name for r in decision.reasons}
    assert any("synthetic" in str(r) for r in decision.reasons)
    assert not decision.allowed
    assert cli("check", bare) == 3
    assert cli("check", real) == 0
    frame = pd.read_parquet(real).sample(frac=1.0, random_state=1)
    frame.to_csv(tmp_path / "again.csv", index=False)
    assert safegen.check(tmp_path / "again.csv", policy="strict").allowed  # a re-saved copy
    assert cli("verify", out) == 0
    assert (
        cli("ledger", "withdraw", made.manifest.dataset_id, "--by", "Grace", "--reason", "x") == 0
    )

    machine("first")
    assert cli("verify", out) == 4
    assert cli("ledger", "verify") == 0
    assert f"VERIFIED {address}" in capsys.readouterr().out
    assert cli("check", real, "--ledger", tmp_path / "own.db") == 2  # another one is pinned
    assert cli("ledger", "copy", tmp_path / "backup.db") == 0
    assert (tmp_path / "backup.db").is_file()
