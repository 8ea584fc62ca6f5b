"""Your own data: what to do with each sample, and which augmentation suits it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis.per_sample import measures
from budgetlab.analysis.statistics import paired_difference
from budgetlab.analysis.wrong_labels import label_quality, trained
from budgetlab.errors import InputError, unknown
from budgetlab.records import Records, open_records, write_atomically

if TYPE_CHECKING:
    from budgetlab.data import Dataset, Splits

__all__ = ["VERDICTS", "compare_augmentations", "export_indices", "indices", "triage"]

VERDICTS = {
    "check the label": "on average another class was more likely than the label",
    "decisive": "learned, but not surely: among the most wavering third of those not easy",
    "ordinary": "none of the others",
    "redundant": "right at every visit, with little error; or a copy of an earlier sample",
    "not seen": "never trained on",
}
"""What a sample is called, and why; in the order in which they are listed."""

MEASURES = ("aum", "confidence", "variability", "correctness", "forgetting", "el2n", "mean_loss")
FIRST = ("rank", "verdict", "index", "origin", "label", "suggested", "p_wrong", "name", "copy_of")
AUM_NOTE = (
    "a margin below zero is not calibrated: many labels that are to be checked may be right; "
    "give pred_probs= for a list whose precision is told"
)
WAVERING = 1 / 3
EASY = 0.5


def triage(
    data: Records | pd.DataFrame,
    *,
    copies: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    pred_probs: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rank the training samples of your own data by what to do with them.

    The verdicts, see :data:`VERDICTS`, are rules on recorded measures, not facts:

    - *check the label*: the area under the margin (Pleiss et al. 2020) is negative, or
      two identical samples have different labels. Lowest margin first. That lists many
      right labels where a network is weak or trained on the hard ones above all; give
      ``pred_probs`` for a verdict whose precision can be told.
    - *redundant*: a copy of an earlier sample with the same label; or classified right at
      every visit, never forgotten, and among the half with the smallest error vectors
      (EL2N, Paul et al. 2021) of those. Smallest error first, copies in front.
    - *decisive*: of the samples left, the third with the highest variability
      (Swayamdipta et al. 2020: the ambiguous region carries generalisation).

    Parameters
    ----------
    data
        Records of runs on the same data (measures are averaged over them: several seeds
        make a steadier list), or a frame as from :func:`budgetlab.analysis.measures`.
    copies
        As from :func:`budgetlab.data.duplicates` of the training samples, int64 ``[N]``.
    names
        What to call each training sample, ``[N]``; by default its ``origin`` is told.
    pred_probs
        As from :func:`budgetlab.analysis.held_out_probabilities`, ``[N, C]``. A label is to be
        checked where :func:`budgetlab.analysis.label_quality` suspects it, surest first,
        whatever its margin.

    Returns
    -------
    DataFrame
        One row a sample, index ``sample``, most in need of a look first: ``rank`` from 1,
        ``verdict``, ``index`` (position in the source, for ``Subset``), ``origin`` (the file,
        or the place in an array), ``label``, ``name`` and ``copy_of`` where known, the
        measures, and the metadata of the data; with ``pred_probs`` also ``suggested`` (number
        of the class that the network would say) and ``p_wrong``. ``attrs["note"]`` says what
        to expect of the list: its precision, or that it is not calibrated.

    Raises
    ------
    InputError
        If the records are of different data, or a list has another length.
    """
    frame = _averaged(data) if not isinstance(data, pd.DataFrame) else data.copy()
    for what, given in (("copies", copies), ("names", names)):
        if given is not None and len(given) != len(frame):
            raise InputError(
                f"{what} has {len(given)} entries for {len(frame)} training samples: give one each"
            )
    if names is not None:
        frame["name"] = list(names)
    if copies is not None:
        own = np.arange(len(frame))
        frame["copy_of"] = np.where(np.asarray(copies) == own, -1, np.asarray(copies))
    wrong, note = frame["aum"] < 0, AUM_NOTE
    if pred_probs is not None:
        quality = label_quality(frame["label"].to_numpy(), pred_probs)
        frame[["suggested", "p_wrong"]] = quality[["suggested", "p_wrong"]].to_numpy()
        frame["suggested"] = frame["suggested"].astype(int)
        wrong = pd.Series(quality["suspect"].to_numpy(), frame.index)
        note = quality.attrs["weak"] or _expected(quality)
    frame["verdict"] = _verdicts(frame, wrong)
    frame["_place"] = frame["verdict"].map({name: n for n, name in enumerate(VERDICTS)})
    by_error = frame["el2n"].where(frame.get("copy_of", pd.Series(-1, frame.index)) < 0, -1.0)
    inner = {
        "check the label": -frame["p_wrong"] if "p_wrong" in frame else frame["aum"],
        "decisive": -frame["variability"],
        "ordinary": -frame["mean_loss"],
        "redundant": by_error,
    }
    frame["_inner"] = 0.0
    for verdict, values in inner.items():
        mine = frame["verdict"] == verdict
        frame.loc[mine, "_inner"] = values[mine]
    ranked = frame.sort_values(["_place", "_inner"], kind="stable").drop(
        columns=["_place", "_inner"]
    )
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    first = [n for n in FIRST if n in ranked]
    rest = [n for n in ranked if n not in (*first, *MEASURES)]
    ranked = ranked[[*first, *MEASURES, *rest]]
    ranked.attrs["note"] = note
    return ranked


