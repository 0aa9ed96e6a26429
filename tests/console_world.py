"""A console over a small ledger, and somebody who asks it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from large_ledger import Growing
from safegen.console.app import console
from safegen.ledger import Ledger, open_ledger
from safegen.policy.load import shipped

PASSWORD = "correct horse battery"
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onload='alert(3)",
    "</textarea></title></style><iframe src=//evil.example>",
    "javascript:alert(4)",
    "\u202eright to left\x1b[31m",
]


@dataclass
class World:
    """The ledger, the folder of policy files, and what is in them."""

    ledger: Ledger
    policies: Path
    made: Growing
    refused: int
    client: TestClient

    @property
    def own(self) -> Path:
        return self.policies / "own.yaml"

    def token(self) -> str:
        """Of whoever asks now."""
        token: str = self.client.get("/api/v1/session").json()["token"]
        return token

    def enter(self, by: str = "Ada Example", password: str = PASSWORD, **more: str) -> int:
        """Sign in, as the page's form does; the answer's status."""
        form = {"token": self.token(), "by": by, "password": password, **more}
        return self.client.post("/login", data=form, follow_redirects=False).status_code

    def api(self, path: str, **body: object) -> tuple[int, dict[str, Any]]:
        """A POST with the token."""
        answer = self.client.post(
            f"/api/v1/{path}", json=body, headers={"x-safegen-token": self.token()}
        )
        return answer.status_code, answer.json()

    def audit(self) -> list[dict[str, object]]:
        """What the console has written into the ledger's log."""
        return [e.payload for e in self.ledger.log(kind="console")]


def own_policies(folder: Path) -> Path:
    """A folder with one policy file."""
    policies = folder / "policies"
    policies.mkdir()
    text = shipped()["baseline"].read_text()
    (policies / "own.yaml").write_text(text.replace("id: baseline", "id: own"))
    return policies


def world(folder: Path, **how: object) -> World:
    """A ledger of hostile names, a refusal, a withdrawal; a folder with one policy of one's own."""
    ledger = open_ledger(folder / "ledger.db")
    policies = own_policies(folder)
    (folder / "secret.yaml").write_text("id: not in the folder\n")
    made = Growing(ledger)
    named = {"id": "own", "version": "1.0.0", "digest": f"sha256:{'0' * 64}", "contact": EVIL[1]}
    with made.at_once():
        source = made.source("s3://lake/customers.parquet")
        for name in EVIL:
            evil = made.source(f"data/{name}", license=name)
            made.release(evil, source, warnings=[name])
        child = made.release(source)
        made.withdraw(source, EVIL[0])
        made.decision(source)
        refused = made.decision(child, blocked=("lineage/depth",), policy=named, notes=EVIL)
    settings = {"policies": policies, "edit": True, "password": PASSWORD, **how}
    client = TestClient(console(ledger, **settings), "http://localhost")  # type: ignore[arg-type]
    return World(ledger, policies, made, refused.seq, client)


def shown(html: str) -> str:
    """A page's text, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
