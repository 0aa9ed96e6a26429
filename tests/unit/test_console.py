"""The console: its pages, the same as JSON, drafts of policies, and who may save them."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import safegen
from console_world import PASSWORD, World, shown, world
from safegen.console.app import console
from safegen.console.door import Door, TooMany
from safegen.console.files import digest_of
from safegen.policy import Policy, lint

WAIVER = """
waivers:
  - id: W-1
    rule: lineage
    params: {{max_depth: 2.0}}
    reason: a reason
    ticket: T-1
    requested_by: Ada
    approved_by: [Grace]
    expires: {day}
"""


@pytest.fixture
def desk(tmp_path: Path) -> World:
    return world(tmp_path)


def waived(text: str, days: int) -> str:
    return text.replace("waivers: []\n", "") + WAIVER.format(day=date.today() + timedelta(days))


def pages(desk: World) -> list[str]:
    """Every page that there is, by what links lead to and by what is in the ledger."""
    ids = list(desk.made.records)
    return [
        "/",
        "/datasets",
        "/datasets?q=customers&origin=real&state=withdrawn",
        *(f"/datasets/{i}" for i in ids),
        *(f"/datasets/{i}/report" for i in ids),
        "/decisions",
        "/decisions?verdict=refused&rule=lineage",
        f"/decisions/{desk.refused}",
        "/policies",
        "/policies/own.yaml",
        "/policies/baseline",
        "/policies/own.yaml/edit",
        "/policies/own.yaml/edit?waive=lineage",
        "/waivers",
        "/controls",
        "/login",
    ]


def test_every_page_answers(desk: World) -> None:
    for path in pages(desk):
        answer = desk.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_empty_ledger_has_pages_too(tmp_path: Path) -> None:
    books = safegen.ledger.open_ledger(tmp_path / "empty.db")
    client = TestClient(console(books), "http://localhost")
    for path in ("/", "/datasets", "/decisions", "/policies", "/waivers", "/controls"):
        assert client.get(path).status_code == 200, path


def test_the_overview_counts(desk: World) -> None:
    said = desk.client.get("/api/v1/overview").json()
    assert said["datasets"] == len(desk.made.records)
    assert said["refusals"] == 1
    assert said["withdrawn"] > 1  # what was made from it, too
    assert said["use"]["synthetic_share"] == pytest.approx(
        said["use"]["synthetic_rows"]
        / sum(said["use"][k] for k in ("real_rows", "synthetic_rows", "unknown_rows"))
    )


def test_datasets_are_found(desk: World) -> None:
    found = desk.client.get("/api/v1/datasets", params={"q": "customers"}).json()
    assert [d["origin"] for d in found["datasets"]] == ["real"]
    one = found["datasets"][0]["dataset_id"]
    told = desk.client.get(f"/api/v1/datasets/{one}").json()
    assert told["manifest"] == desk.made.records[one].manifest
    assert told["withdrawn"]["dataset_id"] == one
    assert len(told["made_into"]) == 7
    assert desk.client.get("/api/v1/datasets", params={"q": "nothing"}).json()["total"] == 0
    assert desk.client.get(f"/datasets/{'0' * 26}").status_code == 404


def test_a_refusal_says_why_what_next_and_whom_to_ask(desk: World) -> None:
    page = shown(desk.client.get(f"/decisions/{desk.refused}").text)
    assert "Refused by policy own 1.0.0" in page
    assert "lineage/depth" in page
    assert "Ask:" in page
    assert "Draft a waiver of lineage" in page
    assert desk.client.get("/decisions/1").status_code == 404  # an entry that is no decision
    said = desk.client.get(f"/api/v1/decisions/{desk.refused}").json()
    assert said["allowed"] is False


def test_a_drafted_waiver_waits_to_be_filled_in(desk: World) -> None:
    page = desk.client.get("/policies/own.yaml/edit?waive=lineage").text
    assert "rule: lineage" in page
    assert "# max_depth: 0.0" in page
    assert "waivers: []" not in page  # of which there may be one only
    desk.own.write_text(waived(desk.own.read_text(), 9))
    again = desk.client.get("/policies/own.yaml/edit?waive=privacy").text
    assert again.index("rule: privacy") < again.index("id: W-1")


def test_a_policy_says_what_each_value_means_and_who_set_it(desk: World) -> None:
    page = shown(desk.client.get("/policies/own.yaml").text)
    assert "Pooled effective depth that training data may have." in page
    line = desk.own.read_text().splitlines().index("    max_depth: 0.0  # real rows only") + 1
    assert f"own.yaml:{line}" in page.replace(" ", "")
    said = desk.client.get("/api/v1/policies/own.yaml").json()
    assert said["digest"] == Policy.load(desk.own).digest
    assert said["text"] == desk.own.read_text()


def test_a_file_that_is_no_policy_is_shown_as_that(desk: World) -> None:
    (desk.policies / "broken.yaml").write_text("schema: safegen.policy/v1\nid: [\n")
    assert "admits nothing" in desk.client.get("/policies/broken.yaml").text
    assert "1 problem" in desk.client.get("/policies").text
    assert "broken.yaml cannot be read" in desk.client.get("/waivers").text


def test_lint_is_that_of_the_command_line(desk: World) -> None:
    text = desk.own.read_text().replace("max_depth: 0.0", "max_dept: high")
    status, said = desk.api("policies/own.yaml/lint", text=text)
    assert status == 200
    (desk.policies / "other.yaml").write_text(text)
    problems = lint(desk.policies / "other.yaml")
    assert said["problems"] == [{"line": p.line, "message": p.message} for p in problems]
    assert problems
    status, said = desk.api("policies/own.yaml/lint", text=desk.own.read_text())
    assert (status, said["problems"]) == (200, [])


def test_a_draft_is_compared_with_the_file_and_with_what_it_extends(desk: World) -> None:
    parent = Policy.load(desk.own)
    text = (
        "schema: safegen.policy/v1\nid: child\nversion: '1'\n"
        f"extends: {{policy: ./own.yaml, digest: '{parent.digest}'}}\n"
        "rules: {lineage: {unattested: refuse}}\n"
    )
    status, said = desk.api("policies/child.yaml/diff", text=text)
    assert status == 200
    assert said["file"] is None
    assert said["parent"]["from"]["id"] == "own"
    assert [d["change"] for d in said["parent"]["differences"]] == ["TIGHTEN"]
    looser = desk.own.read_text().replace("max_depth: 0.0", "max_depth: 2.0")
    status, said = desk.api("policies/own.yaml/diff", text=looser)
    assert said["file"]["loosens"] == 1
    form = {"token": desk.token(), "text": looser, "do": "diff"}
    page = shown(desk.client.post("/policies/own.yaml/edit", data=form).text)
    assert "loosen lineage." in page


def test_a_draft_is_replayed(desk: World) -> None:
    text = desk.own.read_text().replace("max_depth: 0.0", "max_depth: 9.0")
    status, said = desk.api("policies/own.yaml/replay", text=text, days=0, own=False)
    assert status == 200
    assert (said["decisions"], said["policy"]["id"]) == (2, "own")  # type: ignore[index]
    status, said = desk.api("policies/own.yaml/replay", text=text, days=0)
    assert (status, said["decisions"]) == (200, 1)
    form = {"token": desk.token(), "text": text, "do": "replay", "days": "0", "of": "all"}
    page = shown(desk.client.post("/policies/own.yaml/edit", data=form).text)
    assert "Of 2 decisions" in page
    form["days"] = "-1"
    assert desk.client.post("/policies/own.yaml/edit", data=form).status_code == 422
    assert desk.api("policies/own.yaml/replay", text="id: [", days=0)[0] == 422


def test_a_patch_makes_the_file(desk: World, tmp_path: Path) -> None:
    text = desk.own.read_text().replace("max_depth: 0.0", "max_depth: 1.0").rstrip("\n")
    form = {"token": desk.token(), "text": text, "do": "download"}
    answer = desk.client.post("/policies/own.yaml/edit", data=form)
    assert answer.headers["content-disposition"] == 'attachment; filename="own.yaml.patch"'
    assert text != desk.own.read_text()  # nothing is changed by asking
    subprocess.run(
        ["patch", "-p1"], input=answer.content, cwd=desk.policies, check=True, capture_output=True
    )
    assert desk.own.read_text() == text


def test_whoever_signs_in_may_save_and_the_ledger_says_so(desk: World) -> None:
    assert desk.enter() == 303
    text = desk.own.read_text().replace("max_depth: 0.0", "max_depth: 1.0")
    was = digest_of(desk.own.read_text())
    status, _ = desk.api("policies/own.yaml", text=text, was=was)
    assert status == 200
    assert desk.own.read_text() == text
    (entry,) = desk.audit()
    assert entry["by"] == "Ada Example"
    assert entry["change"] == "policy saved"
    assert entry["file"] == "own.yaml"
    assert (entry["before"], entry["after"]) == (was, digest_of(text))
    assert entry["loosens"] == 1
    assert entry["policy"]["digest"] == Policy.load(desk.own).digest  # type: ignore[index]


def test_a_form_saves_a_shipped_policy_under_a_name_of_ones_own(desk: World) -> None:
    desk.enter()
    text = desk.client.get("/api/v1/policies/strict").json()["text"].replace("id: strict", "id: x")
    form = {"token": desk.token(), "text": text.replace("\n", "\r\n"), "do": "save"}
    assert desk.client.post("/policies/strict/edit", data=form).status_code == 409
    answer = desk.client.post("/policies/strict/edit", data={**form, "name": "x.yaml"})
    assert answer.status_code == 200
    assert (desk.policies / "x.yaml").read_text() == text
    again = desk.client.post("/policies/strict/edit", data={**form, "name": "x.yaml"})
    assert again.status_code == 409  # it would overwrite what is there now


def test_what_has_problems_is_not_saved(desk: World) -> None:
    desk.enter()
    before = desk.own.read_text()
    status, said = desk.api("policies/own.yaml", text="id: [", was=digest_of(before))
    assert status == 422
    assert "line" in str(said["detail"])
    assert desk.own.read_text() == before
    assert desk.audit() == []


def test_a_file_that_was_changed_meanwhile_is_not_overwritten(desk: World) -> None:
    desk.enter()
    text, was = desk.own.read_text(), digest_of(desk.own.read_text())
    desk.own.write_text(text + "# somebody else's\n")
    status, _ = desk.api("policies/own.yaml", text=text + "# mine\n", was=was)
    assert status == 409
    assert desk.own.read_text() == text + "# somebody else's\n"


def test_no_change_without_its_audit_entry(desk: World) -> None:
    desk.enter()
    before, token = desk.own.read_text(), desk.token()
    desk.ledger.close()
    answer = desk.client.post(
        "/api/v1/policies/own.yaml",
        json={"text": before + "# more\n", "was": digest_of(before)},
        headers={"x-safegen-token": token},
    )
    assert answer.status_code == 503
    assert desk.own.read_text() == before


def test_waivers_are_listed_the_next_to_expire_first(desk: World) -> None:
    text = desk.own.read_text()
    for name, days in (("later", 80), ("soon", 9), ("over", -3)):
        (desk.policies / f"{name}.yaml").write_text(
            waived(text.replace("id: own", f"id: {name}"), days).replace("W-1", f"W-{name}")
        )
    found = desk.client.get("/api/v1/waivers").json()["waivers"]
    assert [(w["id"], w["state"]) for w in found] == [
        ("W-soon", "expiring"),
        ("W-later", "open"),
        ("W-over", "expired"),
    ]
    page = shown(desk.client.get("/waivers").text)
    assert "1 waiver will expire within 30 days" in page
    assert desk.client.get("/api/v1/overview").json()["waivers"]["expired"] == 1


def test_controls_name_the_last_decision_about_each_rule(desk: World) -> None:
    said = desk.client.get("/api/v1/controls").json()
    lineage = [c for c in said["cells"] if c["control"]["rule"] == "lineage"]
    assert {c["last"]["entry"] for c in lineage} == {desk.refused}
    assert {c["last"]["outcome"] for c in lineage} == {"block"}
    assert f"#{desk.refused}" in shown(desk.client.get("/controls").text)
    page = shown(desk.client.get("/controls?framework=eu-ai-act&policy=own.yaml").text)
    assert "Art. 10" in page
    assert "MEASURE" not in page
    for wrong in ("framework=x", "policy=x", "policy=../secret.yaml"):
        assert desk.client.get(f"/controls?{wrong}").status_code == 404
    again = desk.made.decision(next(iter(desk.made.records.values())))  # what is new counts
    said = desk.client.get("/api/v1/controls").json()
    assert {c["last"]["entry"] for c in said["cells"] if c["control"]["rule"] == "lineage"} == {
        again.seq
    }


def test_a_session_ends_with_signing_out(desk: World) -> None:
    assert desk.enter() == 303
    assert desk.client.get("/api/v1/session").json()["by"] == "Ada Example"
    desk.client.post("/logout", data={"token": desk.token()})
    assert desk.client.get("/api/v1/session").json()["by"] is None


def test_a_session_ends_by_itself() -> None:
    now = [0.0]
    door = Door(PASSWORD, lambda: now[0])
    cookie = door.enter(PASSWORD, "Ada", "127.0.0.1")
    assert door.session(cookie).by == "Ada"
    now[0] += 13 * 3600
    assert door.session(cookie).by is None


def test_wrong_passwords_are_slowed_down_and_forgotten() -> None:
    now = [0.0]
    door = Door(PASSWORD, lambda: now[0])
    for _ in range(5):
        assert door.enter("guess", "Eve", "10.0.0.1") is None
    with pytest.raises(TooMany) as slow:
        door.enter(PASSWORD, "Eve", "10.0.0.1")
    assert slow.value.seconds == 60
    assert door.enter(PASSWORD, "Ada", "10.0.0.2")  # from elsewhere
    now[0] += 61
    assert door.enter(PASSWORD, "Ada", "10.0.0.1")


def test_a_machine_without_the_extra_is_told_what_to_install() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from safegen.cli import main; main(['serve', '--ledger', 'x.db'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'safegen[console]'" in done.stderr


def test_serving_loads_no_data_library() -> None:
    code = (
        "import sys, safegen.console.app\n"
        "print([m for m in ('torch', 'sdv', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
