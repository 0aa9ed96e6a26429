"""Generated images against real ones, by what a small network sees in them.

The network is taught the classes of real images. Its last hidden layer gives the features in which
images are near or far; its verdicts say what an image shows, whatever its label says. Needs
scikit-learn, which every backend's extra brings.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.errors import MissingExtra, UsageError
from safegen.measure.compared import subset
from safegen.measure.distances import total_variation
from safegen.measure.intervals import share_interval
from safegen.measure.measured import GROUPS, Measured, grouped, jackknife, mean_interval
from safegen.measure.prdc import prdc
from safegen.tables.images import decoded_images

__all__ = ["Exam"]

SIDE = 16  # pixels: larger images are scaled to so many square
MOST = 2_000  # images of a kind in PRDC; of more a random part
LAYERS = (64, 32)
ROUNDS = 200  # over the images, in which a network learns, at most
NEAR = 0.01
FEWEST = 20  # images of a kind that can be compared

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]


class Exam:
    """What generated images are held against: real ones that a generator was shown, and others.

    The network learns from those that were shown, and has seen neither the others nor what is
    generated. Images of any size and mode are brought to the size of the first real one, at most
    16 pixels square, and to grey where all real ones are.
    """

    def __init__(
        self, shown: pa.Table, held: pa.Table, image: str, label: str, *, seed: int = 0
    ) -> None:
        """Teach the network. image, label: the columns.

        Raises: UsageError for fewer than two classes or too few images, SourceError for damaged
        ones, MissingExtra without scikit-learn.
        """
        self._columns, self._seed = (image, label), seed
        _enough(shown, held)
        both = pa.concat_tables([t.select([image, label]) for t in (shown, held)])
        first, _ = decoded_images(image, both.column(image).slice(0, 1))
        self._side = min(SIDE, *first.shape[1:3])
        _, mode = decoded_images(image, both.column(image), self._side)
        self._grey = mode == "L"
        (pixels, labels), n = self._read(both), shown.num_rows
        self._shown, self._held = (pixels[:n], labels[:n]), (pixels[n:], labels[n:])
        self.classes, counts = np.unique(self._shown[1], return_counts=True)
        if len(self.classes) < 2:
            raise UsageError("images are judged by their classes, and here is one class only")
        self.shares: Floats = counts / n
        self._network = _taught(*self._shown, seed)
        nearest = _to_nearest(self._shown[0], self._shown[0], 1)
        self._near = float(np.quantile(nearest, NEAR))

    @property
    def rarest(self) -> str:
        """The class that the fewest shown images have; of several the first."""
        return str(self.classes[self.shares.argmin()])

    def judged(self, made: pa.Table) -> dict[str, Measured]:
        """What is measured of generated images, by name; all intervals are 95 %.

        precision, recall, density, coverage: see `prdc`; against the held-out images, on the
        network's features. class_error, class_error_seen: the total variation of the classes'
        shares from the shown images', in percent, by label and by the network's verdicts.
        rare_share, rare_share_seen: the share of the rarest class over its share in the shown
        images. tstr: how many held-out images a network of the same kind gets right that was
        taught the generated ones. recognised: how many generated images the network sees as their
        label says. copies: how many are as near to a shown image as only 1 % of the shown ones are
        to another of them.

        The network errs, most of all on images of a class of which it was shown few: how much,
        `of_reality` says.

        Raises: UsageError for too few images, SourceError for damaged ones.
        """
        _enough(made)
        pixels, labels = self._read(made.select(list(self._columns)))
        return {
            **self._distances(pixels),
            **self._classes(pixels, labels),
            "tstr": self._tstr(pixels, labels),
            "copies": self._copies(pixels),
        }

    def of_reality(self) -> dict[str, Measured]:
        """The same of real images: precision, recall, density and coverage of the shown ones, what
        the network learned of them, and all else of the held-out ones, as if they were generated.
        """
        pixels, labels = self._held
        classes = self._classes(pixels, labels)
        right = self._network.predict(pixels) == labels
        return {
            **self._distances(self._shown[0]),
            **classes,
            "tstr": self._share("tstr", right, "held-out images, taught by real ones"),
            "copies": self._copies(pixels),
        }

    # ---- each measure ----------------------------------------------------------------------------

    def _distances(self, pixels: Floats) -> dict[str, Measured]:
        real, made = (
            _features(self._network, some[subset(len(some), MOST, self._seed)])
            for some in (self._held[0], pixels)
        )
        return prdc(real, made, seed=self._seed)

    def _classes(self, pixels: Floats, labels: Labels) -> dict[str, Measured]:
        """By label and by verdict."""
        verdicts = self._network.predict(pixels)
        found = {
            "recognised": self._share("recognised", verdicts == labels, "verdicts equal to labels")
        }
        share = float(self.shares.min())
        for suffix, ours, how in (
            ("", labels, "by label"),
            ("_seen", verdicts, "by a small network's verdicts"),
        ):
            error, rare = f"class_error{suffix}", f"rare_share{suffix}"
            found[error] = self._class_error(error, ours, how)
            found[rare] = self._share(rare, ours == self.rarest, how, share)
        return found

    def _class_error(self, name: str, ours: Labels, how: str) -> Measured:
        real = self._shown[1]
        codes = [self._codes(x)[grouped(len(x), self._seed)] for x in (real, ours)]
        left = jackknife(codes[0], codes[1], len(self.classes) + 1, total_variation)
        value, (low, high) = mean_interval([left], 0.0, 1.0)
        how = (
            f"total variation {how}; 95 % by a jackknife of {GROUPS} groups of images of each kind"
        )
        interval = (100 * low, 100 * high)
        return Measured(name, 100 * value, interval, len(ours), len(real), how, self._seed)

    def _tstr(self, pixels: Floats, labels: Labels) -> Measured:
        truth = self._held[1]
        if len(np.unique(labels)) < 2:
            right = truth == labels[0]
        else:
            right = _taught(pixels, labels, self._seed).predict(self._held[0]) == truth
        return self._share("tstr", right, "held-out images, taught by generated ones")

    def _copies(self, pixels: Floats) -> Measured:
        near = _to_nearest(pixels, self._shown[0], 0) <= self._near
        return self._share("copies", near, f"within the {NEAR:.0%} quantile of real distances")

    def _share(self, name: str, hits: npt.NDArray[Any], how: str, over: float = 1.0) -> Measured:
        count, n = int(hits.sum()), len(hits)
        low, high = share_interval(count, n)
        interval = (low / over, high / over)
        real = len(self._shown[1])
        return Measured(name, count / n / over, interval, n, real, f"{how}; Wilson's", self._seed)

    # ---- images and networks ---------------------------------------------------------------------

    def _read(self, table: pa.Table) -> tuple[Floats, Labels]:
        """Pixels (n, numbers) from 0 to 1, and labels as text (n,)."""
        image, label = self._columns
        pixels, mode = decoded_images(image, table.column(image), self._side)
        if not self._grey:  # an alpha channel is left out
            pixels = pixels[..., [0, 0, 0]] if mode == "L" else pixels[..., :3]
        labels = np.array([str(value) for value in table.column(label).to_pylist()])
        return pixels.reshape(len(pixels), -1) / 255, labels

    def _codes(self, labels: Labels) -> npt.NDArray[np.int64]:
        """Numbers of classes; one more than there are for a label that no shown image has."""
        codes = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        return np.where(self.classes[codes] == labels, codes, len(self.classes))


def _enough(*tables: pa.Table) -> None:
    """Raises: UsageError."""
    if (least := min(table.num_rows for table in tables)) < FEWEST:
        raise UsageError(f"too few images to compare: {least}, and {FEWEST} is least")


def _taught(pixels: Floats, labels: Iterable[str], seed: int) -> Any:
    try:
        from sklearn.neural_network import MLPClassifier
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra(
            "this measurement needs scikit-learn: pip install 'safegen[sdv]'"
        ) from None
    network = MLPClassifier(LAYERS, max_iter=ROUNDS, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # that it could learn on
        return network.fit(pixels, labels)


def _features(network: Any, pixels: Floats) -> Floats:
    """What the last hidden layer says of each image: (n, 32)."""
    found = pixels
    for weights, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
        found = np.maximum(found @ weights + bias, 0.0)
    return found


def _to_nearest(pixels: Floats, others: Floats, rank: int) -> Floats:
    """Each image's distance to its nearest of the others; rank 1: to the nearest but one, which
    for images that are among the others is the nearest but itself."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=rank + 1, algorithm="brute").fit(others)
    distances: Floats = search.kneighbors(pixels)[0][:, rank]
    return distances
