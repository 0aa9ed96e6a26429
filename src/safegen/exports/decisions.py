"""Decisions in the forms that continuous integration shows: JUnit XML and SARIF 2.1.0."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from safegen.decision import Decision, Finding, Reason

__all__ = ["VERDICTS", "verdict"]

_LEVELS = {
    "block": "error",
    "waived": "warning",
    "warn": "warning",
    "audit": "note",
    "pass": "none",
}


def verdict(decision: Decision, format: str, *, fail_on: str = "block") -> str:
    """A decision as text in one of `VERDICTS`. `fail_on` `warn`: what warns counts as failed."""
    return VERDICTS[format](decision, ("block", "warn") if fail_on == "warn" else ("block",))


def junit(decision: Decision, failing: tuple[str, ...]) -> str:
    """One test case a finding; what fails has `failure`, what else is not met `system-out`."""
    failed = sum(r.outcome in failing for r in decision.judged)
    name = f"safegen {decision.gate} by {decision.policy['id']} {decision.policy['version']}"
    counts = {"tests": str(len(decision.judged)), "failures": str(failed), "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": "safegen", **counts})
    about = {"name": name, "skipped": "0", **counts}
    if decision.time:
        about["timestamp"] = decision.time.removesuffix("Z")
    suite = ElementTree.SubElement(root, "testsuite", about)
    for reason in decision.judged:
        finding = reason.finding
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"safegen.{finding.rule}", name=finding.check, time="0"
        )
        if reason.outcome in failing:
            what = ElementTree.SubElement(
                case, "failure", type=finding.status, message=_plain(finding.observed)
            )
            what.text = _plain(_text(finding))
        elif reason.outcome != "pass":
            out = ElementTree.SubElement(case, "system-out")
            out.text = _plain(f"{reason.outcome}: {_text(finding)}")
    notes = "\n".join([*decision.subject, *decision.notes])
    ElementTree.SubElement(suite, "system-out").text = _plain(notes)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def sarif(decision: Decision, failing: tuple[str, ...]) -> str:
    """One result a finding, under a rule of the same name; all of a policy's in one run."""
    from safegen import __version__

    rules = {
        r.finding.name: {
            "id": r.finding.name,
            "shortDescription": {"text": f"{r.finding.check} of the rule {r.finding.rule}"},
            "properties": {"severity": r.severity},
        }
        for r in decision.judged
    }
    names = [*rules]
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "safegen",
                        "version": __version__,
                        "rules": [*rules.values()],
                    }
                },
                "results": [_result(r, names, failing, decision) for r in decision.judged],
                "properties": {
                    "allowed": decision.allowed,
                    "gate": decision.gate,
                    "policy": dict(decision.policy),
                    "notes": list(decision.notes),
                },
            }
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


VERDICTS = {"junit": junit, "sarif": sarif}
"""What makes each form, by its name."""


def _result(
    reason: Reason, rules: list[str], failing: tuple[str, ...], decision: Decision
) -> dict[str, Any]:
    finding = reason.finding
    level = "error" if reason.outcome in failing else _LEVELS[reason.outcome]
    return {
        "ruleId": finding.name,
        "ruleIndex": rules.index(finding.name),
        "kind": "pass" if reason.outcome == "pass" else "fail",
        "level": level,
        "message": {"text": _text(finding)},
        **({"suppressions": _suppressed(reason)} if reason.waived_by else {}),
        "locations": [
            {
                "logicalLocations": [{"fullyQualifiedName": what, "kind": "resource"}],
            }
            for what in decision.subject
        ],
    }


def _suppressed(reason: Reason) -> list[dict[str, str]]:
    """A waiver, as readers of SARIF know exceptions."""
    said = f"waived by {', '.join(reason.waived_by)}"
    return [{"kind": "external", "status": "accepted", "justification": said}]


def _text(finding: Finding) -> str:
    """What was observed, required, and to be done, a line each."""
    lines = [f"observed: {finding.observed}", f"required: {finding.required}"]
    lines += [f"evidence: {e}" for e in finding.evidence]
    if finding.next_step:
        lines.append(f"next: {finding.next_step}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that XML can hold: names of files may have anything in them."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)
