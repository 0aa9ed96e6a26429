"""Ways into the console, and out of the folder that it may write: each with its honest twin."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from console_world import EVIL, PASSWORD, World, world
from safegen.console.files import digest_of
from safegen.console.guard import MAX_BODY
from safegen.console.layout import day, link, moment, tag
from safegen.policy.document import MAX_BYTES


@pytest.fixture
def desk(tmp_path: Path) -> World:
    return world(tmp_path)


# ---- markup ------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """What a browser would run or fetch of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.strange: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        if tag in ("iframe", "img", "object", "embed", "base"):
            self.strange.append(tag)
        if tag == "script" and given.get("src") not in ("/editor.js", "/lineage.js"):
            self.strange.append(str(given))
        for name, value in given.items():
            if name.startswith("on") or name == "style":
                self.strange.append(f"{tag} {name}={value}")
            if name in ("href", "src", "action") and not value.startswith(("/", "#", "data:,")):
                self.strange.append(f"{tag} {name}={value}")
            if name in ("href", "src", "action") and value.startswith("//"):
                self.strange.append(f"{tag} {name}={value}")


def found(html: str) -> list[str]:
    reader = Reader()
    reader.feed(html)
    return reader.strange


def test_names_and_texts_are_no_markup(desk: World) -> None:
    desk.own.write_text(desk.own.read_text().replace("your data governance team", f"'{EVIL[0]}'"))
    paths = ["/", "/datasets", "/decisions", f"/decisions/{desk.refused}", "/policies/own.yaml"]
    paths += [f"/datasets/{i}" for i in desk.made.records]
    paths += ["/policies/own.yaml/edit", "/policies", "/waivers", "/lineage"]
    met: set[str] = set()
    for path in paths:
        page = desk.client.get(path).text
        assert found(page) == [], path
        met |= {e for e in EVIL[:2] if e.replace("<", "&lt;").replace(">", "&gt;")[:12] in page}
        assert "\u202e" not in page
        assert "\x1b" not in page
    assert met  # they were there, as text


def test_a_reader_sees_what_would_run() -> None:
    assert found("<script>x</script><p onclick=a></p><a href=//evil></a><img src=/x>") != []
    assert found('<script src="/editor.js"></script><a href="/datasets">x</a>') == []


@pytest.mark.parametrize("evil", EVIL)
def test_what_is_asked_for_is_no_markup(desk: World, evil: str) -> None:
    for path in ("/datasets", "/decisions", "/login"):
        answer = desk.client.get(path, params={"q": evil, "to": evil, "policy": evil, "rule": evil})
        assert answer.status_code in (200, 422)
        assert found(answer.text) == []
    form = {"token": desk.token(), "text": evil, "was": evil, "do": "diff", "name": evil}
    answer = desk.client.post("/policies/own.yaml/edit", data=form)
    assert answer.status_code == 422
    assert found(answer.text) == []


def test_a_report_runs_nothing(desk: World) -> None:
    for dataset_id in desk.made.records:
        answer = desk.client.get(f"/datasets/{dataset_id}/report")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "script-src" not in answer.headers["content-security-policy"]


# ---- paths ---------------------------------------------------------------------------------------

OUT = [
    "../secret.yaml",
    "..%2fsecret.yaml",
    "%2e%2e%2fsecret.yaml",
    "..%5csecret.yaml",
    "....//secret.yaml",
    "own.yaml%00.txt",
    "%2fetc%2fpasswd",
    ".hidden.yaml",
    "own.yaml/..%2f..%2fsecret.yaml",
    "a" * 200 + ".yaml",
]


@pytest.mark.parametrize("name", OUT)
def test_no_name_leads_out_of_the_folder(desk: World, name: str) -> None:
    before = sorted(p.name for p in desk.policies.parent.rglob("*.yaml"))
    desk.enter()
    for path in (f"/policies/{name}", f"/policies/{name}/edit", f"/api/v1/policies/{name}"):
        answer = desk.client.get(path)
        assert answer.status_code in (404, 422), path
        assert "not in the folder" not in answer.text
    text = desk.own.read_text()
    answer = desk.client.post(
        f"/api/v1/policies/{name}",
        json={"text": text, "was": digest_of("")},
        headers={"x-safegen-token": desk.token()},
    )
    assert answer.status_code in (404, 405, 422)
    form = {"token": desk.token(), "text": text, "do": "save", "name": name}
    answer = desk.client.post("/policies/baseline/edit", data=form)
    assert answer.status_code == 422
    assert sorted(p.name for p in desk.policies.parent.rglob("*.yaml")) == before
    assert desk.audit() == []


