"""safegen: one Generator over SDV, CTGAN and diffusion models that refuses to eat its own output.

Everything public is listed here and loaded on first use: `import safegen` loads no data library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safegen.errors import (
    AdmissionRefused,
    BackendError,
    LedgerError,
    ManifestError,
    MissingExtra,
    PluginError,
    PolicyError,
    Refused,
    ReleaseRefused,
    SafegenError,
    SafegenWarning,
    SourceError,
    TargetError,
    UnknownBackend,
    UsageError,
    VerificationError,
    WorkersLost,
)

if TYPE_CHECKING:
    from safegen.access import check, guard, open
    from safegen.dataset import Dataset, verify
    from safegen.decision import Decision, Finding
    from safegen.generator import Generator
    from safegen.manifest.model import Manifest
    from safegen.policy import Policy, Waiver
    from safegen.replaying import replay
    from safegen.sinks import sink
    from safegen.statements import attest, derive

__version__ = "0.1.0"

_HOME = {
    "check": "safegen.access",
    "guard": "safegen.access",
    "open": "safegen.access",
    "Dataset": "safegen.dataset",
    "verify": "safegen.dataset",
    "Decision": "safegen.decision",
    "Finding": "safegen.decision",
    "Generator": "safegen.generator",
    "Manifest": "safegen.manifest.model",
    "Policy": "safegen.policy",
    "Waiver": "safegen.policy",
    "replay": "safegen.replaying",
    "attest": "safegen.statements",
    "derive": "safegen.statements",
    "sink": "safegen.sinks",
}

__all__ = [
    "AdmissionRefused",
    "BackendError",
    "Dataset",
    "Decision",
    "Finding",
    "Generator",
    "LedgerError",
    "Manifest",
    "ManifestError",
    "MissingExtra",
    "PluginError",
    "Policy",
    "PolicyError",
    "Refused",
    "ReleaseRefused",
    "SafegenError",
    "SafegenWarning",
    "SourceError",
    "TargetError",
    "UnknownBackend",
    "UsageError",
    "VerificationError",
    "WorkersLost",
    "Waiver",
    "attest",
    "backends",
    "check",
    "derive",
    "guard",
    "open",
    "replay",
    "sink",
    "verify",
]


def backends() -> list[str]:
    """The names of the backends that installed packages offer. Loads none of them."""
    from safegen import plugins

    return plugins.names(plugins.BACKENDS)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'safegen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
