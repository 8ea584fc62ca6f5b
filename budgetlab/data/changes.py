"""Changes to samples: edits by hand, class imbalance, planted copies, label noise.

The functions choose positions and labels from plain arrays, with a given random generator.
:func:`budgetlab.data.load` checks the settings and applies all of them in a fixed order.
"""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from budgetlab.data.arrays import with_true_labels
from budgetlab.data.dataset import Dataset, draw_per_class, stratified
from budgetlab.devices import numpy_generator
from budgetlab.errors import InputError, counted, reason, unknown
from budgetlab.records import write_file

ACTIONS = {
    "drop": "left out, whatever its split",
    "relabel": "gets another label",
    "mark": "kept as it is, and marked in the metadata",
    "true": "kept as it is, with its true label, by which measures of wrong labels are evaluated",
}
COLUMNS = ("origin", "action", "label", "note")
# The annotator of instance-dependent noise sees images of at most this side length, and shrinks
# their covariance by this share.
ANNOTATOR_SIDE = 8
ANNOTATOR_SHRINKAGE = 0.1


class Edits:
    """Edits of single samples by their ``origin``, applied on loading.

    Stored as a table with the columns ``origin``, ``action`` (:data:`ACTIONS`), ``label`` (class
    name, for ``relabel`` and ``true``) and ``note``, which can also be written by hand. The origin
    in built-in data is the number of a training sample, or a text such as ``test/17``. The later
    of two contradicting rows wins. Methods take samples as a list of origins, or as a frame with
    that column, such as from :func:`budgetlab.analysis.triage`.

    ``path``: the CSV file; it need not exist yet.

    Examples
    --------
    >>> edits = bl.data.Edits.beside("folder:~/flowers")  # doctest: +SKIP
    >>> edits.drop(["rose/17.jpg"]).relabel({"rose/4.jpg": "tulip"}).save()  # doctest: +SKIP
    >>> splits = bl.data.load("folder:~/flowers", edits=edits)  # doctest: +SKIP
    """

    def __init__(self, path: Path | str):
        self.path = Path(os.path.expanduser(path))
        self.table = _read(self.path) if self.path.exists() else pd.DataFrame(columns=[*COLUMNS])
        self._found_origins: set[str] = set()

    @classmethod
    def beside(cls, dataset: str) -> "Edits":
        """Open the edits stored beside ``folder:PATH`` or ``npz:PATH``, never inside it."""
        kind, _, path = dataset.partition(":")
        if kind not in ("folder", "npz") or not path:
            raise InputError(f"'{dataset}' lies in no place: give folder:PATH or npz:PATH")
        place = Path(os.path.expanduser(path)).absolute()
        return cls(place.with_name(f"{place.name}.edits.csv"))

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        said = ", ".join(f"{action} {count}" for action, count in self.counts.items())
        return f"Edits({str(self.path)!r}: {said or 'none'})"

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples by action."""
        return self._effective()["action"].value_counts().to_dict()

    def drop(self, samples: pd.DataFrame | Iterable[str], note: str = "") -> "Edits":
        """Leave samples out."""
        return self._add("drop", dict.fromkeys(_origins(samples), ""), note)

    def mark(self, samples: pd.DataFrame | Iterable[str], note: str = "") -> "Edits":
        """Mark samples for a second look."""
        return self._add("mark", dict.fromkeys(_origins(samples), ""), note)

    def relabel(self, labels: Mapping[str, str], note: str = "") -> "Edits":
        """Change labels, given as class names by origin."""
        return self._add("relabel", labels, note)

    def true_label(self, labels: Mapping[str, str], note: str = "") -> "Edits":
        """Record true labels, without changing the labels that are trained on."""
        return self._add("true", labels, note)

    def _add(self, action: str, labels: Mapping[str, str], note: str) -> "Edits":
        rows = [(origin, action, str(label), note) for origin, label in labels.items()]
        added = pd.DataFrame(rows, columns=[*COLUMNS], dtype=object)
        self.table = pd.concat([self.table, added], ignore_index=True)
        return self

    def undo(self, samples: pd.DataFrame | Iterable[str]) -> "Edits":
        """Remove all edits of samples."""
        self.table = self.table[~self.table["origin"].isin(_origins(samples))]
        return self

    def save(self) -> Path:
        """Write the table to its file."""
        return write_file(self.path, self.table.to_csv(index=False).encode())

    def _effective(self) -> pd.DataFrame:
        """Return the rows in effect: the last of each kind per sample, drop and relabel as one."""
        kind = self.table["action"].replace({"relabel": "drop"})
        return self.table[~self.table.assign(kind=kind).duplicated(["origin", "kind"], keep="last")]

    def _labels_by_origin(self, action: str) -> pd.Series:
        rows = self._effective()
        return rows[rows["action"] == action].set_index("origin")["label"]

    def choose(
        self, y: np.ndarray, origins: np.ndarray, classes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Relabel and drop samples; return new labels and kept positions, ``[M]`` of ``[N]``."""
        shown = pd.Series(origins).astype(str)
        self._found_origins.update(shown)
        new = shown.map(self._labels_by_origin("relabel")).set_axis(shown)
        given = new.notna().to_numpy()
        changed = y.copy()
        changed[given] = [
            self._number(origin, name, classes) for origin, name in new[given].items()
        ]
        kept = np.flatnonzero(~shown.isin(self._labels_by_origin("drop").index).to_numpy())
        return changed[kept], kept

    def noted(self, samples: Dataset) -> Dataset:
        """Add ``marked``, ``relabelled`` and true labels from the edits to the metadata."""
        shown = pd.Series(samples.origins).astype(str)
        added = {column: shown.isin(listed).to_numpy()
                 for action, column in (("mark", "marked"), ("relabel", "relabelled"))
                 if len(listed := self._labels_by_origin(action).index)}  # fmt: skip
        samples = replace(samples, metadata=samples.metadata.assign(**added))
        true = shown.map(self._labels_by_origin("true"))
        if not true.notna().any():
            return samples
        for origin, name in true.set_axis(shown).dropna().items():
            self._number(origin, name, samples.classes)
        return with_true_labels(samples, [None if pd.isna(name) else name for name in true])

    def _number(self, origin: object, name: str, classes: Sequence[str]) -> int:
        if name not in classes:
            said = unknown("class", name, classes)
            raise InputError(f"edits '{self.path}' of '{origin}': {said}")
        return [*classes].index(name)

    def require_all_found(self) -> None:
        """Raise an error if there are edits of samples that the data does not have."""
        lost = [origin for origin in self.table["origin"] if origin not in self._found_origins]
        if lost:
            raise InputError(
                f"edits '{self.path}' name {counted(len(set(lost)), 'sample')} missing from the "
                f"data, first '{lost[0]}': give origins as in its metadata, or remove these rows"
            )


