"""Policy files: what a governance team writes, as frozen values that the decision reads.

    policy = Policy.load("baseline")            # or a path; PolicyError lists every problem
    policy.at("release")                        # the rules that decide there
    policy.rule("support").min_expected         # every default materialised
    policy.digest                               # of the effective policy, for manifests

A policy only says what is asked. Safeguards find out, the decision judges.
"""

from safegen.policy.controls import Control, controls_of, controls_table
from safegen.policy.difference import Difference, diff
from safegen.policy.merge import raised
from safegen.policy.model import SCHEMA, Ancestor, Origin, Policy
from safegen.policy.organisation import in_force
from safegen.policy.params import (
    GATES,
    Change,
    Gate,
    Order,
    Param,
    Parameter,
    RuleParams,
    Section,
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
from safegen.policy.sections import SECTIONS, Approvals, Approver, Report
from safegen.policy.waiver import Approval, Waiver, WaiverStatus, approved

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
    "Ancestor",
    "Approval",
    "Approvals",
    "Approver",
    "GATES",
    "RULES",
    "SCHEMA",
    "SECTIONS",
    "Change",
    "Control",
    "Difference",
    "Gate",
    "Note",
    "Order",
    "Origin",
    "Report",
    "Row",
    "Section",
    "Severity",
    "WaiverStatus",
    "approved",
    "controls_of",
    "controls_table",
    "in_force",
    "raised",
]
