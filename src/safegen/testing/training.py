"""Checks of declarations and of `fit`: what it takes, what it leaves alone, how it ends."""

from __future__ import annotations

import re

from pydantic import ValidationError

from safegen.errors import BackendError
from safegen.testing.process import disturbed, interrupted, observed, watched
from safegen.testing.sampling import same
from safegen.testing.subject import Subject, check, reproducible

COUNTS = re.compile(r"^(.*_)?(epochs|steps|batch_size|pac|layers|embedding_dim)$")
"""Options of which 0 and −1 make no sense, whoever names them."""


@check()
def declares(subject: Subject) -> None:
    """A name, kinds, a licence, a block size, and strict options, each with a description."""
    backend = subject.backend
    assert backend.name, "declares no name"
    assert backend.license, "declares no licence"
    assert backend.kinds, "declares no kinds"
    assert isinstance(backend.block_rows, int), "declares no block size"
    assert backend.block_rows > 0, "declares no block size"
    config = backend.Options.model_config
    assert config.get("extra") == "forbid", "takes unknown options"
    assert config.get("frozen"), "options can be changed after they were validated"
    silent = [n for n, f in backend.Options.model_fields.items() if not f.description]
    assert not silent, f"options without a description: {', '.join(silent)}"


@check()
def options(subject: Subject) -> None:
    """Options survive JSON, as which a manifest holds them; a count of 0 or −1 is an error."""
    kind = subject.backend.Options
    again = kind.model_validate_json(subject.options.model_dump_json())
    assert again == subject.options, "the options change on their way through JSON"
    given = subject.options.model_dump()
    for name in filter(COUNTS.match, kind.model_fields):
        for number in (0, -1):
            try:
                kind.model_validate({**given, name: number})
            except ValidationError as error:
                places = [e["loc"] for e in error.errors()]
                assert any(name in p or not p for p in places), f"{name}={number}: {places}"
            else:
                raise AssertionError(f"{name}={number} is accepted")


@check(when=reproducible)
def refit_repeats(subject: Subject) -> None:
    """The same fit seed gives the same model, whatever else ran; and fitting leaves no file."""
    first = subject.sample(30)
    with watched() as left, disturbed():
        again = subject.fit(subject.example)
        files = left()
    assert same(first, subject.sample(30, model=again)), "the same fit seed gives another model"
    assert not files, f"a fit leaves behind: {', '.join(files[:5])}"


@check()
def leaves_alone(subject: Subject) -> None:
    """Neither fitting nor sampling changes the data, a random state or another global setting."""
    _ = subject.model
    assert not subject.traces, "; ".join(dict.fromkeys(subject.traces))
    with observed() as changed:
        subject.sample(30)
        things = changed()
    assert not things, f"sampling changes {', '.join(things)}"


SHARES = (0.5, 0.3)
"""Where in a fit it is interrupted. The second only when the first left something, which may be
because the interrupt hit the very line that was to clean up, or code that is not Python's:
safetensors makes a ValueError of it."""


@check()
def cancelled(subject: Subject) -> None:
    """Ctrl-C in the middle of a fit comes out, and leaves no file, process or changed state."""
    _ = subject.model
    for share in SHARES:
        left = _cancelled(subject, share)
        if not left:
            return
    raise AssertionError(f"a cancelled fit leaves behind: {', '.join(left[:5])}")


def _cancelled(subject: Subject, share: float) -> list[str]:
    def fit() -> None:
        example = subject.example
        subject.backend.fit(example.tables, example.schemas, subject.options, seed=1)

    seconds = subject.seconds
    for _ in range(3):  # a fit is quicker once its libraries are loaded
        with observed() as changed:
            with watched() as left:
                ended, seconds = interrupted(fit, share * seconds)
                files = left()
            if ended is not None:
                other = [] if ended is KeyboardInterrupt else [f"{ended.__name__} instead of it"]
                return [*other, *files, *(f"a change of {what}" for what in changed())]
    return []  # over before anybody could press a key


@check(when=lambda s: s.diverging is not None)
def divergence(subject: Subject) -> None:
    """A loss that becomes NaN stops the fit with an error that names an option to change."""
    beyond = subject.options.model_copy(update=subject.diverging)  # not validated: see the caller
    names = subject.backend.Options.model_fields
    try:
        subject.fit(subject.example, beyond)
    except BackendError as error:
        said = str(error)
        assert any(name in said for name in names), f"does not say what to change: {said}"
        return
    raise AssertionError("training goes on though its loss is not a number")
