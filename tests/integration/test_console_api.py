"""Whatever is asked of the console's JSON, it answers: requests made from its own description."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from console_world import World, world


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("console"))


@pytest.fixture(scope="module")
def api(desk: World) -> Any:
    return schemathesis.openapi.from_asgi(
        "/api/v1/openapi.json", desk.client.app, headers={"host": "localhost"}
    )


def test_no_request_is_too_strange(api: Any, desk: World) -> None:
    """Every operation, asked by somebody who may do everything."""
    desk.enter()
    cookies = {"safegen_session": desk.client.cookies["safegen_session"]}
    headers = {"host": "localhost", "x-safegen-token": desk.token()}
    known = {"name": "own.yaml", "dataset_id": next(iter(desk.made.records)), "seq": desk.refused}
    met: dict[str, set[int]] = {}
    for found in api.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def asked(case: Any) -> None:
            here = dict(case.path_parameters or {})
            for there in (here, {k: known[k] for k in here}) if here else (here,):
                case.path_parameters = there
                answer = case.call(headers=headers, cookies=cookies)
                met.setdefault(case.operation.label, set()).add(answer.status_code)
                assert answer.status_code < 500
                answer.json()

        asked()
    assert len(met) > 14
    assert all(met[label] & {200, 404, 409, 422} for label in met)
    assert 200 in met["GET /api/v1/overview"]
    assert 200 in met["POST /api/v1/policies/{name}/lint"]
