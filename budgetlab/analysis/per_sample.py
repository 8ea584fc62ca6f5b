"""Per-sample measures from one recorded history.

Every measure runs over the visits of a sample: the epochs in which it was trained
on, each counted once, with what was seen at the last training forward of that epoch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from budgetlab.errors import InputError, unknown
from budgetlab.records import SAMPLE_ARRAYS, OneRecord, Record, open_record

_MEASURES = {
    "times_trained": (0, "times in a training batch"),
    "last_loss": (1, "loss at the last visit, nats"),
    "mean_loss": (1, "mean loss over the visits, nats"),
    "confidence": (-1, "mean probability of the label"),
    "variability": (0, "standard deviation of the probability of the label"),
    "correctness": (-1, "share of visits classified right"),
    "forgetting": (1, "forgetting events"),
    "aum": (-1, "area under the margin (mean margin)"),
    "el2n": (1, "mean length of the error vector"),
    "el2n_early": (1, "EL2N: mean length of the error vector, early epochs"),
    "first_learned": (1, "first epoch classified right"),
    "learned_for_good": (1, "epoch from which it was always classified right"),
    "grand": (1, "GraNd: norm of the gradient"),
    "influence": (1, "influence of a sample on its own loss"),
    "aum_stratum": (0, "CCS: range of AUM, 0 easiest to 49 hardest"),
    "dyn_unc": (0, "Dyn-Unc: deviation of the probability within ten epochs"),
    "dual": (0, "DUAL: that deviation times the error, first 30 epochs"),
    "tdds": (0, "TDDS: unevenness of the changes of the probability, late epochs first"),
}
HARD = {name: sign for name, (sign, _) in _MEASURES.items()}
"""Direction of each measure: 1 where a high value is hard, -1 where a low one is,
0 where it says something else (how often a method chose; how much a model wavers; what a core
set is chosen by)."""

MEANINGS = {name: meaning for name, (_, meaning) in _MEASURES.items()}
"""What each measure is, as axes say it."""

LEARNING = {
    "early": "right from a visit in the first half of the epochs on, with at most one lapse before",
    "late": "right from a visit in the second half of the epochs on, with at most one lapse before",
    "unstable": "right at the last visit, after two lapses or more",
    "forgotten": "right at some visit and wrong at the last",
    "never": "wrong at every visit",
    "not seen": "never trained on",
}
"""How the learning of a sample went. A lapse is a wrong visit right after a right one."""

PRUNING = ("el2n_early", "forgetting", "aum", "dyn_unc", "dual", "tdds")
"""Measures by which a core set is chosen; with ``measure_agreement``, high is what is kept."""

WINDOW, DUAL_EPOCHS, DECAY = 10, 30, 0.9
STRATA = 50
TINY = 1e-8
BLOCK = 4_000_000  # values of one array held at a time


def read_epochs(
    record: Record, names: Sequence[str], epochs: int | None = None
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield the number of each epoch, from 1, and its per-sample arrays ``[N]``.

    A few epochs are read at a time, so that memory stays bounded.
    """
    data = record.samples
    total, size = data.sizes["epoch"], max(data.sizes["sample"], 1)
    if epochs is not None:
        if not (isinstance(epochs, int | np.integer) and epochs >= 1):
            raise InputError(f"epochs {epochs!r} is not allowed: give a whole number from 1")
        total = min(total, epochs)
    step = max(1, BLOCK // size)
    for start in range(0, total, step):
        rows = slice(start, min(start + step, total))
        block = {name: data[name].isel(epoch=rows).to_numpy() for name in names}
        for row in range(rows.stop - start):
            yield start + row + 1, {name: values[row] for name, values in block.items()}


def require_epochs(record: Record) -> None:
    """Refuse a record without an epoch, and say whether that is because a file is lost."""
    if record.samples.sizes["epoch"]:
        return
    if record.status == "finished" and not (record.path / "epochs.csv").is_file():
        raise InputError(
            f"'{record.path / 'epochs.csv'}' is missing, and without it there is no history: "
            "restore it, or train again"
        )
    raise InputError(f"'{record.path}' holds no finished epoch: train for longer")


def measures(
    record: OneRecord, *, epochs: int | None = None, el2n_epochs: int = 10
) -> pd.DataFrame:
    """Compute every measure of every training sample.

    Parameters
    ----------
    record
        A record, or its folder, with per-sample history and at least one epoch.
    epochs
        Use only the first so many epochs; all by default.
    el2n_epochs
        ``el2n_early`` is the mean over the visits in the first so many epochs.

    Returns
    -------
    DataFrame
        One row per sample, index ``sample`` from 0: what is known of it (``label`` and metadata),
        ``times_trained``, ``visits`` (epochs in which it was trained on), and, NaN without a
        visit, the measures of :data:`MEANINGS`; :data:`HARD` says which direction is hard.

        ``confidence``, ``variability``, ``correctness``
            Mean of ``p_y``, its population standard deviation, share of visits
            classified right (Swayamdipta et al. 2020).
        ``forgetting``
            Visits that were wrong right after a visit that was right; infinite for a
            sample never right (Toneva et al. 2019).
        ``aum``
            Mean over the visits of the logit of the label less the highest other one
            (Pleiss et al. 2020).
        ``el2n``, ``el2n_early``
            Mean of ``||softmax - onehot||_2`` over all visits, as ``History.el2n``, and
            over early ones, which is the EL2N of Paul et al. (2021).
        ``first_learned``, ``learned_for_good``
            Epoch of the first visit classified right, and of the first of those after
            which no visit was wrong; infinite for never.
        ``aum_stratum``, ``dyn_unc``, ``dual``, ``tdds``
            What the core sets of these names are chosen by (``ccs`` by the first), see
            :data:`PRUNING`. ``dyn_unc`` and ``dual`` take two visits within ten epochs,
            ``tdds`` three, and all other classes as one, as a record keeps no other probability.
        ``learning``
            How its learning went, in a word: one of :data:`LEARNING`.
    """
    record = open_record(record)
    data = record.samples
    require_epochs(record)
    sums = _Sums(data.sizes["sample"])
    for epoch, row in read_epochs(record, _Sums.ARRAYS, epochs):
        sums.add(epoch, row, early=epoch <= el2n_epochs)
    known = {name: data[name].to_numpy() for name in metadata(record)}
    known = {"label": known.pop("label"), **known} if "label" in known else known
    index = pd.RangeIndex(data.sizes["sample"], name="sample")
    frame = pd.DataFrame(known | sums.results(), index=index)
    # Written as numbers where the truth of some samples is not known.
    for name, kind in (("is_noisy", "boolean"), ("true_label", "Int64")):
        if name in frame and frame[name].dtype.kind == "f":
            frame[name] = frame[name].astype(kind)
    return frame


def metadata(record: OneRecord) -> list[str]:
    """Names of what is known of each sample beside its history, the label among them."""
    data = open_record(record).samples
    return [str(n) for n in data if data[n].dims == ("sample",) and n not in SAMPLE_ARRAYS]


def aum_strata(aum: np.ndarray, count: int = STRATA) -> np.ndarray:
    """Ranges of AUM of the same width from which CCS draws evenly (Zheng et al., ICLR 2023).

    ``aum [N]`` is NaN for a sample never visited, and so is its range; the others have 0 for the
    easiest range to ``count - 1`` for the hardest.
    """
    if np.isnan(aum).all():
        return np.full(len(aum), np.nan)
    high, width = np.nanmax(aum), max(np.ptp(aum[~np.isnan(aum)]), 1e-300)
    return np.minimum(np.floor((high - aum) / width * count), count - 1)


class _Window:
    """Sums over the last ``length`` epochs of a value, ``[N]`` each; NaN for no visit."""

    def __init__(self, size: int, length: int):
        self._rows = np.full((length, size), np.nan, np.float32)
        self._next = self.epochs = 0
        self.count, self._sum, self._squares = np.zeros((3, size))

    def add(self, row: np.ndarray) -> bool:
        """Take in an epoch, and let the oldest go; whether the window is full."""
        for values, sign in ((self._rows[self._next], -1), (row, 1)):
            known = ~np.isnan(values)
            value = np.where(known, values, 0).astype(np.float64)
            self.count += sign * known
            self._sum += sign * value
            self._squares += sign * value**2
        self._rows[self._next] = row
        self._next = (self._next + 1) % len(self._rows)
        self.epochs += 1
        return self.epochs >= len(self._rows)

    def mean(self) -> np.ndarray:
        return self._sum / self.count

    def deviation(self) -> np.ndarray:
        """Sample standard deviation; NaN of fewer than two values."""
        squares = np.maximum(self._squares - self._sum**2 / self.count, 0)
        return np.where(self.count > 1, np.sqrt(squares / (self.count - 1)), np.nan)


class PruningScores:
    """Dyn-Unc, DUAL and TDDS over windows of ten epochs, fed one epoch of all samples at a time.

    A run of fewer epochs has one window. Memory is that of twenty epochs of one value.
    :mod:`budgetlab.samplers.core_sets` has the sources.
    """

    def __init__(self, size: int):
        self._p_y, self._shift = _Window(size, WINDOW), _Window(size, WINDOW - 1)
        self._before, self._tdds = np.full((2, size), np.nan)
        # Sum over the windows, and the number of them that have a value.
        self._dyn_unc, self._dual = np.zeros((2, 2, size))

    def add(self, p_y: np.ndarray) -> None:
        """Take in the ``p_y`` ``[N]`` of the visits of one epoch; NaN for none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._p_y.add(p_y):
                self._window_ends()
            # Of the first epoch there is no step from an earlier one.
            if self._p_y.epochs > 1 and self._shift.add(self._shifts(p_y)):
                self._tdds = self._discounted()
            np.copyto(self._before, p_y, where=~np.isnan(p_y))

    def _window_ends(self) -> None:
        deviation = self._p_y.deviation()
        scores = [(self._dyn_unc, deviation)]
        if self._p_y.epochs <= DUAL_EPOCHS:
            scores.append((self._dual, deviation * (1 - self._p_y.mean())))
        for total, values in scores:
            total += np.where(np.isnan(values), 0, values), ~np.isnan(values)

    def _shifts(self, p_y: np.ndarray) -> np.ndarray:
        """Contribution since the visit before, of the label and of all other classes as one."""
        parts = ((p_y, self._before), (1 - p_y, 1 - self._before))
        return sum(np.abs(now * np.log((now + TINY) / (then + TINY))) for now, then in parts)

    def _discounted(self) -> np.ndarray:
        lengths = self._shift.deviation() * np.sqrt(np.maximum(self._shift.count - 1, 0))
        older = (1 - DECAY) * self._tdds
        newer = np.where(np.isnan(older), 0, older) + DECAY * lengths
        return np.where(np.isnan(lengths), older, newer)

    def results(self) -> dict[str, np.ndarray]:
        """Return the scores, float64 ``[N]``; NaN where there were too few visits."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._p_y.epochs < WINDOW:
                self._window_ends()
                self._tdds = self._discounted()
            means = {"dyn_unc": self._dyn_unc, "dual": self._dual}
            return {n: total / count for n, (total, count) in means.items()} | {"tdds": self._tdds}


class _Sums:
    """Running sums over the visits, ``[N]`` each."""

    ARRAYS = ("loss", "p_y", "correct", "margin", "el2n", "times_trained")

    def __init__(self, size: int):
        self.times_trained = np.zeros(size, np.int64)
        self.visits, self.early_visits, self.right, self.forgotten = np.zeros((4, size), np.int32)
        self.was_right = np.zeros(size, bool)
        self.last_loss = np.full(size, np.nan, np.float32)
        self.first_learned, self.right_since = np.full((2, size), np.inf)
        self.epoch = 0
        self.pruning = PruningScores(size)
        names = ("loss", "p_y", "p_y_squared", "margin", "el2n", "el2n_early")
        self.sums = {name: np.zeros(size) for name in names}

    def add(self, epoch: int, row: dict[str, np.ndarray], early: bool) -> None:
        """Take in one epoch."""
        seen, right = row["correct"] >= 0, row["correct"] == 1
        self.times_trained += row["times_trained"]
        self.visits += seen
        values = row | {"p_y_squared": row["p_y"].astype(np.float64) ** 2}
        if early:
            values["el2n_early"] = row["el2n"]
            self.early_visits += seen
        for name in self.sums.keys() & values:
            np.add(self.sums[name], values[name], out=self.sums[name], where=seen)
        self.pruning.add(np.where(seen, row["p_y"], np.nan))
        np.copyto(self.last_loss, row["loss"], where=seen)
        self.forgotten += self.was_right & seen & ~right
        np.copyto(self.right_since, np.inf, where=seen & ~right)
        np.copyto(self.right_since, epoch, where=right & ~self.was_right)
        np.copyto(self.was_right, right, where=seen)
        self.epoch = epoch
        self.first_learned[right & (self.right == 0)] = epoch
        self.right += right

    def results(self) -> dict[str, np.ndarray]:
        """Return the measures, NaN where a sample was never visited."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = {name: total / self.visits for name, total in self.sums.items()}
            variance = mean["p_y_squared"] - mean["p_y"] ** 2
            never_right = np.where(self.visits == 0, np.nan, np.inf)
            return {
                "times_trained": self.times_trained,
                "visits": self.visits,
                "last_loss": self.last_loss.astype(float),
                "mean_loss": mean["loss"],
                "confidence": mean["p_y"],
                "variability": np.sqrt(np.maximum(variance, 0)),
                "correctness": self.right / self.visits,
                "forgetting": np.where(self.right > 0, self.forgotten, never_right),
                "aum": mean["margin"],
                "el2n": mean["el2n"],
                "el2n_early": self.sums["el2n_early"] / self.early_visits,
                "first_learned": np.where(self.right > 0, self.first_learned, never_right),
                "learned_for_good": np.where(self.visits == 0, np.nan, self.right_since),
                "aum_stratum": aum_strata(mean["margin"]),
                **self.pruning.results(),
                "learning": self._learning(),
            }

    def _learning(self) -> np.ndarray:
        """The first of :data:`LEARNING` that holds, from the strongest statement to the weakest."""
        cases = {
            "not seen": self.visits == 0,
            "never": self.right == 0,
            "forgotten": ~self.was_right,
            "unstable": self.forgotten > 1,
            "early": self.right_since <= self.epoch / 2,
        }
        return np.select(list(cases.values()), list(cases), "late")


def hardness(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the measures that say how hard a sample is; where low is hard, they are negated."""
    names = [name for name in frame if HARD.get(name)]
    if not names:
        raise InputError(
            "this frame holds no measure of hardness: give one from measures(), with "
            f"{', '.join(name for name, sign in HARD.items() if sign)}"
        )
    return pd.DataFrame({name: HARD[name] * frame[name] for name in names}, index=frame.index)


def described() -> pd.DataFrame:
    """Every measure with what it is and which values are hard: what ``list measures`` says.

    Columns are ``measure``, ``meaning``, and ``hard``: ``high``, ``low``, or empty where it says
    something else. GraNd and influence need the model: :func:`budgetlab.analysis.grand` and
    :func:`budgetlab.estimators.self_influence`.
    """
    side = {1: "high", -1: "low", 0: ""}
    return pd.DataFrame(
        {"measure": name, "meaning": MEANINGS[name], "hard": side[HARD[name]]} for name in MEANINGS
    )


def check_measure(frame: pd.DataFrame, name: str) -> None:
    """Check that a frame holds a measure of that name."""
    if name not in frame:
        raise unknown("measure", name, [str(column) for column in frame])
