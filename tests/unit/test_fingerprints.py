"""Words, forms, fingerprints and their tests: what they know again, and whom they do not accuse."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from safegen.fingerprinting import _wanted
from safegen.lineage.detection import ALPHA, Met, fisher, met_on_views, met_whole
from safegen.lineage.fingerprints import (
    RARELY,
    Cells,
    Prints,
    WholeRows,
)
from safegen.lineage.forms import Form, Matched, Profile, form_of
from safegen.lineage.printing import Printing
from safegen.lineage.sealing import opened, sealed
from safegen.tables.words import Column, joined

KEY, OTHER = b"k" * 32, b"o" * 32


def columns(table: pa.Table) -> dict[str, Column]:
    return {n: Column.of(table.column(n).combine_chunks()) for n in table.column_names}


# ---- words ---------------------------------------------------------------------------------------


def test_a_value_has_the_same_word_in_every_type_that_tools_give_it() -> None:
    numbers = [0.1, 250.0, -3.0, 1e-9]
    arrays = [
        pa.array(numbers),
        pa.array(numbers, pa.float32()),
        pa.array([repr(x) for x in numbers]),
        pa.array([f" {x!r}" for x in numbers]).dictionary_encode(),
    ]
    words = [Column.of(a).words(6).tolist() for a in arrays]
    assert words[0] == words[1] == words[2] == words[3]
    assert len(set(words[0])) == 4
    days = pa.array([1, 2], pa.date32())
    assert (
        Column.of(days).words(6).tolist()
        == Column.of(pa.array(["1970-01-02", "1970-01-03"])).words(6).tolist()
    )
    assert (
        Column.of(pa.array(["Ünit", None])).words(3)[0]
        == Column.of(pa.array(["ünit "])).words(3)[0]
    )
    assert Column.of(pa.array([None], pa.int8())).words(3) == Column.of(pa.array(["NaN"])).words(3)


@given(st.floats(1e-6, 1e9), st.sampled_from([1, -1]))
def test_words_forget_what_rounding_forgets(size: float, sign: int) -> None:
    value = sign * size
    short = float(f"{value:.3g}")
    far = float(f"{value:.3g}") * 1.02
    word, rounded, other = Column.of(pa.array([value, short, far])).words(3)
    # What lies half-way between two short numbers may fall to either side.
    unit = 10.0 ** (np.floor(np.log10(size)) - 2)
    if abs(abs(value - short) / unit - 0.5) > 1e-6:
        assert word == rounded
    assert other != rounded


def test_numbers_are_read_from_cells() -> None:
    values = [1.5, -2.25e-7, 12345678901234.0, None, float("inf")]
    numbers = Column.of(pa.array(values)).numbers
    assert numbers[:3] == pytest.approx(values[:3])
    assert np.isnan(numbers[3:]).all()
    assert np.isnan(Column.of(pa.array(["a"])).numbers).all()
    moments = pa.array([1_500_000], pa.timestamp("us"))
    assert Column.of(moments).numbers == [1_500_000]
    assert joined([Column.of(pa.array([1, 2])), Column.of(pa.array(["3"]))]).numbers.tolist() == [
        1,
        2,
        3,
    ]


# ---- forms ---------------------------------------------------------------------------------------


def law(seed: int, rows: int, *, fitted: bool = False) -> pa.Table:
    """People of six columns; a model of them takes each column for itself."""
    rng = np.random.default_rng([seed, fitted])
    kind = rng.integers(0, 4, rows)
    size = np.exp(rng.normal(kind, 0.5))
    frame = pd.DataFrame(
        {
            "kind": np.array(["a", "b", "c", "d"])[kind],
            "size": np.round(size, 2),
            "age": np.clip(rng.normal(40 + 5 * kind, 12), 18, 90).astype(int),
            "town": rng.choice([f"t{i}" for i in range(30)], rows),
            "flag": rng.random(rows) < 0.1 + 0.2 * kind,
            "score": rng.gamma(2.0, 10.0, rows),
        }
    )
    if fitted:
        frame = frame.apply(lambda c: rng.permutation(c.to_numpy()))
    return pa.Table.from_pandas(frame, preserve_index=False)


def profiles(table: pa.Table) -> dict[str, Profile]:
    return {n: Profile(c) for n, c in columns(table).items()}


def test_columns_are_known_by_name_and_by_what_is_in_them() -> None:
    form = form_of(columns(law(1, 5_000, fitted=True)), 7)
    plain = law(2, 1_000)
    lost = plain.rename_columns([f"v{i}" for i in range(6)]).select([3, 1, 5, 0, 4, 2])
    back = {"v0": "kind", "v1": "size", "v2": "age", "v3": "town", "v4": "flag", "v5": "score"}
    for table, names in ((plain, dict.fromkeys(())), (lost, back)):
        found = form.matched(profiles(table))
        said = {names.get(c.name, c.name): form.columns[c.number].name for c in found.columns}
        assert said == {n: n for n in back.values()}
        assert {c.scale for c in found.columns} == {"same"}


def test_columns_in_other_units_are_known_and_brought_back() -> None:
    form = form_of(columns(law(1, 5_000, fitted=True)), 7)
    frame = law(2, 4_000).to_pandas()
    edited = frame.assign(
        size=np.log(frame["size"] + 1), age=-2.54 * frame["age"], score=frame["score"] / 1000
    )
    found = form.matched(profiles(pa.Table.from_pandas(edited, preserve_index=False)))
    scales = {form.columns[c.number].name: c.scale for c in found.columns}
    assert scales == {
        "kind": "same", "size": "rising", "age": "falling", "town": "same", "flag": "same",
        "score": "rising",
    }  # fmt: skip
    for name in ("size", "age", "score"):
        column = form.columns[form.names[name]]
        back = column.ranked(edited[name].to_numpy(float), falling=name == "age")
        same = column.coarse(back) == column.coarse(frame[name].to_numpy(float))
        assert same.mean() > 0.8


def test_noise_seldom_leaves_a_coarse_bin() -> None:
    rng = np.random.default_rng(3)
    for values in (rng.normal(size=5_000), rng.integers(0, 2, 5_000), rng.exponential(size=5_000)):
        form = form_of({"x": Column.of(pa.array(values.astype(float)))}, 1)
        noisy = values + rng.normal(0, 0.05 * values.std(), len(values))
        coarse = form.columns[0].coarse
        assert (coarse(noisy) == coarse(values.astype(float))).mean() > 0.75


def test_a_form_survives_json_and_nobody_else_opens_it() -> None:
    form = form_of(columns(law(1, 2_000, fitted=True)), 7)
    data = sealed(KEY, form.to_json(), "form")
    assert Form.from_json(opened(KEY, data, "form")) == form
    assert b"town" not in data
    for key, body, what in (
        (OTHER, data, "form"),
        (KEY, data[:-1] + bytes([data[-1] ^ 1]), "form"),
        (KEY, data, "other"),
        (KEY, b"", "form"),
    ):
        with pytest.raises(ValueError, match=r"changed|another key"):
            opened(key, body, what)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"x": pa.array([None, None], pa.float64()), "y": ["a", "b"]}),
        pa.table({"x": [1.0], "y": [2]}),
        pa.table({"only": ["a", "b", "a"]}),
        pa.table({"A": [1, 2, 3], "a": [4, 5, 6]}),
        pa.table({"x": pa.array([], pa.int64()), "y": pa.array([], pa.string())}),
    ],
    ids=["no value", "one row", "one column", "names that fold", "no row"],
)
def test_odd_tables_have_forms_and_fingerprints(table: pa.Table) -> None:
    prints, form = printed(table, table, table)
    assert not len(prints.own)
    form.matched(profiles(table))


# ---- fingerprints --------------------------------------------------------------------------------


def printed(
    made: pa.Table, decoys: pa.Table | None, real: pa.Table | None, key: bytes = KEY
) -> tuple[Prints, Form]:
    printing = Printing(made.column_names, key)
    printing.update(made)
    if decoys is not None:
        printing.update_decoys(decoys)
    form = form_of(printing.first(), 7)
    return printing.finish(form, real), form


def asked(prints: Prints, form: Form, table: pa.Table, key: bytes = KEY) -> list[Met]:
    """What a table shares with a release, by all tests that it can be asked."""
    known = columns(table)
    match = form.matched({n: Profile(c) for n, c in known.items()})
    hasher = Printing([c.name for c in form.columns], key).hasher
    numbered = {c.number: known[c.name] for c in match.columns}
    found = [met_on_views(prints, form, match, Cells(hasher, form, numbered, match), 1)]
    if len(numbered) == len(form.columns):
        found.append(met_whole(prints, WholeRows.of(hasher.whole(numbered)), 1))
    return [m for m in found if m is not None]


def test_prints_survive_their_bytes_and_take_at_most_forty_bits_a_row() -> None:
    prints, form = printed(law(1, 20_000, fitted=True), law(2, 16_384, fitted=True), law(3, 5_000))
    data = prints.to_bytes()
    back = Prints.from_bytes(data)
    assert (back.rows, back.distinct, back.trials) == (20_000, prints.distinct, 21_384)
    assert (back.own == prints.own).all()
    assert (back.whole.released == prints.whole.released).all()
    for mine, theirs in zip(prints.views, back.views, strict=True):
        assert all((getattr(mine, n) == getattr(theirs, n)).all() for n in vars(mine))
    alone = replace(prints, views=())
    assert len(alone.to_bytes()) * 8 / prints.distinct <= 40
    wide = io.BytesIO()
    read = pq.read_table(io.BytesIO(data))
    pq.write_table(read.set_column(1, "released", read.column(1).cast("int64")), wide)
    for junk in (b"", data[:-9], b"PAR1" + data, wide.getvalue()):
        with pytest.raises(ValueError, match="no fingerprints"):
            Prints.from_bytes(junk)
    assert len(form.views) == len(prints.views)


def test_nothing_of_real_rows_is_kept() -> None:
    """A release that repeats real rows: nothing is kept of them but cells that
    release and decoys both have."""
    real = law(3, 4_000)
    made = pa.concat_tables([law(1, 4_000, fitted=True), real.slice(0, 500)])
    prints, form = printed(made, law(2, 4_500, fitted=True), real)
    hasher = Printing(made.column_names, KEY).hasher
    numbered = {form.names[n]: c for n, c in columns(real).items()}
    assert not np.isin(hasher.whole(numbered), prints.whole.cells).any()
    cells = Cells(hasher, form, numbered)
    for view, tally in zip(form.views, prints.views, strict=True):
        alone = (tally.released == 0) | (tally.decoys == 0)
        assert not np.isin(cells.view(view), tally.cells[alone]).any()


def test_without_the_key_no_guess_is_confirmed() -> None:
    """An attacker who has the ledger's file, and every row that there may be."""
    values = list(itertools.product("abcdefgh", range(8), ["x", "y"]))
    table = pa.table(
        {
            "one": [v[0] for v in values],
            "two": [v[1] for v in values],
            "three": [v[2] for v in values],
        }
    )
    made = table.take(pa.array(np.random.default_rng(1).permutation(len(values))[:60]))
    prints, form = printed(made, None, None)
    numbered = {form.names[n]: c for n, c in columns(table).items()}
    right = Printing(table.column_names, KEY).hasher.whole(numbered)
    assert np.isin(right, prints.own).sum() == 60
    for guess in (OTHER, b"", bytes(32)):
        wrong = Printing(table.column_names, guess).hasher.whole(numbered)
        assert not np.isin(wrong, prints.own).any()


