"""How many generated rows are copies of real ones, and how many chance would make.

A row is a copy where its values in all judged columns (ids and invented personal data have none to
copy) are those of exactly one real person: such a combination points at somebody. Combinations of
several people are no copies, and tables of few columns are full of them.

Chance makes such copies too, and how many is known from the real rows alone. Taken from n
independent rows, one row has a combination that exactly one of the others has with the
probability E[2·F₂ / n], F₂ being the number of combinations that are there exactly twice (Good
1953, Biometrika 40: Turing's estimate). That is the rate at which a new row of the same
distribution copies one of n − 1 rows, without bias; no row has to be set aside for it, and rows
that were set aside together with their duplicates could not tell it.

A source that holds its rows several times over has no combination of one person, and all of it
could be handed out. So the same is asked of combinations of two and of three people: one of n rows
is with two others with the probability E[3·F₃ / n], and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.measure.drawn import Drawn
from safegen.measure.identifiers import Identifiers, identifies, owners
from safegen.measure.keys import row_hashes
from safegen.tables.schema import ID_ROLES, TableSchema

__all__ = ["Coincidence", "clustered_share", "coincidence", "compared_columns", "small_levels"]

_ALIKE = 3  # people with one combination, of whose copies chance is known


@dataclass(frozen=True)
class Coincidence:
    """Copies among generated rows, beside those that chance makes.

    `share` is worth as much as that of `effective` independent rows, and `chance` as that of
    `chance_rows`. `boost`: where rows of rare regions were made more often, and weigh less, chance
    makes up to so many times as many copies. `people`: how many have the combinations.
    """

    rows: int  # generated rows that were looked at
    copies: int  # of them, copies of one real person's row
    share: float
    effective: float
    chance: float
    chance_rows: float
    real_rows: int
    boost: float = 1.0
    people: int = 1


def compared_columns(schema: TableSchema) -> list[str]:
    """The columns in which a row can be a copy."""
    invented = ("id", "personal")
    return [c.name for c in schema.columns if c.kind not in invented and c.role not in ID_ROLES]


def coincidence(anchor: pa.Table, made: Drawn, schema: TableSchema) -> list[Coincidence]:
    """Count rows that are those of one person, of two and of three; empty where no column can be
    compared. Both tables have at least one row."""
    columns = compared_columns(schema)
    if not columns:
        return []
    owner = owners(anchor, schema)
    combinations, code = np.unique(row_hashes(anchor, columns), return_inverse=True)
    people = np.bincount(np.unique(np.stack([code, owner]), axis=1)[0], minlength=len(combinations))
    mine = row_hashes(made.table, columns)
    at = np.minimum(np.searchsorted(combinations, mine), len(combinations) - 1)
    whose, rows, rows_of_people = owners(made.table, schema), np.bincount(code), np.bincount(owner)
    found = []
    for many in range(1, _ALIKE + 1):
        hit = (combinations[at] == mine) & (people[at] == many)
        share, effective = clustered_share(hit, whose)
        chance, chance_rows = _chance(rows[people == many + 1], rows_of_people)
        found.append(
            Coincidence(
                rows=len(mine),
                copies=int(hit.sum()),
                share=share,
                effective=effective,
                chance=chance,
                chance_rows=chance_rows,
                real_rows=anchor.num_rows,
                boost=float(made.weights.mean() / made.weights.min()),
                people=many,
            )
        )
    return found


def clustered_share(
    hit: npt.NDArray[np.bool_], owner: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """The share of hits, and of how many independent rows its variance is.

    The variance is that of a ratio over whole people (Särndal, Swensson and Wretman 1992, Model
    Assisted Survey Sampling, 5.6); without a hit, Kish's effective number of people.
    """
    rows, share = len(hit), float(hit.mean())
    _, person = np.unique(owner, return_inverse=True)
    variance = float((np.bincount(person, weights=hit - share) ** 2).sum()) / rows**2
    if variance:
        return share, min(share * (1 - share) / variance, rows)
    return share, rows**2 / float((np.bincount(person).astype(float) ** 2).sum())


def _chance(
    twice: npt.NDArray[np.int64], rows_of_people: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Turing's estimate, and of how many independent rows its variance is.

    twice: how many rows there are of each combination that exactly two people have (or one more
    than those asked about). These come as independent rare events, each of so many rows.
    """
    rows = int(rows_of_people.sum())
    if not len(twice):
        return 0.0, rows**2 / float((rows_of_people.astype(float) ** 2).sum()) / 2
    hits = float(twice.sum())
    return hits / rows, rows * hits / float((twice.astype(float) ** 2).sum())


def small_levels(
    anchor: pa.Table, made: pa.Table, schema: TableSchema, few: int
) -> dict[str, tuple[int, int]]:
    """By column of levels that is not public: how many generated rows show a level that at least
    one and fewer than `few` real people have, and how many such levels they show."""
    owner = owners(anchor, schema)
    found = {}
    for column in schema.columns:
        if column.kind != "categorical" or column.public or identifies(column):
            continue
        real = Identifiers.of(anchor.column(column.name), owner)
        shown = real.places(made.column(column.name))
        known = shown[shown >= 0]  # a column without any real value has no level
        rare = known[real.people[known] < few]
        found[column.name] = len(rare), len(np.unique(rare))
    return found
