"""Per-sample measures computed from one recorded history.

Every measure is taken over a sample's visits: the epochs in which it was trained on, each
counted once, with the values of its last training forward pass in that epoch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from budgetlab.errors import InputError, one_each, unknown, whole
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
"""Direction of each measure: 1 if high values are hard, -1 if low values are hard, 0 if neither
(selection counts, variability, core-set scores)."""

MEANINGS = {name: meaning for name, (_, meaning) in _MEASURES.items()}
"""Axis label of each measure."""

LEARNING = {
    "early": "right from a visit in the first half of the epochs on, with at most one lapse before",
    "late": "right from a visit in the second half of the epochs on, with at most one lapse before",
    "unstable": "right at the last visit, after two lapses or more",
    "forgotten": "right at some visit and wrong at the last",
    "never": "wrong at every visit",
    "not seen": "never trained on",
}
"""Learning outcome of a sample. A lapse is a wrong visit directly after a right one."""

PRUNING = ("el2n_early", "forgetting", "aum", "dyn_unc", "dual", "tdds")
"""Measures that core sets are chosen by; as signed by ``measure_agreement``, high is kept."""

WINDOW, DUAL_EPOCHS, DECAY = 10, 30, 0.9
STRATA = 50
TINY = 1e-8
BLOCK = 4_000_000  # values of one array held at a time
ARRAYS = ("loss", "p_y", "correct", "margin", "el2n", "times_trained")


def read_epochs(
    record: Record, names: Sequence[str], epochs: int | None = None
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield the number of each epoch, from 1, and its arrays ``[N]``, with bounded memory."""
    data = record.samples
    total = _first(epochs, data.sizes["epoch"])
    step = max(1, BLOCK // max(data.sizes["sample"], 1))
    for start in range(0, total, step):
        rows = slice(start, min(start + step, total))
        block = {name: data[name].isel(epoch=rows).to_numpy() for name in names}
        for row in range(rows.stop - start):
            yield start + row + 1, {name: values[row] for name, values in block.items()}


def _first(epochs: int | None, most: int) -> int:
    return most if epochs is None else min(most, whole("epochs", epochs))


def require_epochs(record: Record) -> None:
    """Raise an error if a record holds no epoch, naming the file if it is missing."""
    if record.samples.sizes["epoch"]:
        return
    if record.status == "finished" and not (record.path / "epochs.csv").is_file():
        raise InputError(f"'{record.path / 'epochs.csv'}' is missing: restore it, or train again")
    raise InputError(f"'{record.path}' holds no finished epoch: train for longer")


def require_every_epoch(record: Record, why: str) -> None:
    """Raise an error if a record was thinned to some of its epochs; ``why`` names what is lost."""
    kept, epochs = len(record.about.get("thinned", {}).get("epochs", ())), len(record.epochs)
    if 0 < kept < epochs:
        raise InputError(
            f"'{record.path}' is thinned to {kept} of {epochs} epochs and lacks {why}: "
            "give the whole record"
        )


def measures(
    record: OneRecord, *, epochs: int | None = None, el2n_epochs: int = 10
) -> pd.DataFrame:
    """Compute every measure of every training sample.

    - ``record``: a record, or its folder, with per-sample history and at least one epoch.
    - ``epochs``: use only this many epochs, from the first; all by default.
    - ``el2n_epochs``: ``el2n_early`` averages over the visits in this many epochs, from the first.

    Returns
    -------
    DataFrame
        One row per sample, index ``sample`` from 0: its ``label`` and metadata,
        ``times_trained``, ``visits`` (epochs in which it was trained on), and the measures of
        :data:`MEANINGS`, NaN without a visit; :data:`HARD` gives the hard direction of each.

        ``confidence``, ``variability``, ``correctness``
            Mean of ``p_y``, its population standard deviation, and share of visits
            classified correctly (Swayamdipta et al. 2020).
        ``forgetting``
            Number of wrong visits directly after a right one; infinite for a sample never
            right (Toneva et al. 2019).
        ``aum``
            Mean over visits of the label's logit minus the highest other logit
            (Pleiss et al. 2020).
        ``el2n``, ``el2n_early``
            Mean of ``||softmax - onehot||_2`` over all visits, as ``History.el2n``, and
            over early ones, which is the EL2N of Paul et al. (2021).
        ``first_learned``, ``learned_for_good``
            Epoch of the first right visit, and of the first one after which no visit was
            wrong; infinite if there is none.
        ``aum_stratum``, ``dyn_unc``, ``dual``, ``tdds``
            Scores of the core sets of these names (the first of ``ccs``), see
            :data:`PRUNING`. ``dyn_unc`` and ``dual`` need two visits within ten epochs, ``tdds``
            three; it merges all other classes, as a record keeps only the label's probability.
        ``learning``
            Learning outcome, one of :data:`LEARNING`.
    """
    record = open_record(record)
    data = record.samples
    require_epochs(record)
    el2n_epochs = whole("el2n_epochs", el2n_epochs)
    total, size = _first(epochs, data.sizes["epoch"]), data.sizes["sample"]
    # Stored chunks hold all samples of an epoch: read many samples at once, compute on fewer.
    step = max(1, BLOCK // total)
    few = max(1, step // 8)
    parts = []
    for start in range(0, max(size, 1), step):
        part = data.isel(epoch=slice(total), sample=slice(start, start + step))
        read = {name: part[name].to_numpy() for name in ARRAYS}
        for at in range(0, max(part.sizes["sample"], 1), few):
            rows = {name: values[:, at : at + few] for name, values in read.items()}
            parts.append(_compute_measures(rows, el2n_epochs))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # The strata depend on the range over all samples.
    found["aum_stratum"] = aum_strata(found["aum"])
    known = {name: data[name].to_numpy() for name in metadata(record)}
    known = {"label": known.pop("label"), **known} if "label" in known else known
    frame = pd.DataFrame(known | found, index=pd.RangeIndex(size, name="sample"))
    # Stored as floats if unknown for some samples.
    for name, kind in (("is_noisy", "boolean"), ("true_label", "Int64")):
        if name in frame and frame[name].dtype.kind == "f":
            frame[name] = frame[name].astype(kind)
    return frame


def metadata(record: OneRecord) -> list[str]:
    """Return the names of a record's per-sample metadata, including the label."""
    data = open_record(record).samples
    return [str(n) for n in data if data[n].dims == ("sample",) and n not in SAMPLE_ARRAYS]


def copy_sources(
    frame: pd.DataFrame, copies: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers ``[N]`` of the samples, and of the first sample each copies (itself if none).

    Copies come from ``copies``, or else from the metadata; both results then use the numbering of
    the record, even if the frame holds only some of its samples.
    """
    if copies is not None:
        one_each("copies", copies, len(frame))
        return frame.index.to_numpy(), np.asarray(copies)
    own = frame.get("recorded_as", frame.index.to_series()).to_numpy()
    first = frame["copy_of"].to_numpy() if "copy_of" in frame else own
    return own, np.where(first < 0, own, first)


def aum_strata(aum: np.ndarray, count: int = STRATA) -> np.ndarray:
    """Assign AUM values to strata of equal width, from which CCS draws (Zheng et al., ICLR 2023).

    Returns float ``[N]``: 0 for the easiest stratum to ``count - 1`` for the hardest, and NaN where
    ``aum [N]`` is NaN (never visited).
    """
    if np.isnan(aum).all():
        return np.full(len(aum), np.nan)
    high, width = np.nanmax(aum), max(np.ptp(aum[~np.isnan(aum)]), 1e-300)
    return np.minimum(np.floor((high - aum) / width * count), count - 1)


def _previous_visit(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return for each entry of ``[T, N]`` the value at the previous visit; NaN if none."""
    last = np.maximum.accumulate(np.where(seen, np.arange(len(seen))[:, None], -1), axis=0)[:-1]
    found = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.concatenate([np.full((1, seen.shape[1]), np.nan), np.where(last < 0, np.nan, found)])


def _over_windows(values: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean and sample deviation of each window of ``length`` rows, ignoring NaN."""
    length = min(length, len(values))
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)

    def run_sums(rows: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(rows) + 1, rows.shape[1]))
        rows.cumsum(0, out=sums[1:])
        return sums[length:] - sums[:-length]

    count, total, squares = map(run_sums, (known, filled, filled**2))
    spread = np.sqrt(np.maximum(squares - total**2 / count, 0) / (count - 1))
    return count, total / count, np.where(count > 1, spread, np.nan)


def pruning_scores(p_y: np.ndarray) -> dict[str, np.ndarray]:
    """Compute Dyn-Unc, DUAL and TDDS from ``p_y [T, N]`` (NaN for no visit), in ten-epoch windows.

    Float64 ``[N]`` each; NaN after too few visits. Sources: :mod:`budgetlab.samplers.core_sets`.
    """

    def average(values: np.ndarray) -> np.ndarray:
        return np.nansum(values, 0) / (~np.isnan(values)).sum(0)

    # In float32 the variance would be lost to rounding.
    p_y = p_y.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        _, mean, spread = _over_windows(p_y, WINDOW)
        early = slice(DUAL_EPOCHS - WINDOW + 1)
        # Terms of the KL divergence from the previous visit: the label, and all others as one.
        before = _previous_visit(p_y, ~np.isnan(p_y))
        parts = ((p_y, before), (1 - p_y, 1 - before))
        shift = sum(np.abs(now * np.log((now + TINY) / (then + TINY))) for now, then in parts)
        # A window of WINDOW epochs has one step fewer, and the first row has no step.
        count, _, deviation = _over_windows(shift[1:] if len(shift) > 1 else shift, WINDOW - 1)
        tdds = np.full(p_y.shape[1], np.nan)
        for length in deviation * np.sqrt(np.maximum(count - 1, 0)):
            older = (1 - DECAY) * tdds
            newer = np.nan_to_num(older) + DECAY * length
            tdds = np.where(np.isnan(length), older, newer)
        dual = average((spread * (1 - mean))[early])
        return {"dyn_unc": average(spread), "dual": dual, "tdds": tdds}


def _compute_measures(rows: dict[str, np.ndarray], el2n_epochs: int) -> dict[str, np.ndarray]:
    """Compute every measure from arrays ``[T, N]``; NaN for samples never visited."""
    seen, right = rows["correct"] >= 0, rows["correct"] == 1
    wrong, visits = seen & ~right, seen.sum(0)
    numbers = np.arange(1, len(seen) + 1)[:, None]

    def first(epochs: np.ndarray) -> np.ndarray:
        return np.where(epochs.any(0), epochs.argmax(0) + 1.0, np.inf)

    def total(values: np.ndarray) -> np.ndarray:
        return values.sum(0, dtype=float, where=seen[: len(values)])

    forgotten = (wrong & (_previous_visit(right, seen) == 1)).sum(0)
    since = first(right & (numbers > np.where(wrong, numbers, 0).max(0)))
    last = np.where(seen, numbers, 0).max(0) - 1
    at_last = {name: np.where(visits, values[last, np.arange(len(last))], np.nan)
               for name, values in (("right", right), ("loss", rows["loss"]))}  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = {name: total(rows[name]) / visits for name in ("loss", "p_y", "margin", "el2n")}
        variance = total(rows["p_y"].astype(float) ** 2) / visits - mean["p_y"] ** 2
        early = total(rows["el2n"][:el2n_epochs]) / seen[:el2n_epochs].sum(0)
        correctness = right.sum(0) / visits
    # np.select takes the first that holds; the rest are "late".
    learning = {
        "not seen": visits == 0,
        "never": ~right.any(0),
        "forgotten": at_last["right"] != 1,
        "unstable": forgotten > 1,
        "early": since <= len(seen) / 2,
    }
    never_right = np.where(visits == 0, np.nan, np.inf)
    return {
        "times_trained": rows["times_trained"].sum(0, dtype=np.int64),
        "visits": visits.astype(np.int32),
        "last_loss": at_last["loss"].astype(float),
        "mean_loss": mean["loss"],
        "confidence": mean["p_y"],
        "variability": np.sqrt(np.maximum(variance, 0)),
        "correctness": correctness,
        "forgetting": np.where(right.any(0), forgotten, never_right),
        "aum": mean["margin"],
        "el2n": mean["el2n"],
        "el2n_early": early,
        "first_learned": np.where(right.any(0), first(right), never_right),
        "learned_for_good": np.where(visits == 0, np.nan, since),
        "aum_stratum": mean["margin"],
        **pruning_scores(np.where(seen, rows["p_y"], np.nan)),
        "learning": np.select(list(learning.values()), list(learning), "late"),
    }


def hardness(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the measures of hardness, negated where low values are hard."""
    names = [name for name in frame if HARD.get(name)]
    if not names:
        raise InputError(
            "this frame holds no measure of hardness: give one from measures(), with "
            f"{', '.join(name for name, sign in HARD.items() if sign)}"
        )
    return pd.DataFrame({name: HARD[name] * frame[name] for name in names}, index=frame.index)


def described() -> pd.DataFrame:
    """Describe every measure, as ``budgetlab list measures`` does.

    Columns are ``measure``, ``meaning``, and ``hard``: ``high``, ``low``, or empty if neither.
    GraNd and influence need the model: :func:`budgetlab.analysis.grand` and
    :func:`budgetlab.estimators.self_influence`.
    """
    side = {1: "high", -1: "low", 0: ""}
    return pd.DataFrame(
        {"measure": name, "meaning": MEANINGS[name], "hard": side[HARD[name]]} for name in MEANINGS
    )


def check_measure(frame: pd.DataFrame, name: str) -> None:
    """Raise an error unless a frame has a numeric column of that name."""
    numbers = [str(column) for column in frame if _holds_numbers(frame[column])]
    if name not in frame:
        raise unknown("measure", name, numbers)
    if not _holds_numbers(frame[name]):
        raise InputError(f"measure '{name}' holds no numbers: choose one of {', '.join(numbers)}")


def _holds_numbers(column: pd.Series) -> bool:
    try:
        column.to_numpy(float, na_value=np.nan)
    except (TypeError, ValueError):
        return False
    return True
