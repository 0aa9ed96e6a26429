"""Policy files: what a governance team writes, as frozen values that the decision reads.

    policy = Policy.load("baseline")            # or a path; PolicyError lists every problem
    policy.at("release")                        # the rules that decide there
    policy.rule("support").min_expected         # every default materialised
    policy.digest                               # of the effective policy, for manifests

A policy only says what is asked. Safeguards find out, the decision judges.
"""

from safegen.policy.controls import Control, controls_of, controls_table
from safegen.policy.difference import Difference, diff
from safegen.policy.model import SCHEMA, Origin, Policy, Report
from safegen.policy.params import (
    GATES,
    Change,
    Gate,
    Order,
    Param,
    Parameter,
    RuleParams,
    Severity,
)
from safegen.policy.review import Note, Row, explain, lint
from safegen.policy.rules import (
    ALWAYS_ON,
    RULES,
    AnchorParams,
    FidelityParams,
    LineageParams,
    ManifestParams,
    NamedStratum,
    PrivacyParams,
    SchemaParams,
    SelectionParams,
    SupportParams,
    TailsParams,
)
from safegen.policy.schema import json_schema
from safegen.policy.waiver import Waiver, WaiverStatus

__all__ = [
    "Policy",
    "RuleParams",
    "Waiver",
    "lint",
    "explain",
    "diff",
    "json_schema",
    "AnchorParams",
    "FidelityParams",
    "LineageParams",
    "ManifestParams",
    "NamedStratum",
    "PrivacyParams",
    "SchemaParams",
    "SelectionParams",
    "SupportParams",
    "TailsParams",
    "Param",
    "Parameter",
    "ALWAYS_ON",
    "GATES",
    "RULES",
    "SCHEMA",
    "Change",
    "Control",
    "Difference",
    "Gate",
    "Note",
    "Order",
    "Origin",
    "Report",
    "Row",
    "Severity",
    "WaiverStatus",
    "controls_of",
    "controls_table",
]