def _expected(quality: pd.DataFrame) -> str:
    listed = quality[quality["suspect"]]
    if not len(listed):
        return "no label is a suspect"
    return (
        f"about {100 * listed['p_wrong'].mean():.0f}% of the {len(listed):,} labels to be checked "
        "are expected to be wrong"
    )


def _averaged(records: Records) -> pd.DataFrame:
    """Mean of each measure over runs on the same data."""
    runs = open_records(records)
    for run in runs[1:]:
        if run.fingerprint != runs[0].fingerprint:
            raise InputError(
                f"'{run.path}' was trained on other data than '{runs[0].path}': give runs on the "
                "same data"
            )
    frames = [measures(run) for run in runs]
    first = frames[0]
    # Never seen in one run says nothing: the mean runs over the runs that saw a sample.
    means = {
        name: pd.concat([frame[name] for frame in frames], axis=1).mean(axis=1)
        for name in (*MEASURES, "times_trained", "visits")
    }
    return first.assign(**means)


def _verdicts(frame: pd.DataFrame, wrong: pd.Series) -> pd.Series:
    verdict = pd.Series("ordinary", index=frame.index)
    seen = frame["visits"] > 0
    easy = seen & (frame["correctness"] == 1) & (frame["forgetting"] == 0)
    if easy.any():
        easy &= frame["el2n"] <= frame.loc[easy, "el2n"].quantile(EASY)
    left = seen & ~wrong & ~easy
    places = frame["variability"][left].rank(ascending=False, method="first")
    most = places[places <= max(1, round(WAVERING * len(places)))].index
    verdict[most] = "decisive"
    verdict[easy & ~wrong] = "redundant"
    verdict[~seen] = "not seen"
    if "copy_of" in frame:
        same, other = _copies(frame)
        verdict[same & ~wrong] = "redundant"
        wrong = wrong | other
    verdict[wrong] = "check the label"
    return verdict