def test_no_link_leads_out_of_the_folder(desk: World) -> None:
    (desk.policies / "link.yaml").symlink_to(desk.policies.parent / "secret.yaml")
    assert desk.client.get("/policies/link.yaml").status_code == 404
    assert "link.yaml" not in desk.client.get("/policies").text
    os.link(desk.own, desk.policies / "honest.yaml")
    assert desk.client.get("/policies/honest.yaml").status_code == 200


@pytest.mark.parametrize(
    "named", ["../secret.yaml", "{folder}/secret.yaml", "link.yaml", "/etc/passwd"]
)
def test_no_text_has_another_file_read(desk: World, named: str) -> None:
    """Problems quote a file: whoever sends a text may not choose which."""
    (desk.policies / "link.yaml").symlink_to(desk.policies.parent / "secret.yaml")
    named = named.format(folder=desk.policies.parent)
    text = (
        "schema: safegen.policy/v1\nid: child\nversion: '1'\n"
        f"extends: {{policy: {named}, digest: 'sha256:{'0' * 64}'}}\n"
    )
    for name in ("child.yaml", "own.yaml", "baseline"):
        status, said = desk.api(f"policies/{name}/lint", text=text)
        assert status == 200
        (problem,) = said["problems"]
        assert problem["line"] == 4
        assert "the editor follows" in problem["message"]
        assert desk.api(f"policies/{name}/diff", text=text)[0] == 422
    for honest in ("./own.yaml", "own.yaml", "baseline"):
        status, said = desk.api("policies/child.yaml/lint", text=text.replace(named, honest))
        assert any("is not the policy that is pinned" in p["message"] for p in said["problems"])
    # What the file on disk extends already was chosen by whoever wrote it.
    (desk.policies / "child.yaml").write_text(text)
    _, said = desk.api("policies/child.yaml/lint", text=text)
    assert not any("the editor follows" in p["message"] for p in said["problems"])


# ---- forged requests -----------------------------------------------------------------------------


def _save(desk: World, headers: dict[str, str], token: str | None = None) -> int:
    text = desk.own.read_text()
    form = {"text": text, "was": digest_of(text), "do": "save"}
    form |= {} if token is None else {"token": token}
    answer = desk.client.post("/policies/own.yaml/edit", data=form, headers=headers)
    return answer.status_code


def test_a_form_of_another_page_is_refused(desk: World) -> None:
    desk.enter()
    token = desk.token()
    assert _save(desk, {"origin": "http://localhost"}, token) == 200
    for headers, given in (
        ({}, None),
        ({}, "guess"),
        ({}, ""),
        ({"origin": "http://evil.example"}, token),
        ({"origin": "null"}, token),
        ({"origin": "http://localhost:9999"}, token),
        ({"sec-fetch-site": "cross-site"}, token),
        ({"sec-fetch-site": "same-site"}, token),
    ):
        assert _save(desk, headers, given) == 403, headers
    assert len(desk.audit()) == 1


def test_a_visitors_token_saves_nothing(desk: World) -> None:
    token, text = desk.token(), desk.own.read_text()
    assert _save(desk, {}, token) == 403
    assert desk.api("policies/own.yaml", text=text, was=digest_of(text))[0] == 401
    desk.enter()
    assert _save(desk, {}, token) == 403  # nor once somebody has signed in
    assert _save(desk, {}, desk.token()) == 200


def test_what_only_reads_cannot_be_started_from_another_page(desk: World) -> None:
    for path in ("lint", "diff", "patch"):
        answer = desk.client.post(f"/api/v1/policies/own.yaml/{path}", json={"text": "x"})
        assert answer.status_code == 403
    one = next(iter(desk.made.records))
    assert desk.client.post(f"/datasets/{one}").status_code == 403
    assert desk.api("policies/own.yaml/lint", text="x")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8321", 200),
        ("127.0.0.1:8321", 200),
        ("[::1]:8321", 200),
        ("192.168.1.7:8321", 200),
        ("evil.example", 421),
        ("evil.example:8321", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost:8321@evil.example", 421),
        ("", 421),
    ],
)
def test_a_rebound_name_is_not_the_console(desk: World, host: str, status: int) -> None:
    assert desk.client.get("/", headers={"host": host}).status_code == status


# ---- signing in ----------------------------------------------------------------------------------


def test_only_the_password_opens_and_guessing_is_slow(desk: World) -> None:
    assert desk.enter(password="guess") == 401
    assert desk.enter(password="") == 401
    assert desk.enter(by="") == 422
    assert desk.enter(by="a\nb") == 303  # as one line
    for _ in range(5):
        desk.enter(password="guess")
    assert desk.enter() == 429