# ---- tests ---------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(60, 5_000), st.integers(0, 40), st.integers(100, 50_000))
def test_fishers_test_is_scipys(hits: int, n: int, chance: int, trials: int) -> None:
    ours = fisher(hits, n, chance, trials)
    theirs = float(hypergeom.sf(hits - 1, n + trials, hits + chance, n))
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-280)


def odd(seed: int, rows: int) -> pa.Table:
    """Real rows, but only those of one corner, which the model has rows of by chance too."""
    table = law(seed, 12 * rows).to_pandas()
    return pa.Table.from_pandas(
        table[(table["kind"] == "a") & ~table["flag"]].head(rows), preserve_index=False
    )


def few(seed: int, rows: int, *, fitted: bool = False) -> pa.Table:
    """A table of a hundred distinct rows."""
    rng = np.random.default_rng([seed, fitted])
    one = rng.choice(5, rows, p=[0.5, 0.3, 0.15, 0.04, 0.01])
    two = (
        rng.choice(5, rows)
        if fitted
        else (one + rng.choice(5, rows, p=[0.8, 0.1, 0.05, 0.03, 0.02])) % 5
    )
    return pa.table({"one": one, "two": two, "three": rng.choice(["x", "y", "z"], rows)})


def crowd(seed: int, rows: int, *, fitted: bool = False, corner: float = 0.02) -> pa.Table:
    """Rows that are hardly ever equal, but for a corner where nothing was recorded."""
    rng = np.random.default_rng([seed, fitted])
    none = rng.random(rows) < corner
    frame = {f"x{i}": np.where(none, 0.0, rng.normal(size=rows).round(3)) for i in range(4)}
    return pa.table(
        {**frame, "day": rng.integers(0, 365, rows), "place": rng.integers(0, 40, rows)}
    )