def _origins(samples: pd.DataFrame | Iterable[str]) -> list[str]:
    if isinstance(samples, pd.DataFrame):
        if "origin" not in samples and "index" not in samples:
            raise InputError("this frame has no column origin: give one as from triage")
        return samples.get("origin", samples.get("index")).astype(str).tolist()
    if isinstance(samples, str):
        raise InputError(f"'{samples}' is one text: give a list of origins")
    return [str(one) for one in samples]


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()), dtype=str, keep_default_na=False).rename(
            columns=lambda name: name.strip().lower()
        )
    except (ValueError, OSError) as error:
        raise InputError(f"edits '{path}' cannot be read as a table: {reason(error)}") from None
    if not {"origin", "action"} <= set(table.columns):
        raise InputError(
            f"edits '{path}' need the columns origin and action: they have {[*table.columns]}"
        )
    table["action"] = table["action"].str.strip().str.lower()
    for column in ("label", "note"):
        if column not in table:
            table[column] = ""
    for row, action in enumerate(table["action"]):
        if action not in ACTIONS:
            raise InputError(f"edits '{path}', row {row + 1}: {unknown('action', action, ACTIONS)}")
    return table[[*COLUMNS]]


def imbalanced(y: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Choose positions of labels ``[N]`` so that class sizes fall exponentially over the classes.

    Class k of K keeps ``n_0 * ratio ** (-k / (K - 1))`` samples, at least one (Cui et al., CVPR
    2019, section 5), with the largest ``n_0`` for which every class has enough samples. Positions
    are int64, ascending.
    """
    if ratio == 1:
        return np.arange(len(y), dtype=np.int64)
    labels, sizes = np.unique(y, return_counts=True)
    profile = ratio ** (-np.arange(len(labels)) / max(1, len(labels) - 1))
    largest = (sizes / profile).min()
    keep = np.maximum(1, np.rint(largest * profile)).astype(np.int64)
    return draw_per_class(y, keep, generator)


def redundant(
    y: np.ndarray, share: float, copies: int, generator: np.random.Generator
) -> np.ndarray:
    """Choose samples to replace by copies of a few others, stratified by class.

    ``round(share * N)`` samples are each replaced by a copy of a sample of the same class, so that
    class sizes do not change. If ``m`` samples of a class are replaced, ``round(m / copies)`` of
    its other samples are copied, at least one, equally often or differing by one.

    Returns for labels ``[N]`` the position of the sample whose values each one takes, int64
    ``[N]``; its own if it is not replaced.
    """
    source = np.arange(len(y), dtype=np.int64)
    replaced = stratified(y, round(share * len(y)), generator)
    for label in np.unique(y[replaced]):
        gone = replaced[y[replaced] == label]
        kept = np.setdiff1d(np.flatnonzero(y == label), gone)
        if not len(kept):
            raise InputError(
                f"redundancy {share:g} leaves class {label} nothing to copy: give a smaller share"
            )
        count = min(len(kept), max(1, round(len(gone) / copies)))
        originals = generator.permutation(kept)[:count]
        source[gone] = originals[np.arange(len(gone)) % count]
    return source


def varied(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Vary images slightly: a shift of up to one pixel each way, brightness by up to 10%.

    Images are uint8 ``[N, C, H, W]``; in float ``[N, features]`` each value changes by up to 1%
    of the feature's standard deviation.
    """
    if x.ndim != 4:
        moved = generator.uniform(-0.01, 0.01, x.shape) * x.std(axis=0)
        return (x + moved).astype(x.dtype)
    right, down = generator.integers(-1, 2, (2, len(x)))
    brightness = generator.uniform(0.9, 1.1, len(x))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = x.shape[2:]
    changed = np.empty_like(x)
    for number, image in enumerate(padded):
        top, left = 1 + down[number], 1 + right[number]
        part = image[:, top : top + height, left : left + width] * brightness[number]
        changed[number] = np.clip(np.rint(part), 0, 255)
    return changed


def noisy_labels(
    y: np.ndarray,
    classes: int,
    rate: float,
    kind: str,
    generator: np.random.Generator,
    x: np.ndarray,
) -> np.ndarray:
    """Make exactly ``round(rate * N)`` of the true labels ``[N]``, each in [0, classes), wrong.

    ``symmetric``: any other class, equally likely; ``pair``: the next class, the last one becoming
    the first; ``instance``: the mistakes of an :func:`annotator` of the samples ``x [N, ...]``.
    There the probability of a wrong label is proportional to ``1 - P(true class | x)``, and the
    wrong label is drawn from ``P`` over the other classes, so that hard samples are wrong more
    often, and labelled as what they look like.
    """
    if rate and classes < 2:
        raise InputError("label noise needs at least 2 classes: this data has 1")
    changed = y.copy()
    count = round(rate * len(y))
    if kind == "instance":
        return _annotator_mistakes(y, annotator(x, y, classes, generator), count, generator)
    chosen = generator.permutation(len(y))[:count]
    step: int | np.ndarray = 1
    if kind == "symmetric" and classes > 1:
        # A step of 1 to C - 1 reaches each other class once and never the true one.
        step = generator.integers(1, classes, len(chosen))
    changed[chosen] = (y[chosen] + step) % classes
    return changed


def _annotator_mistakes(
    y: np.ndarray, chance: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Change ``count`` labels, as an annotator with the probabilities ``chance [N, C]`` would."""
    rows = np.arange(len(y))
    # A floor, so that any number of labels can be changed.
    doubt = np.maximum(1 - chance[rows, y], 1e-12)
    # An exponential race: the same as drawing one by one in proportion to doubt.
    chosen = np.argsort(generator.exponential(size=len(y)) / doubt, kind="stable")[:count]
    others = chance[chosen] + 1e-12
    others[np.arange(count), y[chosen]] = 0
    ends = np.cumsum(others, axis=1)
    place = generator.random(count) * ends[:, -1]
    changed = y.copy()
    # The first end above the place; the true class has no width and is never drawn.
    changed[chosen] = (ends > place[:, None]).argmax(axis=1)
    return changed


def annotator(
    x: np.ndarray, y: np.ndarray, classes: int, generator: np.random.Generator
) -> np.ndarray:
    """Estimate ``P(class | x)`` of each sample by a simple model, float64 ``[N, C]``.

    The model is linear discriminant analysis on thumbnails of the images (at most 8 pixels a
    side) with a shrinkage of 0.1. Each half is judged by the model of the other half, so that no
    sample is judged by a model that has seen its label. Instance-dependent noise from a model's
    doubt is due to Chen et al. (*Beyond class-conditional assumption*, AAAI 2021), who train a
    network for it.
    """
    features = _small(x)
    chance = np.empty((len(y), classes))
    order = generator.permutation(len(y))
    halves = order[: len(y) // 2], order[len(y) // 2 :]
    for judged, learned in (halves, halves[::-1]):
        if len(judged):
            chance[judged] = _discriminant(features[learned], y[learned], features[judged], classes)
    return chance


def _small(x: np.ndarray) -> np.ndarray:
    """Return features ``[N, D]``: the points, or sums over blocks of pixels."""
    if x.ndim != 4:
        return x.reshape(len(x), -1).astype(np.float64)
    rows, columns = (max(1, -(-side // ANNOTATOR_SIDE)) for side in x.shape[2:])
    tops, lefts = np.arange(0, x.shape[2], rows), np.arange(0, x.shape[3], columns)
    parts = []
    for part in np.array_split(x, max(1, len(x) // 1024)):
        sums = np.add.reduceat(part.astype(np.float32), tops, axis=2)
        parts.append(np.add.reduceat(sums, lefts, axis=3).reshape(len(part), -1))
    return np.concatenate(parts).astype(np.float64)


def _discriminant(x: np.ndarray, y: np.ndarray, queries: np.ndarray, classes: int) -> np.ndarray:
    """Compute class probabilities ``[M, C]`` of ``asked [M, D]`` by discriminant analysis."""
    if not len(y):
        return np.full((len(queries), classes), 1 / classes)
    member = np.eye(classes)[y]
    counts = member.sum(axis=0)
    centre = x.mean(axis=0)
    # A class without samples here has the overall mean; each prior counts half a sample more.
    means = np.where(counts[:, None] > 0, member.T @ x / np.maximum(counts, 1)[:, None], centre)
    around = x - means[y]
    covariance = around.T @ around / len(y)
    size = np.trace(covariance) / len(covariance) or 1.0
    shrunk = (1 - ANNOTATOR_SHRINKAGE) * covariance
    shrunk = shrunk + np.eye(len(covariance)) * (ANNOTATOR_SHRINKAGE * size)
    weights = np.linalg.solve(shrunk, (means - centre).T)
    prior = np.log((counts + 0.5) / (counts + 0.5).sum())
    logits = (queries - centre) @ weights - ((means - centre).T * weights).sum(axis=0) / 2 + prior
    chance = np.exp(logits - logits.max(axis=1, keepdims=True))
    return chance / chance.sum(axis=1, keepdims=True)


def repeat(train: Dataset, share: float, copies: int, kind: str, seed: int) -> Dataset:
    """Replace some samples by copies of a few others, recorded in the metadata (``copy_of``)."""
    generator = numpy_generator(seed, "redundancy")
    source = redundant(train.y.numpy(), share, copies, generator)
    repeated = train.select(source)
    if kind == "varied":
        is_copy = source != np.arange(len(source))
        x = repeated.x.numpy().copy()
        x[is_copy] = varied(x[is_copy], generator)
        repeated = replace(repeated, x=torch.from_numpy(x))
    return replace(repeated, metadata=repeated.metadata.assign(copy_of=source))


def mislabel(train: Dataset, rate: float, kind: str, seed: int) -> Dataset:
    """Add label noise, recorded in the metadata (``true_label``, ``is_noisy``)."""
    y = train.y.numpy()
    generator = numpy_generator(seed, "noise")
    given = noisy_labels(y, len(train.classes), rate, kind, generator, train.x.numpy())
    # True labels that are already known stay so when noise is added.
    true = train.metadata.get("true_label", pd.Series(y)).fillna(pd.Series(y)).to_numpy(np.int64)
    metadata = train.metadata.assign(true_label=true, is_noisy=given != true)
    return replace(train, y=torch.from_numpy(given), metadata=metadata)
