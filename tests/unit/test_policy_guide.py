"""The guide for people who do not program says what the code says, of every rule and parameter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safegen.policy import RULES, Parameter, Policy
from safegen.policy.sections import SECTIONS

TOP = Path(__file__).resolve().parents[2]
GUIDE = (TOP / "docs" / "policy-guide.md").read_text(encoding="utf-8")
PARTS = {**RULES, **SECTIONS}


def section(name: str) -> str:
    return GUIDE.partition(f"\n### {name}\n")[2].partition("\n#")[0]


def tighter(parameter: Parameter) -> str:
    """Which way is tighter, in the one word that the guide has for it."""
    if parameter.levels:
        return parameter.levels[-1]
    first = parameter.tighter.split()[0]
    if isinstance(parameter.default, bool):
        return {"smaller": "False", "bigger": "True"}.get(first, "none")
    return {"some": "fewer", "no": "none"}.get(first, first)


@pytest.mark.parametrize("name", PARTS)
def test_every_parameter_is_in_the_guide_with_its_default_and_its_order(name: str) -> None:
    told = re.findall(
        r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| [A-Z0-9][^|]{15,} \|$", section(name), re.M
    )
    expected = [
        (key, "none" if p.default in ("", ()) else str(p.default), tighter(p))
        for key, p in PARTS[name].parameters().items()
        if key != "severity"
    ]
    assert told == expected


@pytest.mark.parametrize("name", RULES)
def test_every_rule_says_what_it_costs_and_how_a_false_block_is_cleared(name: str) -> None:
    text = section(name)
    assert "**Costs**" in text
    gates = RULES[name].gates
    assert ("| a false block looks like | clear it |" in text) is bool(gates)
    for check in re.findall(r"`([a-z]+)/[a-z]+`", text.partition("a false block")[2]):
        assert check == name


def test_every_severity_is_explained() -> None:
    levels = RULES["lineage"].parameters()["severity"].levels
    assert re.findall(r"^\| `(off|audit|warn|enforce)` \|", GUIDE, re.M) == list(levels)


def test_the_examples_in_the_guide_are_policies(tmp_path: Path) -> None:
    policies = re.sub(r"```sh\n.*?```", "", GUIDE, flags=re.DOTALL)
    rules, waivers, child = re.findall(r"```\n(.*?)```", policies, re.DOTALL)
    head = 'schema: safegen.policy/v1\nid: company\nversion: "1"\ndescription: d\ncontact: c\n'
    company = tmp_path / "company.yaml"
    company.write_text(head + rules + "  manifest: {severity: enforce}\n" + waivers)
    digest = Policy.load(company).digest
    assert [w.scope for w in Policy.load(company).waivers] == ["fraud-*"]
    team = tmp_path / "team.yaml"
    team.write_text("schema: safegen.policy/v1\n" + child.replace("sha256:…", digest))
    assert Policy.load(team).rule("lineage").unattested == "refuse"


def test_the_promises_quote_only_what_was_measured() -> None:
    """Each "n of m" stands in the pages of results, too."""
    page = (TOP / "docs" / "promises.md").read_text(encoding="utf-8")
    assert "Left" in page
    results = "".join((TOP / "docs" / f"{n}.md").read_text() for n in ("results", "gates"))
    quoted = set(re.findall(r"\b(\d[\d,]* of \d[\d,]*)\b", page + GUIDE)) - {"10 of 10"}
    assert len(quoted) >= 4
    assert {q for q in quoted if q not in results} == set()
    privacy = (TOP / "docs" / "privacy.md").read_text()
    assert "| 1 % copied | 10/0/0 | 0/0/10 |" in privacy
    assert "| 0.1 % copied | 10/0/0 | 10/0/0 | 10/0/0 | 10/0/0 | 10/0/0 | 0 |" in privacy
