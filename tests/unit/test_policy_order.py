"""Tightness and digest: the two properties that diff, merge and pinning stand on."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.policy import RULES, Policy

FLIP = {"TIGHTEN": "LOOSEN", "LOOSEN": "TIGHTEN", "SAME": "SAME", "INCOMPARABLE": "INCOMPARABLE"}
PARAMETERS = [(n, p) for n, rule in RULES.items() for p in rule.parameters().values()]


def values(parameter) -> st.SearchStrategy[Any]:
    if parameter.levels:
        return st.sampled_from(parameter.levels)
    if parameter.order in ("fewer", "subset"):
        return st.lists(st.sampled_from("abc"), unique=True).map(tuple)
    return st.integers(0, 3) | st.floats(0, 3, allow_nan=False)


CASES = st.sampled_from(PARAMETERS).flatmap(
    lambda case: st.tuples(st.just(case[1]), *[values(case[1])] * 3)
)


@given(CASES)
def test_compare_is_antisymmetric_and_transitive(case):
    parameter, a, b, c = case
    assert parameter.compare(a, a) == "SAME"
    assert parameter.compare(b, a) == FLIP[parameter.compare(a, b)]
    if parameter.compare(a, b) == parameter.compare(b, c) != "INCOMPARABLE":
        assert parameter.compare(a, c) == parameter.compare(a, b)
    if parameter.compare(a, b) == "SAME":
        assert parameter.compare(a, c) == parameter.compare(b, c)


@pytest.mark.parametrize(
    ("rule", "parameter", "loose", "tight"),
    [
        ("lineage", "severity", "off", "audit"),
        ("lineage", "severity", "audit", "warn"),
        ("lineage", "severity", "warn", "enforce"),
        ("lineage", "max_depth", 1.0, 0.0),
        ("lineage", "max_synthetic_share", 0.5, 0.1),
        ("lineage", "unattested", "allow", "warn"),
        ("lineage", "unverified", "warn", "refuse"),
        ("lineage", "ledger", "optional", "required"),
        ("manifest", "signature", "optional", "required"),
        ("manifest", "in_band", "optional", "required"),
        ("schema", "missing_margin", 0.1, 0.02),
        ("schema", "out_of_range", 0.1, 0.0),
        ("schema", "inconclusive", "pass", "warn"),
        ("support", "inconclusive", "warn", "fail"),
        ("support", "min_real_rows", 60, 30),
        ("support", "min_expected", 20.0, 10.0),
    ],
)
def test_a_loosened_value_is_never_called_tighter(rule, parameter, loose, tight):
    declared = RULES[rule].parameters()[parameter]
    assert declared.compare(loose, tight) == "TIGHTEN"
    assert declared.compare(tight, loose) == "LOOSEN"


def test_a_value_outside_the_order_is_incomparable_and_not_the_same():
    lineage = RULES["lineage"].parameters()
    assert lineage["unattested"].compare("allow", "ignore") == "INCOMPARABLE"
    assert lineage["unattested"].compare("ignore", "ignore") == "INCOMPARABLE"
    assert lineage["max_depth"].compare(float("nan"), 0.0) == "INCOMPARABLE"
    assert lineage["max_depth"].compare("0", 0.0) == "INCOMPARABLE"
    tail = RULES["support"].parameters()["tail"]
    assert tail.compare(0.01, 0.05) == tail.compare(0.05, 0.01) == "INCOMPARABLE"
    assert tail.compare(0.01, 0.01) == "SAME"


# -- digest ----------------------------------------------------------------------------------------

HEADER = {
    "schema": "safegen.policy/v1",
    "id": "acme/credit",
    "version": '"1.0"',
    "description": "For tests.",
    "contact": "governance",
    "owner": "somebody",
    "report": "{real_values: false}",
}
RULE_VALUES = {
    "lineage": {
        "severity": "enforce",
        "max_depth": "0.0",
        "max_synthetic_share": "1.0",
        "unattested": "warn",
        "unverified": "warn",
        "ledger": "optional",
    },
    "manifest": {"severity": "enforce", "signature": "optional", "in_band": "required"},
    "schema": {
        "severity": "enforce",
        "missing_margin": "0.02",
        "out_of_range": "0.0",
        "inconclusive": "warn",
    },
    "support": {
        "severity": "enforce",
        "min_real_rows": "30",
        "min_expected": "10.0",
        "tail": "0.01",
        "inconclusive": "warn",
    },
}
OTHER = {
    "id": "acme/debit",
    "version": '"1.1"',
    "description": "For more tests.",
    "contact": "nobody",
    "owner": "somebody else",
    "report": "{real_values: true}",
    "severity": "audit",
    "max_depth": "0.5",
    "max_synthetic_share": "0.5",
    "unattested": "refuse",
    "unverified": "refuse",
    "ledger": "required",
    "signature": "required",
    "in_band": "optional",
    "missing_margin": "0.03",
    "out_of_range": "1e-6",
    "inconclusive": "fail",
    "min_real_rows": "31",
    "min_expected": "10.5",
    "tail": "0.02",
}
PLACES = [(None, key) for key in HEADER if key != "schema"] + [
    (rule, key) for rule, entries in RULE_VALUES.items() for key in entries
]


def load(tmp_path_factory, text: str) -> Policy:
    path = tmp_path_factory.getbasetemp() / "digest.yaml"
    path.write_text(text)
    return Policy.load(path)


def written(header, rules, order=lambda keys: list(keys), comment=lambda: "") -> str:
    lines = []
    for key in order([*header, "rules"]):
        if key != "rules":
            lines.append(f"{key}: {header[key]}{comment()}")
            continue
        lines.append("rules:" + comment())
        for rule in order(rules):
            lines.append(f"  {rule}:" + comment())
            lines += [f"    {k}: {rules[rule][k]}{comment()}" for k in order(rules[rule])]
    return "\n".join(lines) + "\n"


@given(st.data())
def test_key_order_and_comments_do_not_change_the_digest(tmp_path_factory, data):
    plain = load(tmp_path_factory, written(HEADER, RULE_VALUES))
    shuffled = written(
        HEADER,
        RULE_VALUES,
        order=lambda keys: data.draw(st.permutations(list(keys))),
        comment=lambda: data.draw(st.sampled_from(["", "  # why", "\n\n# a line"])),
    )
    again = load(tmp_path_factory, shuffled)
    assert again.digest == plain.digest
    assert again == plain
    assert hash(again) == hash(plain)


@given(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3, unique=True))
def test_any_change_of_a_value_changes_the_digest(tmp_path_factory, places):
    header, rules = dict(HEADER), {name: dict(entry) for name, entry in RULE_VALUES.items()}
    for rule, key in places:
        (header if rule is None else rules[rule])[key] = OTHER[key]
    before = load(tmp_path_factory, written(HEADER, RULE_VALUES))
    after = load(tmp_path_factory, written(header, rules))
    assert after.digest != before.digest
    assert after != before


def test_a_default_written_out_is_the_same_policy(tmp_path_factory):
    short = {name: {"severity": entry["severity"]} for name, entry in RULE_VALUES.items()}
    whole = load(tmp_path_factory, written(HEADER, RULE_VALUES))
    assert load(tmp_path_factory, written(HEADER, short)).digest == whole.digest
    as_integer = {**RULE_VALUES, "lineage": {**RULE_VALUES["lineage"], "max_depth": "0"}}
    assert load(tmp_path_factory, written(HEADER, as_integer)).digest == whole.digest


def test_a_rule_left_out_and_a_rule_switched_off_are_the_same_policy(tmp_path_factory):
    without = {name: entry for name, entry in RULE_VALUES.items() if name != "support"}
    off = {**without, "support": {"severity": "off"}}
    left_out = load(tmp_path_factory, written(HEADER, without))
    assert load(tmp_path_factory, written(HEADER, off)).digest == left_out.digest
    assert "support" not in left_out.effective()["rules"]
    changed = {**without, "support": {"severity": "off", "tail": "0.02"}}
    assert load(tmp_path_factory, written(HEADER, changed)).digest != left_out.digest


def test_the_digest_of_a_changed_copy_is_not_that_of_the_original():
    policy = Policy.load("baseline")
    assert policy.digest == policy.digest
    assert policy.model_copy(update={"contact": "somebody else"}).digest != policy.digest


def test_the_digest_is_over_rfc8785_bytes_that_anyone_can_recompute():
    import hashlib
    import json

    policy = Policy.load("baseline")
    # For values without exotic floats or non-ASCII text, sorted compact JSON is RFC 8785,
    # except that JSON writes 1.0 where RFC 8785 writes 1.
    body = json.loads(json.dumps(policy.effective()), parse_float=lambda t: float(t))

    def whole(value):
        if isinstance(value, dict):
            return {k: whole(v) for k, v in value.items()}
        return int(value) if isinstance(value, float) and value == int(value) else value

    text = json.dumps(whole(body), sort_keys=True, separators=(",", ":"))
    assert policy.digest == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_import_loads_no_heavy_library():
    code = (
        "import sys, safegen.policy; safegen.policy.Policy.shipped();"
        "print([m for m in ('numpy','pandas','pyarrow','torch','ruamel.yaml') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
