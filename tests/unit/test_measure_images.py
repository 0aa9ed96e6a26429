"""The judge of images: what real images reach, and each fault that it is there to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.errors import UsageError
from safegen.measure.images import Exam
from safegen.tables.image_folders import from_arrays

SHOWN, HELD = 800, 1_300  # where the digits are cut: shown, held out, and others


def digits(rows: Any) -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))[rows]
    pixels = np.round(found.images[order] * (255 / 16)).astype(np.uint8)
    return {"image": pixels, "label": found.target[order].astype(str)}


def table(arrays: dict[str, np.ndarray]) -> pa.Table:
    return from_arrays(arrays)


@pytest.fixture(scope="module")
def exam() -> Exam:
    shown, held = table(digits(slice(0, SHOWN))), table(digits(slice(SHOWN, HELD)))
    return Exam(shown, held, "image", "label")


@pytest.fixture
def others() -> dict[str, np.ndarray]:
    """Real images that the exam has not seen: a perfect generator's."""
    return digits(slice(HELD, None))


def test_real_images_pass(exam: Exam, others: dict[str, np.ndarray]) -> None:
    made = exam.judged(table(others))
    real = exam.of_reality()
    for name in ("precision", "recall", "coverage", "tstr", "recognised"):
        assert made[name].value > 0.85
        low, high = real[name].interval
        assert low <= real[name].value <= high
    for name in ("rare_share", "rare_share_seen"):
        low, high = made[name].interval
        assert low < 1 < high
    # Ten shares of some 500 images each differ by some sqrt(2 · .1 · .9 / (500 π)) on average.
    for name in ("class_error", "class_error_seen"):
        assert made[name].value < 10
    # One of a hundred by what near is, and four deviations of a binomial share.
    most = 0.01 + 4 * (0.01 * 0.99 / 497) ** 0.5
    assert max(made["copies"].value, real["copies"].value) < most
    assert all(m.n > 0 and m.real_n > 0 and m.method for m in made.values())
    assert all(m.interval[0] <= m.value <= m.interval[1] for m in made.values())


def test_the_same_images_give_the_same_figures(exam: Exam, others: dict[str, np.ndarray]) -> None:
    shown, held = table(digits(slice(0, SHOWN))), table(digits(slice(SHOWN, HELD)))
    assert Exam(shown, held, "image", "label").judged(table(others)) == exam.judged(table(others))


def test_a_class_that_is_gone_is_seen_by_label_and_by_what_is_shown(
    exam: Exam, others: dict[str, np.ndarray]
) -> None:
    kept = others["label"] != exam.rarest
    gone = exam.judged(table({name: a[kept] for name, a in others.items()}))
    assert gone["rare_share"].value == 0
    assert gone["rare_share_seen"].value < 0.1
    assert gone["class_error"].value >= 100 * exam.shares.min()
    # Under its label there is something else: only the network can tell.
    hidden = others | {"image": np.where(kept[:, None, None], others["image"], others["image"][0])}
    assert others["label"][0] != exam.rarest
    found = exam.judged(table(hidden))
    assert found["rare_share"].value > 0.5
    assert found["rare_share_seen"].value < 0.1


def test_shuffled_labels_are_found(exam: Exam, others: dict[str, np.ndarray]) -> None:
    labels = np.random.default_rng(1).permutation(others["label"])
    honest, found = exam.judged(table(others)), exam.judged(table(others | {"label": labels}))
    chance, n = float((exam.shares**2).sum()), len(labels)
    assert found["recognised"].value < chance + 4 * (chance * (1 - chance) / n) ** 0.5 + 0.02
    assert found["tstr"].value < 0.5 < honest["tstr"].value
    assert found["coverage"] == honest["coverage"]  # of images alone


def test_few_images_many_times_lose_recall_and_coverage(
    exam: Exam, others: dict[str, np.ndarray]
) -> None:
    some = np.arange(len(others["label"])) % 20
    honest = exam.judged(table(others))
    found = exam.judged(table({name: a[some] for name, a in others.items()}))
    for name in ("recall", "coverage"):
        assert found[name].interval[1] < honest[name].interval[0]


def test_averages_lose_recall_and_keep_precision(exam: Exam, others: dict[str, np.ndarray]) -> None:
    """What a generator does that seeks the middle: half an image, half its class' mean."""
    pixels = others["image"].astype(float)
    for label in np.unique(others["label"]):
        rows = others["label"] == label
        pixels[rows] = (pixels[rows] + pixels[rows].mean(axis=0)) / 2
    honest = exam.judged(table(others))
    found = exam.judged(table(others | {"image": pixels.astype(np.uint8)}))
    assert found["precision"].value >= honest["precision"].interval[0]
    assert found["recall"].interval[1] < honest["recall"].interval[0]


def test_copies_are_found(exam: Exam) -> None:
    shown = digits(slice(0, SHOWN))
    assert exam.judged(table(shown))["copies"].value == 1
    noise = np.random.default_rng(0).integers(0, 2, shown["image"].shape, dtype=np.uint8)
    near = np.minimum(shown["image"], 254) + noise  # one grey level is no other image
    assert exam.judged(table(shown | {"image": near}))["copies"].value > 0.95


def test_a_generator_of_one_class_is_judged(exam: Exam, others: dict[str, np.ndarray]) -> None:
    one = others["label"] == "3"
    found = exam.judged(table({name: a[one] for name, a in others.items()}))
    truth = digits(slice(SHOWN, HELD))["label"] == "3"
    assert found["tstr"].value == pytest.approx(truth.mean())
    assert found["class_error"].value > 80


@pytest.mark.parametrize("channels", [3, 4])
def test_images_of_any_size_and_colour_are_judged(channels: int) -> None:
    """Red classes and green ones, 24 pixels high: grey alone would not tell them apart."""

    def coloured(seed: int, n: int = 120) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = rng.choice(["green", "red"], n)
        pixels = rng.integers(0, 80, (n, 24, 32, channels), dtype=np.uint8)
        pixels[..., 3:] = 255
        pixels[labels == "red", ..., 0] += 150
        pixels[labels == "green", ..., 1] += 150
        return {"image": pixels, "label": labels}

    exam = Exam(table(coloured(0)), table(coloured(1)), "image", "label")
    assert exam.judged(table(coloured(2)))["recognised"].value == 1
    grey = coloured(3)
    grey["image"] = grey["image"][..., :1]  # as a model of grey images makes them
    assert exam.judged(table(grey))["recognised"].n == 120


def test_one_class_or_too_few_images_are_refused(others: dict[str, np.ndarray]) -> None:
    few, same = table(others).slice(0, 5), others | {"label": np.full_like(others["label"], "1")}
    with pytest.raises(UsageError, match="one class only"):
        Exam(table(same), table(others), "image", "label")
    with pytest.raises(UsageError, match="too few images"):
        Exam(table(others), few, "image", "label")