def _copies(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Copies that agree with their first, and all of a group whose labels differ."""
    first = frame["copy_of"].where(frame["copy_of"] >= 0, np.arange(len(frame)))
    labels = frame.groupby(first.to_numpy())["label"].transform("nunique")
    return (frame["copy_of"] >= 0) & (labels == 1), labels > 1


def indices(
    ranked: pd.DataFrame, *, drop: Sequence[str] = ("check the label", "redundant")
) -> np.ndarray:
    """Positions to keep, for ``torch.utils.data.Subset(dataset, indices)``.

    Parameters
    ----------
    ranked
        As from :func:`triage`.
    drop
        Verdicts to leave out. Of a group of copies with the same label the first stays,
        unless it is redundant by itself.

    Returns
    -------
    numpy.ndarray
        int64, ascending: positions in the source of the data (``index``), so that they
        count in the data set or folder that was read, held-out samples not among them.
    """
    for name in drop:
        if name not in VERDICTS:
            raise unknown("verdict", name, VERDICTS)
    kept = ranked[~ranked["verdict"].isin(list(drop))]
    source = kept.get("index", kept.index)
    return np.sort(np.asarray(source, np.int64))


def export_indices(
    ranked: pd.DataFrame,
    path: Path | str,
    *,
    drop: Sequence[str] = ("check the label", "redundant"),
) -> Path:
    """Write :func:`indices` to a text file, one position a line.

    ``numpy.loadtxt(path, dtype=int)`` reads it. For the whole list with its measures use
    :func:`budgetlab.analysis.export` with a name that ends in ``.csv``.
    """
    path = Path(path)
    text = "".join(f"{number}\n" for number in indices(ranked, drop=drop))
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise InputError(
            f"'{path}' cannot be written ({error.strerror}): give another file"
        ) from None
    return path


ARMS = {
    "none": ("none", False),
    "crop": ("standard", False),
    "crop and flip": ("standard", True),
}
"""What is compared: name of the augmentation, and whether images are mirrored."""


def compare_augmentations(
    data: "Splits | Dataset", *, seeds: int = 3, **settings: Any
) -> pd.DataFrame:
    """Which augmentation suits these images? A short comparison before anything else.

    Held-out fifths of the training samples are judged, never the test set, and each seed has
    a fifth of its own. What is best depends on the length of the training: compare at the length
    that you will train for. In short trainings augmentation costs more than it brings.

    Parameters
    ----------
    data
        The data; its training samples are used.
    seeds
        Runs of each; from 3 on there is an interval.
    **settings
        Fields of :class:`budgetlab.RunConfig`, such as ``epochs`` and ``budget``.

    Returns
    -------
    DataFrame
        One row for ``none``, ``crop`` and ``crop and flip``, the best first: ``augmentation`` and
        ``flip`` as settings take them, ``n``, ``accuracy`` (mean, 0 to 1), ``spread`` (standard
        deviation), and ``difference`` from none, paired by seed, with ``ci_low`` and ``ci_high``
        (95%). ``attrs["advice"]`` says in a sentence what to choose.
    """
    from budgetlab.data import Dataset, Splits

    train = data if isinstance(data, Dataset) else data.train
    if len(train.sample_shape) != 3:
        raise InputError("augmentations are for images, and these samples are vectors")
    if seeds < 1:
        raise InputError(f"seeds {seeds} is not allowed: give at least 1")
    found = {name: np.empty(seeds) for name in ARMS}
    for seed in range(seeds):
        for name, (augmentation, flip) in ARMS.items():
            splits = Splits.of(replace(train, flip=flip), name="held-out", seed=seed)
            given = {"seed": seed, "augmentation": augmentation, "evaluate_every": 0} | settings
            with trained(splits, **given) as run:
                found[name][seed] = run.summary()["test_accuracy"]
    rows = []
    for name, values in found.items():
        paired = paired_difference(values, found["none"])
        rows.append({
            "name": name, "augmentation": ARMS[name][0], "flip": "yes" if ARMS[name][1] else "no",
            "n": seeds, "accuracy": values.mean(),
            "spread": values.std(ddof=1) if seeds > 1 else np.nan,
            "difference": paired.difference, "ci_low": paired.ci_low, "ci_high": paired.ci_high,
        })  # fmt: skip
    frame = pd.DataFrame(rows).set_index("name")
    frame = frame.sort_values("accuracy", ascending=False, kind="stable")
    best = frame.iloc[0]
    claimed = best.name == "none" or best["ci_low"] > 0
    frame.attrs["advice"] = (
        f"augmentation {best['augmentation']} with flip {best['flip']} is best here: "
        f"{100 * best['accuracy']:.1f}% of held-out samples, against "
        f"{100 * frame.loc['none', 'accuracy']:.1f}% without"
        + ("" if claimed else "; the interval of the difference holds zero, "
           "so that more seeds or a longer training may say otherwise")
    )  # fmt: skip
    return frame