def test_the_cookie_is_no_scripts_and_no_other_sites(desk: World) -> None:
    form = {"token": desk.token(), "by": "Ada", "password": PASSWORD}
    said = desk.client.post("/login", data=form, follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in said
    assert "samesite=strict" in said.lower()


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "x"])
def test_signing_in_leads_nowhere_else(desk: World, to: str) -> None:
    form = {"token": desk.token(), "by": "Ada", "password": PASSWORD, "to": to}
    answer = desk.client.post("/login", data=form, follow_redirects=False)
    assert answer.headers["location"] == "/"
    form |= {"token": desk.token(), "to": "/policies/own.yaml/edit"}
    answer = desk.client.post("/login", data=form, follow_redirects=False)
    assert answer.headers["location"] == "/policies/own.yaml/edit"


def test_read_only_is_read_only(tmp_path: Path) -> None:
    desk = world(tmp_path, edit=False, password=None)
    assert desk.enter(password="") == 403
    text = desk.own.read_text()
    assert desk.api("policies/own.yaml", text=text, was=digest_of(text))[0] == 403
    assert _save(desk, {}, desk.token()) == 403
    assert desk.api("policies/own.yaml/lint", text=text)[0] == 200


def test_beyond_this_machine_nothing_is_shown_without_signing_in(tmp_path: Path) -> None:
    desk = world(tmp_path, edit=False, host="0.0.0.0")
    for path in ("/", "/datasets", "/api/v1/datasets", "/policies/own.yaml", "/editor.js"):
        answer = desk.client.get(path, follow_redirects=False)
        assert answer.status_code in (303, 401), path
    token = re.search(r'name="token" value="([^"]+)"', desk.client.get("/login").text)
    assert token is not None
    form = {"token": token[1], "by": "Ada", "password": PASSWORD}
    assert desk.client.post("/login", data=form).status_code == 200
    assert desk.client.get("/api/v1/datasets").status_code == 200
    text = desk.own.read_text()
    assert desk.api("policies/own.yaml", text=text, was=digest_of(text))[0] == 403  # reading only


# ---- what is too large, or no text ---------------------------------------------------------------


def test_an_oversized_upload_is_refused(desk: World) -> None:
    desk.enter()
    before, token = desk.own.read_text(), desk.token()
    head = {"x-safegen-token": token}
    large = before + "#" * (MAX_BYTES + 1)
    answers = []
    for post in (
        lambda: desk.client.post(
            "/api/v1/policies/own.yaml",
            json={"text": large, "was": digest_of(before)},
            headers=head,
        ),
        lambda: desk.client.post(
            "/policies/own.yaml/edit",
            data={"token": token, "text": large, "was": digest_of(before), "do": "save"},
        ),
        lambda: desk.client.post("/policies/own.yaml/edit", content=b"x" * (MAX_BODY + 1)),
        lambda: desk.client.post("/policies/own.yaml/edit", content=_endless()),
    ):
        answers.append(post().status_code)
    assert answers == [422, 413, 413, 413]
    assert desk.own.read_text() == before
    fits = before + "#" * (MAX_BYTES - len(before.encode()))
    status, _ = desk.api("policies/own.yaml", text=fits, was=digest_of(before))
    assert status == 200


def _endless() -> Any:
    for _ in range(MAX_BODY // 1024 + 2):
        yield b"x" * 1024


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "\\ud800"}',
        b'{"text": NaN}',
        b'{"text": 1e999}',
        b"[" * 50_000,
        b"\xff\xfe",
        b"",
        b'{"text": null}',
        b'{"\\ud800": 1}',
    ],
)
def test_what_is_no_text_is_no_fault_of_the_console(desk: World, body: bytes) -> None:
    answer = desk.client.post(
        "/api/v1/policies/own.yaml/lint",
        content=body,
        headers={"x-safegen-token": desk.token(), "content-type": "application/json"},
    )
    assert answer.status_code in (400, 422)


def test_a_fault_shows_no_text_of_its_own(desk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a real value: 4711")

    monkeypatch.setattr("safegen.console.overview.every", fails)
    client = TestClient(desk.client.app, "http://localhost", raise_server_exceptions=False)
    for path in ("/", "/api/v1/overview"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "RuntimeError" in answer.text
        assert "4711" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_console_takes_no_other_method(desk: World) -> None:
    calls: list[Callable[..., Any]] = [desk.client.put, desk.client.delete, desk.client.options]
    for call in calls:
        assert call("/api/v1/policies/own.yaml").status_code == 405


def test_documentation_is_fetched_from_nowhere(desk: World) -> None:
    for path in ("/docs", "/redoc"):
        assert desk.client.get(path).status_code == 404
    paths = desk.client.get("/api/v1/openapi.json").json()["paths"]
    assert "/api/v1/datasets/{dataset_id}/verify" in paths


@pytest.mark.parametrize("evil", EVIL)
def test_times_and_links_are_no_markup(evil: str) -> None:
    for made in (moment(evil), day(evil), link(evil, shows="x", q=evil), tag(evil)):
        assert found(made) == []
        assert "<script" not in made
