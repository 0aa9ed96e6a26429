"""Policy files: what a mistake in one leads to, and that none slips through."""

from __future__ import annotations

import json
import pickle
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Annotated

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safegen.errors import PluginError, PolicyError, UsageError
from safegen.policy import (
    RULES,
    SECTIONS,
    LineageParams,
    ManifestParams,
    Note,
    Param,
    Policy,
    RuleParams,
    SupportParams,
    explain,
    json_schema,
    lint,
)
from safegen.policy.document import MAX_BYTES, read
from safegen.policy.organisation import FILE, read_organisation

TOP = Path(__file__).resolve().parents[2]

GOOD = """\
schema: safegen.policy/v1
id: acme/credit
version: "1.0"
description: A policy for tests.
contact: governance@acme.example
rules:
  lineage: {severity: enforce}
  manifest: {severity: enforce}
"""

WAIVER = """\
waivers:
  - id: W-1
    rule: support
    params: {min_real_rows: 60}
    reason: few rows
    ticket: GOV-1
    requested_by: a.lee
    approved_by: [j.doe]
    expires: 2026-12-31
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "team.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems(path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    found = [(problem.file, problem.line, problem.message) for problem in caught.value.problems]
    assert all(file == str(path) for file, _, _ in found)
    return [f"{line}: {message}" for _, line, message in found]


def only(path) -> str:
    (problem,) = problems(path)
    return problem


def test_typo_in_a_key_names_file_line_and_nearest_key(write):
    path = write(GOOD + "  support:\n    severity: warn\n    min_real_row: 20\n")
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    assert str(caught.value) == (
        f"{path}:11: rules.support: unknown key 'min_real_row', did you mean 'min_real_rows'?"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD.replace("contact", "contakt"), "5: unknown key 'contakt', did you mean 'contact'?"),
        (GOOD + "  suport: {severity: warn}\n", "9: unknown rule 'suport', did you mean 'support'"),
        (GOOD + "report: {real_value: true}\n", "9: report: unknown key 'real_value', did you"),
        (GOOD + "  support: {Severity: warn}\n", "unknown key 'Severity', did you mean 'severity'"),
        (GOOD + WAIVER.replace("ticket", "tiket"), "waivers[0]: unknown key 'tiket', did you mean"),
        (GOOD + "<<: {}\n", "9: unknown key '<<'"),
    ],
)
def test_unknown_key_anywhere_is_a_problem(write, text, expected):
    assert any(expected in problem for problem in problems(write(text)))


def test_every_problem_is_listed_at_once_with_its_line(write):
    text = GOOD.replace('"1.0"', "1.0").replace("severity: enforce}", "severity: enforced}", 1)
    text += "  schema: {severity: audit, missing_margin: -1}\nx: 1\n"
    assert [problem.split(":")[0] for problem in problems(write(text))] == ["3", "7", "9", "10"]


@pytest.mark.parametrize("name", ["lineage", "manifest"])
def test_lineage_and_manifest_can_be_neither_off_nor_left_out(write, name):
    entry = f"  {name}: {{severity: enforce}}\n"
    for text in (GOOD.replace(entry, ""), GOOD.replace(entry, f"  {name}: {{severity: off}}\n")):
        assert "use severity: audit to watch without blocking" in only(write(text))
    with pytest.raises(ValueError, match="may never be off"):
        Policy(id="x", version="1", description="x", contact="x", rules={})
    watched = GOOD.replace(entry, f"  {name}: {{severity: audit}}\n")
    assert Policy.load(write(watched)).rule(name).severity == "audit"


def test_duplicate_key_does_not_silently_win(write):
    assert only(write(GOOD + "  lineage: {severity: audit}\n")) == (
        "9: key 'lineage' is already set on line 7"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD.replace("A policy for tests.", "&a A policy"), "4: &a: no anchors"),
        (GOOD.replace("A policy for tests.", "&a A policy") + "owner: *a\n", "9: *a: no aliases"),
        (GOOD.replace("A policy for tests.", "!!str x"), "4: tag:yaml.org,2002:str: no tags"),
        (GOOD.replace("{severity: enforce}", "!env {severity: off}", 1), "7: !env: no tags"),
        ("%YAML 1.1\n---\n" + GOOD, "1: a policy is YAML 1.2"),
        (GOOD + "---\n" + GOOD, "9: a policy file holds one document"),
        (GOOD + "? [a]\n: 1\n", "9: a key has to be text"),
    ],
)
def test_yaml_that_hides_its_meaning_is_refused(write, text, expected):
    assert any(problem.startswith(expected) for problem in problems(write(text)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1: the file is empty"),
        (b"# nothing\n", "1: the file is empty"),
        (b"- a\n", "1: a policy is a mapping"),
        (b"text", "1: a policy is a mapping"),
        (b"a: 1\nb: \xff\n", "2: the file is not UTF-8 text"),
        (b"a: [1\nb: 2\n", "2: not valid YAML"),
        (b'a: "\\UFFFFFFFF"', "1: not valid YAML"),
        (b"a: \x01", "1: not valid YAML"),
        (b"a: 1" + b" " * MAX_BYTES, "None: the file is bigger than 256 KiB"),
        (b"a: " + b"[" * 50_000, "1: nested deeper than 16 levels"),
        (b"- " * 50_000, "1: nested deeper than 16 levels"),
        (b"a: 99999999999999999999999999999999", "1: this number is bigger than 2^53"),
        (b"a: 1e999", "1: numbers have to be finite"),
        (b"a: .nan", "1: numbers have to be finite"),
    ],
)
def test_a_file_that_is_no_policy_is_one_clear_problem(write, content, expected):
    assert any(problem.startswith(expected) for problem in problems(write(content)))


def test_missing_file_and_folder_are_clear_problems(tmp_path):
    assert "no such file" in only(tmp_path / "absent.yaml")
    assert "folder" in only(tmp_path)


@given(st.binary(max_size=80) | st.text(alphabet="ab: \n-[]{}\"'\\U0d8&*!%#|>?,.~", max_size=60))
@example(b'a: "\\ud800"')
@example(b"%TAG ! x\n---\n1")
def test_no_bytes_crash_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert lint(path)


def test_yaml_12_types_are_not_those_of_yaml_11(write):
    path = write("a: 1e-6\nb: no\nc: 2026-12-31\nd: 010\ne: 0x1F\nf: '1'\ng: 1_000\nh: ~\n")
    node, found = read(path, "x")
    assert not found
    assert node.plain() == {
        "a": 1e-6,
        "b": "no",
        "c": "2026-12-31",
        "d": 10,
        "e": 31,
        "f": "1",
        "g": "1_000",
        "h": None,
    }
    assert type(node.plain()["a"]) is float


@pytest.mark.parametrize(
    "entry",
    [
        "lineage: {severity: enforce, max_depth: '0'}",
        "lineage: {severity: enforce, max_depth: true}",
        "lineage: {severity: enforce, max_synthetic_share: 1.1}",
        "lineage: {severity: enforce, unattested: Refuse}",
        "lineage: {}",
        "lineage: enforce",
        "lineage:",
    ],
)
def test_a_value_of_another_type_is_never_coerced(write, entry):
    text = GOOD.replace("lineage: {severity: enforce}", entry)
    assert only(write(text)).startswith("7: rules.lineage")


@pytest.mark.parametrize("key", ["schema", "id", "version", "description", "contact", "rules"])
def test_a_required_key_left_out_is_named(write, key):
    body = re.sub(rf"(?m)^{key}:.*\n(  .*\n)*", "", GOOD)
    assert f"{key}" in only(write(body)).split(":")[1]
    assert "missing" in only(write(body))


def test_a_refusal_always_has_somebody_to_ask(write):
    assert only(write(GOOD.replace("governance@acme.example", '" "'))) == (
        "5: contact: may not be empty"
    )


def test_a_file_of_another_format_version_is_not_half_read(write):
    assert only(write(GOOD.replace("policy/v1", "policy/v2"))).startswith("1: schema has to be")


def test_a_bare_name_is_a_shipped_policy_and_never_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("baseline", "mine"):
        (tmp_path / name).write_text(GOOD)
    assert Policy.load("baseline").id == "baseline"
    with pytest.raises(PolicyError, match="no policy is called 'mine'"):
        Policy.load("mine")
    assert Policy.load("./mine").id == Policy.load(Path("mine")).id == "acme/credit"


def test_a_misspelt_name_lists_the_shipped_ones_and_the_nearest():
    with pytest.raises(PolicyError, match=r"did you mean 'baseline'\?.*anchored.*training"):
        Policy.load("basline")


def test_a_gate_or_rule_that_does_not_exist_is_no_empty_answer():
    policy = Policy.load("baseline")
    with pytest.raises(UsageError, match="did you mean 'release'"):
        policy.at("relase")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean 'lineage'"):
        policy.rule("linage")
    with pytest.raises(UsageError, match="did you mean 'lineage'"):
        explain(policy, "linage")


# -- shipped files ---------------------------------------------------------------------------------

SHIPPED = ("baseline", "strict", "anchored", "rare-events", "images", "training", "lab")

# name: lineage, depth, unattested, unverified, ledger, signature, schema and support, inconclusive
TABLE = {
    "baseline": ("enforce", 0.0, "warn", "warn", "optional", "optional", "enforce", "warn"),
    "strict": ("enforce", 0.0, "refuse", "refuse", "required", "required", "enforce", "fail"),
    "anchored": ("enforce", 1.0, "warn", "warn", "optional", "optional", "enforce", "warn"),
    "rare-events": ("enforce", 0.0, "warn", "warn", "optional", "optional", "enforce", "warn"),
    "images": ("enforce", 0.0, "warn", "warn", "optional", "optional", "enforce", "warn"),
    "training": ("enforce", 1.0, "refuse", "refuse", "optional", "optional", "off", "warn"),
    "lab": ("audit", 0.0, "warn", "warn", "optional", "optional", "audit", "warn"),
}


def test_shipped_policies_ask_what_the_table_says():
    assert set(Policy.shipped()) == set(SHIPPED) == set(TABLE)
    for name, (
        lineage,
        depth,
        unattested,
        unverified,
        ledger,
        signature,
        rest,
        open_,
    ) in TABLE.items():
        policy = Policy.load(name)
        assert policy.id == name
        assert policy.rule("lineage") == LineageParams(
            severity=lineage,
            max_depth=depth,
            unattested=unattested,
            unverified=unverified,
            ledger=ledger,
        )
        assert policy.rule("manifest") == ManifestParams(
            severity="enforce", signature=signature, in_band="required"
        )
        for rule in ("schema", "support"):
            assert policy.rule(rule).severity == rest
            assert policy.rule(rule).inconclusive == open_
        assert policy.waivers == ()
        assert policy.report.real_values is False
        assert lint(name) == []


def test_active_rules_at_each_gate():
    assert list(Policy.load("baseline").at("admission")) == ["lineage", "manifest"]
    baseline = Policy.load("baseline")
    assert list(baseline.at("release")) == ["manifest", "schema", "support", "fidelity", "privacy"]
    assert list(Policy.load("training").at("release")) == ["manifest"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_validate_and_point_editors_to_the_schema(name):
    path = TOP / "policies" / f"{name}.yaml"
    first = path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../docs/policy.schema.json"
    assert (path.parent / first.partition("=")[2]).is_file()
    node, _ = read(path, "x")
    jsonschema.Draft202012Validator(json_schema()).validate(node.plain())


def test_the_published_schema_is_what_the_code_says():
    published = json.loads((TOP / "docs" / "policy.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    assert published == json_schema()


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "x: 1\n",
        GOOD + "  support: {severity: warn, x: 1}\n",
        GOOD + "  suport: {severity: warn}\n",
        GOOD + "  watermark: {severity: warn, pool: 2}\n",
        GOOD + "  support: {severity: warn, tail: 0}\n",
        GOOD.replace("lineage: {severity: enforce}", "lineage: {severity: off}"),
        GOOD.replace('"1.0"', "1.0"),
        GOOD.replace("contact: governance@acme.example\n", ""),
        GOOD + WAIVER.replace("    expires: 2026-12-31\n", ""),
    ],
)
def test_editors_and_loader_refuse_the_same_files(write, text):
    path = write(text)
    assert problems(path)
    node, _ = read(path, "x")
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(node.plain())


def test_the_schema_tells_unit_default_and_order_of_every_parameter():
    definitions = json_schema()["$defs"]
    for name, rule in RULES.items():
        for key, parameter in rule.parameters().items():
            text = definitions[f"rule-{name}"]["properties"][key]["description"]
            assert f"Unit: {parameter.unit}." in text
            assert parameter.tighter in text
            empty = key == "severity" or parameter.default == ()
            assert empty or f"Default: {parameter.default}." in text


def test_the_reference_for_people_is_what_the_code_says():
    text = (TOP / "docs" / "policies.md").read_text()
    for name, rule in RULES.items():
        assert f"### {name} (" in text
        for key, p in rule.parameters().items():
            row = f"| `{key}` | {p.doc} | {p.unit} | {p.default} | {p.tighter} |"
            assert key == "severity" or row in text


def test_examples_in_the_reference_load(tmp_path):
    text = (TOP / "docs" / "policies.md").read_text()
    text = text.replace("MCowBQYDK2VwAyEA…", f"MCowBQYDK2VwAyEA{'A' * 43}=")
    text = text.replace("q83v…", f"{'A' * 86}==")
    whole, below, organisation, waivers = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    company, team = tmp_path / "company.yaml", tmp_path / "teams" / "credit.yaml"
    company.write_text(whole.replace("waivers: []\n", waivers))
    policy = Policy.load(company)
    assert [waiver.id for waiver in policy.waivers] == ["W-2026-014"]
    team.parent.mkdir()
    team.write_text(below.replace("sha256:9f2c…", policy.digest))
    assert Policy.load(team).extends[0].digest == policy.digest
    (tmp_path / "acme-floor.yaml").write_text(company.read_text())
    (tmp_path / FILE).write_text(organisation.replace("sha256:51ab…", policy.digest))
    found, floor, problems = read_organisation(tmp_path / FILE)
    assert (floor, problems) == (policy, [])
    assert found is not None
    assert found.ledger == "/srv/safegen/ledger.db"


# -- explain ---------------------------------------------------------------------------------------


def test_explain_says_who_set_each_value(write):
    path = write(GOOD + "  support:\n    severity: warn\n\n    min_real_rows: 20\n")
    rows = {row.parameter: row for row in explain(Policy.load(path), "support")}
    assert list(rows) == list(SupportParams.parameters())
    assert (rows["min_real_rows"].value, rows["min_real_rows"].origin) == (20, f"{path}:12")
    assert (rows["tail"].value, rows["tail"].origin) == (0.01, "default")
    assert rows["min_real_rows"].unit == "rows"
    assert rows["min_real_rows"].tighter == "smaller is tighter"
    assert {row.rule for row in explain(Policy.load(path))} == {*RULES, *SECTIONS}


def test_origins_of_a_shipped_policy_hold_no_machine_path():
    files = {file for file, _ in Policy.load("baseline").origins.values()}
    assert files == {"policies/baseline.yaml"}


# -- rules of other packages -----------------------------------------------------------------------


class Freshness:
    class Params(RuleParams):
        gates = frozenset({"admission"})
        asks = "Is the data fresh?"
        max_age: Annotated[int, Param("Oldest age.", unit="days", order="down")] = 30


class NoParams:
    pass


class Broken:
    def __getattr__(self, name):
        raise RuntimeError("secret value")


@pytest.fixture
def plugged(monkeypatch):
    loaded: list[str] = []
    entries: list[EntryPoint] = []

    class Recording(EntryPoint):
        def load(self):
            loaded.append(self.name)
            return super().load()

    def plug(*pairs: tuple[str, str]) -> list[str]:
        entries.extend(Recording(name, value, "safegen.safeguards") for name, value in pairs)
        return loaded

    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda **by: EntryPoints(entries).select(**by)
    )
    return plug


HERE = f"{__name__}:"


def test_a_rule_of_another_package_is_found_by_its_exact_name(write, plugged):
    loaded = plugged(("acme.fresh", HERE + "Freshness"), ("acme.other", "absent_module:X"))
    policy = Policy.load(write(GOOD + "  acme.fresh: {severity: warn, max_age: 7}\n"))
    assert policy.rule("acme.fresh").max_age == 7
    assert list(policy.at("admission")) == ["lineage", "manifest", "acme.fresh"]
    assert loaded == ["acme.fresh"]  # and not the one that nobody asked for
    assert policy.effective()["rules"]["acme.fresh"] == {"severity": "warn", "max_age": 7}
    assert "max_ag" in only(write(GOOD + "  acme.fresh: {severity: warn, max_ag: 7}\n"))
    problem = only(write(GOOD + "  acme.frsh: {severity: warn}\n"))
    assert problem == "9: unknown rule 'acme.frsh', did you mean 'acme.fresh'?"


def test_two_providers_of_one_rule_are_an_error_and_never_a_pick(write, plugged):
    loaded = plugged(("acme.fresh", HERE + "Freshness"), ("acme.fresh", HERE + "NoParams"))
    assert "two providers" in only(write(GOOD + "  acme.fresh: {severity: warn}\n"))
    assert loaded == []


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (HERE + "NoParams", "unknown rule 'acme.fresh'"),
        ("absent_module:X", "fails (builtins.ModuleNotFoundError"),
        (HERE + "BROKEN", "fails (builtins.RuntimeError"),
    ],
)
def test_a_broken_safeguard_is_a_problem_and_its_text_stays_out(write, plugged, target, expected):
    plugged(("acme.fresh", target))
    problem = only(write(GOOD + "  acme.fresh: {severity: warn}\n"))
    assert expected in problem
    assert "secret" not in problem


BROKEN = Broken()


def test_a_builtin_rule_cannot_be_replaced_by_another_package(write, plugged):
    loaded = plugged(("lineage", HERE + "Freshness"))
    assert isinstance(Policy.load(write(GOOD)).rule("lineage"), LineageParams)
    assert loaded == []


def test_a_parameter_declared_without_order_or_default_is_refused():
    with pytest.raises(PluginError, match="Param"):
        type("Bare", (RuleParams,), {"__annotations__": {"x": int}, "x": 1})
    with pytest.raises(PluginError, match="default"):
        type(
            "NoDefault",
            (RuleParams,),
            {"__annotations__": {"x": Annotated[int, Param("d", unit="u", order="up")]}},
        )
    with pytest.raises(PluginError, match="Literal"):
        type(
            "NoWords",
            (RuleParams,),
            {
                "__annotations__": {"x": Annotated[str, Param("d", unit="u", order="listed")]},
                "x": "a",
            },
        )
    with pytest.raises(PluginError, match="gates"):
        type("NoGate", (RuleParams,), {"gates": frozenset({"relase"})})


# -- frozen ----------------------------------------------------------------------------------------


def test_a_loaded_policy_cannot_be_changed(write):
    policy = Policy.load(write(GOOD + WAIVER))
    for change in (
        lambda: policy.rules.update(lineage=None),
        lambda: policy.rules.pop("lineage"),
        lambda: policy.rules.__setitem__("lineage", None),
        lambda: policy.rules.__delitem__("lineage"),
        lambda: policy.rules.__ior__({}),
        lambda: policy.waivers[0].params.clear(),
        lambda: policy.origins.clear(),
    ):
        with pytest.raises(TypeError, match="does not change"):
            change()
    with pytest.raises(ValueError, match="frozen"):
        policy.rule("lineage").severity = "off"
    with pytest.raises(ValueError, match="frozen"):
        policy.contact = "nobody"
    copy = pickle.loads(pickle.dumps(policy))
    assert copy == policy
    assert copy.origins == policy.origins


def test_a_rule_of_another_class_under_a_builtin_name_is_refused():
    good = {"manifest": ManifestParams(severity="audit")}
    Policy(
        id="x",
        version="1",
        description="x",
        contact="x",
        rules={**good, "lineage": LineageParams(severity="audit")},
    )
    with pytest.raises(ValueError, match="needs LineageParams"):
        Policy(
            id="x",
            version="1",
            description="x",
            contact="x",
            rules={**good, "lineage": SupportParams(severity="audit")},
        )


def test_lint_notes_are_not_problems_that_stop_use(write):
    (note,) = lint([write(GOOD + WAIVER)])
    assert isinstance(note, Note)
    assert note.line == 10
    (problem,) = lint([write(GOOD + "x: 1\n")])
    assert not isinstance(problem, Note)


def test_one_mistake_is_reported_once(write):
    assert only(write(GOOD.replace("governance@acme.example", "*x"))) == (
        "5: *x: no aliases; write the value out"
    )


def test_a_version_that_yaml_reads_as_a_number_says_how_to_write_it(write):
    assert only(write(GOOD.replace('"1.0"', "1.0"))) == (
        "3: version: has to be text: put it in quotes, '1.0'"
    )


def test_numbers_that_a_digest_cannot_tell_apart_are_refused(write):
    assert read(write(f"a: {2**53}\nb: -{2**53}\n"), "x")[1] == []
    for text in (f"a: {2**53 + 1}\n", f"a: -{2**53 + 1}\n"):
        assert "2^53" in str(read(write(text), "x")[1][0])


def test_nesting_ends_where_it_says(write):
    read(write("a: " + "[" * 14 + "1" + "]" * 14), "x")  # the mapping and the number are two more
    with pytest.raises(PolicyError, match="deeper than 16"):
        read(write("a: " + "[" * 15 + "1" + "]" * 15), "x")