def cornered(seed: int, rows: int) -> pa.Table:
    return crowd(seed, rows, corner=1.0)


@pytest.mark.parametrize("kind", ["law", "odd", "few", "crowd", "cornered"])
def test_real_rows_have_p_values_that_chance_gives(kind: str) -> None:
    """Super-uniform, where rows of the model and real ones often coincide, too."""
    draw: dict[str, Callable[[int, int], pa.Table]] = {
        "law": law, "odd": odd, "few": few, "crowd": crowd, "cornered": cornered
    }  # fmt: skip
    make = {"few": few, "crowd": crowd, "cornered": crowd}.get(kind, law)
    p_values = []
    for model in range(2):
        prints, form = printed(
            make(10 + model, 4_000, fitted=True),
            make(20 + model, 4_000, fitted=True),
            make(30 + model, 3_000),
        )
        for seed in range(30):
            rows = (200, 1_000, 4_000)[seed % 3]
            p_values += [
                m.p for m in asked(prints, form, draw[kind](100 + 30 * model + seed, rows))
            ]
    p = np.array(p_values)
    assert len(p) >= 60
    for level in (0.2, 0.05, 0.01):
        assert (p <= level).mean() <= level + 2.5 * (level / len(p)) ** 0.5
    assert p.min() > 1e-4


