"""Per-sample measures from one recorded history.

Every measure runs over the visits of a sample: the epochs in which it was trained
on, each counted once, with what was seen at the last training forward of that epoch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from budgetlab.analysis.pruning import PruningScores, aum_strata
from budgetlab.errors import InputError, unknown
from budgetlab.records import SAMPLE_ARRAYS, Record

HARD = {
    "times_trained": 0,
    "last_loss": 1,
    "mean_loss": 1,
    "confidence": -1,
    "variability": 0,
    "correctness": -1,
    "forgetting": 1,
    "aum": -1,
    "el2n": 1,
    "el2n_early": 1,
    "first_learned": 1,
    "learned_for_good": 1,
    "grand": 1,
    "influence": 1,
    "aum_stratum": 0,
    "dyn_unc": 0,
    "dual": 0,
    "tdds": 0,
}
"""Direction of each measure: 1 where a high value is hard, -1 where a low one is,
0 where it says something else (how often a method chose; how much a model wavers; what a core
set is chosen by)."""

MEANINGS = {
    "times_trained": "times in a training batch",
    "last_loss": "loss at the last visit, nats",
    "mean_loss": "mean loss over the visits, nats",
    "confidence": "mean probability of the label",
    "variability": "standard deviation of the probability of the label",
    "correctness": "share of visits classified right",
    "forgetting": "forgetting events",
    "aum": "area under the margin (mean margin)",
    "el2n": "mean length of the error vector",
    "el2n_early": "EL2N: mean length of the error vector, early epochs",
    "first_learned": "first epoch classified right",
    "learned_for_good": "epoch from which it was always classified right",
    "grand": "GraNd: norm of the gradient",
    "influence": "influence of a sample on its own loss",
    "aum_stratum": "CCS: range of AUM, 0 easiest to 49 hardest",
    "dyn_unc": "Dyn-Unc: deviation of the probability within ten epochs",
    "dual": "DUAL: that deviation times the error, first 30 epochs",
    "tdds": "TDDS: unevenness of the changes of the probability, late epochs first",
}
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

BLOCK = 4_000_000  # values of one array held at a time


def read_blocks(
    record: Record, names: Sequence[str], epochs: int | None = None
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Read per-sample arrays a few epochs at a time, so that memory stays bounded.

    Yields
    ------
    first, arrays
        Epoch number of the first row, from 1; arrays ``[epochs of the block, N]``.
    """
    data = record.samples
    total, size = data.sizes["epoch"], max(data.sizes["sample"], 1)
    if epochs is not None:
        if epochs < 1:
            raise InputError(f"epochs {epochs} is not allowed: give a whole number from 1")
        total = min(total, epochs)
    step = max(1, BLOCK // size)
    for start in range(0, total, step):
        rows = slice(start, min(start + step, total))
        yield start + 1, {name: data[name].isel(epoch=rows).to_numpy() for name in names}


def measures(record: Record, *, epochs: int | None = None, el2n_epochs: int = 10) -> pd.DataFrame:
    """Compute every measure of every training sample.

    Parameters
    ----------
    record
        An open record with at least one epoch.
    epochs
        Use only the first so many epochs; all by default.
    el2n_epochs
        ``el2n_early`` is the mean over the visits in the first so many epochs.

    Returns
    -------
    DataFrame
        One row a sample, index ``sample`` from 0. First what is known of the sample
        (``label`` and metadata), then:

        ``times_trained``
            Times in a training batch.
        ``visits``
            Epochs in which it was trained on.
        ``last_loss``, ``mean_loss``
            Cross-entropy, nats.
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
            :data:`budgetlab.analysis.PRUNING`. ``dyn_unc`` and ``dual`` take two visits within
            ten epochs, ``tdds`` three. A record keeps no probability but that of the label, so
            that ``tdds`` takes all other classes as one, which is exact for two classes.
        ``learning``
            How its learning went, in a word: one of :data:`LEARNING`.

        All but the two counts and ``learning`` are NaN for a sample never visited.
        :data:`HARD` says which direction is hard.

    Raises
    ------
    InputError
        If the record holds no per-sample history or no epoch.
    """
    data = record.samples
    if not data.sizes["epoch"]:
        raise InputError(f"'{record.path}' holds no finished epoch: train for longer")
    sums = _Sums(data.sizes["sample"])
    for first, arrays in read_blocks(record, _Sums.ARRAYS, epochs):
        for offset in range(len(arrays["correct"])):
            row = {name: values[offset] for name, values in arrays.items()}
            sums.add(first + offset, row, early=first + offset <= el2n_epochs)
    known = {
        name: data[name].to_numpy()
        for name in data
        if data[name].dims == ("sample",) and name not in SAMPLE_ARRAYS
    }
    known = {"label": known.pop("label"), **known} if "label" in known else known
    index = pd.RangeIndex(data.sizes["sample"], name="sample")
    frame = pd.DataFrame(known | sums.results(), index=index)
    # Written as numbers where the truth of some samples is not known.
    for name, kind in (("is_noisy", "boolean"), ("true_label", "Int64")):
        if name in frame and frame[name].dtype.kind == "f":
            frame[name] = frame[name].astype(kind)
    return frame


class _Sums:
    """Running sums over the visits, ``[N]`` each."""

    ARRAYS = ("loss", "p_y", "correct", "margin", "el2n", "times_trained")

    def __init__(self, size: int):
        self.times_trained = np.zeros(size, np.int64)
        self.visits = np.zeros(size, np.int32)
        self.early_visits = np.zeros(size, np.int32)
        self.right = np.zeros(size, np.int32)
        self.forgotten = np.zeros(size, np.int32)
        self.was_right = np.zeros(size, bool)
        self.last_loss = np.full(size, np.nan, np.float32)
        self.first_learned = np.full(size, np.inf)
        self.right_since = np.full(size, np.inf)
        self.epoch = 0
        self.el2n_early = np.zeros(size)
        self.pruning = PruningScores(size)
        self.loss, self.p_y, self.p_y_squared, self.margin, self.el2n = np.zeros((5, size))

    def add(self, epoch: int, row: dict[str, np.ndarray], early: bool) -> None:
        """Take in one epoch."""
        seen = row["correct"] >= 0
        right = row["correct"] == 1
        self.times_trained += row["times_trained"]
        self.visits += seen
        for name in ("loss", "p_y", "margin", "el2n"):
            total = getattr(self, name)
            np.add(total, row[name], out=total, where=seen)
        self.pruning.add(np.where(seen, row["p_y"], np.nan))
        p_y = row["p_y"].astype(np.float64)
        np.add(self.p_y_squared, p_y * p_y, out=self.p_y_squared, where=seen)
        if early:
            np.add(self.el2n_early, row["el2n"], out=self.el2n_early, where=seen)
            self.early_visits += seen
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
            confidence = self.p_y / self.visits
            variance = self.p_y_squared / self.visits - confidence**2
            never_seen = self.visits == 0
            never_right = np.where(never_seen, np.nan, np.inf)
            return {
                "times_trained": self.times_trained,
                "visits": self.visits,
                "last_loss": self.last_loss.astype(float),
                "mean_loss": self.loss / self.visits,
                "confidence": confidence,
                "variability": np.sqrt(np.maximum(variance, 0)),
                "correctness": self.right / self.visits,
                "forgetting": np.where(self.right > 0, self.forgotten, never_right),
                "aum": self.margin / self.visits,
                "el2n": self.el2n / self.visits,
                "el2n_early": self.el2n_early / self.early_visits,
                "first_learned": np.where(self.right > 0, self.first_learned, never_right),
                "learned_for_good": np.where(never_seen, np.nan, self.right_since),
                "aum_stratum": aum_strata(self.margin / self.visits),
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
    """Turn measures so that a high value is always a hard sample.

    Returns
    -------
    DataFrame
        The measures of ``frame`` that say how hard a sample is; low-is-hard ones negated.

    Raises
    ------
    InputError
        If the frame holds no such measure.
    """
    names = [name for name in frame if HARD.get(name)]
    if not names:
        raise InputError(
            "this frame holds no measure of hardness: give one from measures(), with "
            f"{', '.join(name for name, sign in HARD.items() if sign)}"
        )
    return pd.DataFrame({name: HARD[name] * frame[name] for name in names}, index=frame.index)


def described() -> pd.DataFrame:
    """Every measure with what it is and which values are hard: what ``list measures`` says.

    Returns
    -------
    DataFrame
        ``measure``, ``meaning``, and ``hard``: ``high``, ``low``, or empty where it says
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
