"""Tasks of Airflow: a refusal is no reason to try again, a fault is."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import safegen
from safegen.errors import LedgerError, PolicyError
from safegen.testing import example_table


class _Operator:
    """A stand-in for Airflow's BaseOperator."""

    def __init__(self, task_id: str, **kwargs: Any):
        self.task_id = task_id


class _Fail(Exception):
    """A stand-in for AirflowFailException."""


@pytest.fixture(
    params=["stand-in", pytest.param("Airflow", marks=pytest.mark.slow)],
)
def tasks(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """safegen.airflow, and the exception that is never retried."""
    if request.param == "stand-in":
        for name in ("airflow", "airflow.sdk", "airflow.sdk.exceptions"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["airflow.sdk"].BaseOperator = _Operator  # type: ignore[attr-defined]
        sys.modules["airflow.sdk.exceptions"].AirflowFailException = _Fail  # type: ignore[attr-defined]
    else:
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
        pytest.importorskip("airflow.sdk", reason="pip install --group airflow")
    monkeypatch.delitem(sys.modules, "safegen.airflow", raising=False)
    yield importlib.import_module("safegen.airflow")
    sys.modules.pop("safegen.airflow", None)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    path = tmp_path / "real.parquet"
    pq.write_table(example_table(50), path)
    safegen.attest(path, by="a test")
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_refusal_fails_for_good_and_a_fault_is_retried(
    tasks: Any, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted = tasks.GuardOperator(task_id="admitted", sources=str(real), policy="baseline")
    assert admitted.execute({})["allowed"]

    forever = tasks.AirflowFailException
    refused = tasks.GuardOperator(task_id="refused", sources=[str(real)], policy="strict")
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "empty.db"))
    with pytest.raises(forever, match="REFUSED at the admission gate"):
        refused.execute({})
    wrong = tasks.GuardOperator(task_id="wrong", sources=str(real), policy="no-such-policy")
    with pytest.raises(forever, match="no-such-policy"):
        wrong.execute({})

    @tasks.refusals_fail()
    def work(error: Exception) -> None:
        raise error

    with pytest.raises(LedgerError):
        work(LedgerError("busy"))
    with pytest.raises(ZeroDivisionError):
        work(ZeroDivisionError())
    with pytest.raises(forever):
        work(PolicyError(["wrong"]))


def test_without_airflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("airflow", "airflow.sdk", "airflow.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "safegen.airflow", raising=False)
    with pytest.raises(safegen.MissingExtra, match="pip install apache-airflow"):
        importlib.import_module("safegen.airflow")