def test_whole_rows_that_others_have_too_are_asked_beside_decoys() -> None:
    """Of a release far larger than what is known of its model, some of whose rows real rows are."""

    def known(seed: int, rows: int, *, fitted: bool = False) -> pa.Table:
        rng = np.random.default_rng([seed, fitted, 11])
        return pa.table({"a": rng.integers(0, 900, rows), "b": rng.integers(0, 900, rows)})

    prints, form = printed(known(1, 40_000), known(2, 8_000), known(3, 3_000))
    assert prints.chance > RARELY
    back = Prints.from_bytes(prints.to_bytes())
    assert (back.printed, back.beside) == (40_000, 8_000)
    p_values = []
    for seed in range(60):
        honest = known(100 + seed, 5_000)
        if seed % 2:  # freed of equal ones
            honest = pa.table(honest.to_pandas().drop_duplicates())
        (met,) = [m for m in asked(prints, form, honest) if "whole" in m.what]
        p_values.append(met.p)
    p = np.array(p_values)
    assert p.min() > 1e-4
    assert (p <= 0.05).mean() <= 0.12
    hit = []
    for seed in range(20):
        honest = known(200 + seed, 20_000)
        (met,) = [m for m in asked(prints, form, honest) if "whole" in m.what]
        planted = int(np.ceil(met.least * 20_000))
        assert 200 < planted < 8_000
        rng = np.random.default_rng(seed)
        some = known(1, 40_000).take(pa.array(rng.integers(0, 40_000, planted)))
        mixture = pa.concat_tables([honest.slice(planted), some])
        (met,) = [m for m in asked(prints, form, mixture) if "whole" in m.what]
        hit.append(met.p <= ALPHA)
    assert np.mean(hit) >= 0.85


def test_rows_that_are_there_often_do_not_hide_the_others() -> None:
    """Half of a release, and of its decoys, are of a few rows that are there again and again: who
    has copies of these meets decoys with them."""

    def crowded(seed: int, rows: int, *, fitted: bool = True) -> pa.Table:
        rng = np.random.default_rng([seed, fitted, 12])
        often = rng.random(rows) < 0.5 * fitted
        pairs = rng.integers(0, 900, (rows, 2))
        pairs[often] = 1_000 + np.minimum(rng.geometric(0.03, often.sum()), 150)[:, None]
        return pa.table({"a": pairs[:, 0], "b": pairs[:, 1]})

    made = crowded(1, 20_000)
    prints, form = printed(made, crowded(2, 16_384), crowded(3, 20_000, fitted=False))
    assert prints.chance > RARELY
    hit = []
    for seed in range(20):
        honest = crowded(200 + seed, 10_000, fitted=False)
        (met,) = [m for m in asked(prints, form, honest) if "whole" in m.what]
        assert met.p > 1e-4
        planted = int(np.ceil(met.least * honest.num_rows))
        assert 50 < planted < 5_000
        rows = np.random.default_rng(seed).integers(0, made.num_rows, planted)
        mixture = pa.concat_tables([honest.slice(planted), made.take(pa.array(rows))])
        (met,) = [m for m in asked(prints, form, mixture) if "whole" in m.what]
        hit.append(met.p <= ALPHA)
    assert np.mean(hit) >= 0.85


def test_more_decoys_for_whole_rows_leave_views_as_they_are() -> None:
    """On views a coin says of each row whether it was released: so there are as many decoys."""
    made, decoys = law(1, 4_000, fitted=True), law(2, 4_000, fitted=True)
    found = []
    for beside in (decoys.slice(0, 1_000), decoys):
        printing = Printing(made.column_names, KEY, seen=1_000)
        printing.update(made)
        printing.update_decoys(beside)
        found.append(printing.finish(form_of(printing.first(), 7), None))
    few, many = found
    assert (few.beside, many.beside) == (1_000, 4_000)
    for one, other in zip(few.views, many.views, strict=True):
        assert all((getattr(one, n) == getattr(other, n)).all() for n in vars(one))


@pytest.mark.parametrize(
    ("kind", "rows", "decoys"),
    [
        ("table", 100, 100),
        ("table", 20_000, 16_384),
        ("table", 1_000_000, 50_000),
        ("table", 10**8, 2**18),
        ("tables", 10**6, 4_096),
        ("sequences", 10**6, 512),
    ],
)
def test_long_tables_have_a_decoy_for_twenty_rows(kind: str, rows: int, decoys: int) -> None:
    assert _wanted(kind, rows) == decoys


@pytest.mark.parametrize("kind", ["law", "few"])
def test_what_the_power_says_is_found(kind: str) -> None:
    """Rows planted among real ones, as many as `least` says, are found in 19 of 20 tables."""
    make = few if kind == "few" else law
    found = []
    for seed in range(25):
        made = make(10 + seed, 4_000, fitted=True)
        prints, form = printed(made, make(200 + seed, 4_000, fitted=True), make(300 + seed, 3_000))
        real = make(400 + seed, 10_000)
        least = min((m.least for m in asked(prints, form, real)), default=1.0)
        planted = int(np.ceil(least * real.num_rows))
        rng = np.random.default_rng(seed)
        some = made.take(pa.array(rng.integers(0, made.num_rows, planted)))
        mixture = pa.concat_tables([real.slice(planted), some.cast(real.schema)])
        found.append(least >= 1 or any(m.p <= ALPHA for m in asked(prints, form, mixture)))
    assert np.mean(found) >= 0.85


def test_a_view_is_not_asked_where_a_column_is_missing() -> None:
    made = law(1, 4_000, fitted=True)
    prints, form = printed(made, law(2, 4_000, fitted=True), law(3, 3_000))
    part = made.select(["kind", "age", "town"])
    match = form.matched(profiles(part))
    assert all({form.columns[i].name for i in v.columns} <= {"kind", "age", "town"}
               for v in form.views if match.has(v))  # fmt: skip
    assert not Matched(()).has(form.views[0])
    (met,) = asked(prints, form, part)
    assert met.p < 1e-9


def families(seed: int, count: int) -> pa.Table:
    """Ten rows each that are met all or none: what one has in common with others they all have."""
    rng = np.random.default_rng([seed, 6])
    base = rng.choice(6_000, count, replace=False)
    member = np.tile(np.arange(10), count)
    return pa.table(
        {
            "family": np.repeat(np.arange(count), 10),
            "name": [f"n{b}" for b in np.repeat(base, 10)],
            "number": member,
            "street": [f"s{b % 977}" for b in np.repeat(base, 10)],
        }
    )


def test_rows_that_hang_together_count_once() -> None:
    names = ["name", "number", "street"]
    p = {"family": [], None: []}  # type: ignore[var-annotated]
    for seed in range(25):
        for unit, found in p.items():
            printing = Printing(names, KEY, unit=unit)
            printing.update(families(seed, 600))
            assert printing.rows == 6_000
            form = form_of(printing.first(), 7)
            printing.update_decoys(families(100 + seed, 600))
            prints = printing.finish(form, families(200 + seed, 600))
            assert prints.beside == (600 if unit else 6_000)
            found += [m.p for m in asked(prints, form, families(300 + seed, 600).select(names))]
    assert min(p["family"]) > 1e-3
    assert min(p[None]) < 1e-3  # as it would be otherwise


def test_rows_that_are_there_often_are_counted_in_their_own_memory() -> None:
    """What is kept of whole rows, however often each is there; `np.unique` for a reference."""
    rng = np.random.default_rng(5)
    for n, levels in ((1, 1), (10, 3), (200_000, 2**40), (200_000, 1_000), (70_000, 1)):
        printing = Printing(["number"], KEY)
        table = pa.table({"number": rng.integers(0, levels, n)})
        for start in range(0, n, 9_000):
            printing.update(table.slice(start, 9_000))
        words = printing.hasher.whole(printing._columns(table))
        expected, often = np.unique(words, return_counts=True)
        tally = printing.finish(form_of(printing.first(), 7), None).whole
        assert np.array_equal(tally.cells, expected)
        assert np.array_equal(tally.released, np.minimum(often, 2**16 - 1))
        assert not tally.decoys.any()
