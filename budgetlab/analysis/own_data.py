"""Your own data: triage of samples, suspected labels, and a comparison of augmentations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from budgetlab.analysis.conditions import require, require_same_data
from budgetlab.analysis.per_sample import HARD, aum_strata, copy_sources, measures
from budgetlab.analysis.statistics import paired_difference
from budgetlab.analysis.wrong_labels import (
    held_out_probabilities,
    label_quality,
    temporary_run,
    threshold_quality,
    training_samples,
)
from budgetlab.errors import InputError, counted, known, one_each, whole
from budgetlab.records import Records, open_records

if TYPE_CHECKING:
    from budgetlab.data import Dataset, Splits

VERDICTS = {
    "check the label": "a likely wrong label by quality=, or copies of it have another label",
    "low margin": "on average another class was more likely than the label, which may be right",
    "decisive": "learned, but not surely: the third of the remaining samples that varies most",
    "ordinary": "none of the others",
    "redundant": "right at every visit, with little error; or a copy of an earlier sample",
    "not seen": "never trained on",
}
"""Verdicts of :func:`triage` and their reasons, in the order in which they are listed."""

MEASURES = ("aum", "confidence", "variability", "correctness", "forgetting", "el2n", "mean_loss")
LEADING = ("rank", "verdict", "index", "origin", "label", "suggested", "p_wrong", "name", "copy_of")
AUM_NOTE = (
    "a negative margin is a reason to look, not a verdict, as many of these labels may be right: "
    "give quality= for labels to check, and an estimate of how many of them are wrong"
)
DECISIVE_SHARE = 1 / 3
EASY_QUANTILE = 0.5


def triage(
    data: Records | pd.DataFrame,
    *,
    quality: pd.DataFrame | None = None,
    copies: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Rank training samples by how urgently they need checking, and give each a verdict.

    The verdicts (:data:`VERDICTS`) follow from rules on recorded measures; they are not facts:

    - *check the label*: a suspect of ``quality`` that is more likely wrong than not, surest
      first, unless the network is too weak to judge; or copies that have different labels.
    - *low margin*: the other suspects; without ``quality``, samples with a negative area under
      the margin (Pleiss et al. 2020), lowest first. This ranks wrong labels well, but most of
      the list is right if the network is weak or was trained mainly on hard samples, so
      :func:`indices` keeps it by default.
    - *redundant*: a copy of an earlier sample with the same label; or right at every visit,
      and among the half of those with the smallest EL2N (Paul et al. 2021).
    - *decisive*: of the remaining samples, the third with the highest variability
      (Swayamdipta et al. 2020: the ambiguous region carries generalisation).

    Parameters
    ----------
    data
        Records of runs on the same data, over which measures are averaged (several seeds give
        a more stable list), or a frame from :func:`budgetlab.analysis.measures`.
    quality
        Result of :func:`budgetlab.analysis.label_quality` (held-out folds) or
        :func:`budgetlab.analysis.threshold_quality` for the same samples, with the same index.
    copies
        Result of :func:`budgetlab.data.duplicates` for the training samples, int64 ``[N]``; by
        default the recorded metadata ``copy_of``, if any.
    names
        Names of the training samples, ``[N]``, for the column ``name``.

    Returns
    -------
    DataFrame
        One row per sample, index ``sample``, most urgent first: ``rank`` from 1, ``verdict``,
        ``index`` (position in the source, for ``Subset``), ``origin``, ``label``, ``name`` and
        ``copy_of`` where known, the measures, and the metadata; with ``quality`` also
        ``p_wrong`` and ``suggested`` (class number). ``attrs["note"]`` states how many of the
        labels to check are expected to be wrong, or that this cannot be estimated.
    """
    # In the order of sample numbers, like copies and names.
    frame = data.sort_index() if isinstance(data, pd.DataFrame) else _mean_measures(data)
    require(frame, ("label", "visits", *MEASURES))
    if quality is not None:
        require(quality, ("suspect", "p_wrong"), "quality")
    for what, given in (("names", names), ("quality", quality)):
        if given is not None:
            one_each(what, given, len(frame))
    if names is not None:
        frame["name"] = list(names)
    own, first = copy_sources(frame, copies)
    if copies is not None or "copy_of" in frame:
        frame["copy_of"] = np.where(first == own, -1, first)
    wrong, low, note = pd.Series(False, frame.index), frame["aum"] < 0, AUM_NOTE
    if quality is not None:
        quality = quality.sort_index()
        if not quality.index.equals(frame.index):
            raise InputError(
                "quality is of other samples, by its index: give that of the training samples"
            )
        added = [name for name in ("suggested", "p_wrong") if name in quality]
        frame = frame.assign(**{name: quality[name].to_numpy() for name in added})
        # Threshold samples also list labels that are more likely right than wrong, and p_wrong
        # of a weak network cannot be trusted.
        weak = bool(quality.attrs.get("weak"))
        sure = quality["suspect"] & (quality["p_wrong"] >= 0.5) & (not weak)
        low[:], wrong[:] = (quality["suspect"] & ~sure).to_numpy(), sure.to_numpy()
        note = precision_note(quality if weak else quality.assign(suspect=sure))
    frame["verdict"] = _verdicts(frame, wrong, low, first)
    original = pd.Series(first == own, frame.index)
    by = {
        "check the label": -frame["p_wrong"] if "p_wrong" in frame else frame["aum"],
        "low margin": frame["aum"],
        "decisive": -frame["variability"],
        "ordinary": -frame["mean_loss"],
        "redundant": frame["el2n"].where(original, -1.0),
        "not seen": frame.index,
    }
    parts = [frame.assign(by=by[name])[frame["verdict"] == name].sort_values("by", kind="stable")
             for name in VERDICTS]  # fmt: skip
    ranked = pd.concat(parts).drop(columns="by").assign(rank=np.arange(1, len(frame) + 1))
    leading = [n for n in LEADING if n in ranked]
    ranked = ranked[[*leading, *MEASURES, *(n for n in ranked if n not in (*leading, *MEASURES))]]
    ranked.attrs["note"] = note
    return ranked


def _mean_measures(records: Records) -> pd.DataFrame:
    """Average each measure over runs on the same data; drops ``learning``, which has no mean."""
    runs = open_records(records)
    require_same_data(runs)
    frames = [measures(run) for run in runs]
    if len(frames) == 1:
        return frames[0]
    # NaN where a run never saw a sample: the mean is over the runs that did.
    averaged = [name for name in (*HARD, "visits") if name in frames[0]]
    together = pd.concat([frame[averaged] for frame in frames], keys=range(len(frames)))
    frame = frames[0].drop(columns="learning").assign(**together.groupby(level=1).mean())
    return frame.assign(aum_stratum=aum_strata(frame["aum"].to_numpy()))


def _verdicts(
    frame: pd.DataFrame, wrong: pd.Series, low: pd.Series, first: np.ndarray
) -> np.ndarray:
    seen = frame["visits"] > 0
    easy = seen & (frame["correctness"] == 1) & (frame["forgetting"] == 0)
    if easy.any():
        easy &= frame["el2n"] <= frame.loc[easy, "el2n"].quantile(EASY_QUANTILE)
    left = seen & ~wrong & ~low & ~easy
    places = frame["variability"][left].rank(ascending=False, method="first")
    most_variable = places.reindex(frame.index) <= max(1, round(DECISIVE_SHARE * len(places)))
    copy = pd.Series(False, frame.index)
    if "copy_of" in frame:
        # Copies with one label are redundant; if labels differ, the whole group is in doubt.
        labels = frame.groupby(first)["label"].transform("nunique")
        copy, wrong = (frame["copy_of"] >= 0) & (labels == 1), wrong | (labels > 1)
    return np.select(
        [wrong, copy, low, ~seen, easy, most_variable],
        ["check the label", "redundant", "low margin", "not seen", "redundant", "decisive"],
        "ordinary",
    )


def precision_note(quality: pd.DataFrame) -> str:
    """Describe in a sentence how many of the suspected labels are expected to be wrong."""
    listed, weak = quality.loc[quality["suspect"], "p_wrong"], quality.attrs.get("weak", "")
    if not len(listed):
        return f"{weak}; so no label is a suspect" if weak else "no label is a suspect"
    found = counted(len(listed), "suspected label")
    if weak:
        return f"{weak}; how many of the {found} are wrong cannot be told: judge the first by eye"
    return f"about {100 * listed.mean():.0f}% of {found} can be expected to be wrong"


def suspects(quality: pd.DataFrame, data: "Splits | Dataset | None" = None) -> pd.DataFrame:
    """List suspected labels, surest first, with the expected precision of the list.

    ``quality`` is from :func:`label_quality` or :func:`threshold_quality`. Rows are the suspects,
    sorted by ``p_wrong``; ``expected_precision`` is the estimated share of wrong labels in the list
    down to that row. With ``data``, the samples that were judged, there are also ``origin``,
    ``label`` and, from held-out folds, ``instead``. ``attrs`` are those of ``quality``, with
    ``expected_precision`` of the whole list and ``note``, a sentence on it. Both precisions are NaN
    if the network is too weak to judge.
    """
    require(quality, ("suspect", "p_wrong"), "quality")
    found = quality[quality["suspect"]].drop(columns="suspect")
    by = ["p_wrong", "margin"] if "margin" in found else ["p_wrong"]
    found = found.sort_values(by, ascending=[False, True][: len(by)], kind="stable")
    weak = bool(quality.attrs.get("weak"))
    found["expected_precision"] = np.nan if weak else found["p_wrong"].expanding().mean()
    if data is not None:
        train = training_samples(data)
        one_each("quality", quality, len(train))
        names, rows = np.array(train.classes), found.index
        known = {"label": names[train.y.cpu().numpy()[rows]]}
        if "suggested" in found:
            known["instead"] = names[found["suggested"]]
        known |= {name: train.metadata[name].to_numpy()[rows]
                  for name in ("origin", "index") if name in train.metadata}  # fmt: skip
        found = pd.DataFrame(known, rows).join(found)
    whole = float("nan") if weak or not len(found) else float(found["p_wrong"].mean())
    found.attrs = quality.attrs | {"expected_precision": whole, "note": precision_note(quality)}
    return found


def find_suspects(data: "Splits | Dataset", *, by: str = "folds", **settings: Any) -> pd.DataFrame:
    """Train briefly, judge the training labels, and list :func:`suspects`, all in one call.

    Labels are judged by ``folds`` (:func:`held_out_probabilities`) or by ``threshold`` samples
    (:func:`threshold_quality`), to which ``settings`` are passed. Unless they name one, there is
    no augmentation, which suits short runs best.
    """
    by = known("way to judge labels", by, ("folds", "threshold"))
    settings = {"augmentation": "none"} | settings
    if by == "threshold":
        return suspects(threshold_quality(data, **settings), data)
    chances = held_out_probabilities(data, **settings)
    return suspects(label_quality(training_samples(data).y.cpu().numpy(), chances), data)


def indices(
    ranked: pd.DataFrame, *, drop: Sequence[str] = ("check the label", "redundant")
) -> np.ndarray:
    """Return the positions to keep, for ``torch.utils.data.Subset(dataset, indices)``.

    Samples of a :func:`triage` table with a verdict in ``drop`` are left out. The first of several
    copies with one label stays, unless it is redundant by itself. Positions, int64 and ascending,
    refer to the data set or folder that was read (``index``), not to the training samples.
    ``numpy.savetxt(path, kept, fmt="%d")`` writes them, one per line.
    """
    require(ranked, ["verdict"])
    drop = [known("verdict", name, VERDICTS) for name in drop]
    kept = ranked[~ranked["verdict"].isin(drop)]
    source = kept.get("index", kept.index)
    return np.sort(np.asarray(source, np.int64))


ARMS = {
    "none": ("none", False),
    "flip": ("flip", True),
    "crop": ("standard", False),
    "crop and flip": ("standard", True),
}
"""Compared by :func:`compare_augmentations`: augmentation, and whether images are mirrored."""


def compare_augmentations(
    data: "Splits | Dataset", *, seeds: int = 3, **settings: Any
) -> pd.DataFrame:
    """Compare augmentations in short training runs, to choose one before anything else.

    Accuracy is measured on a held-out fifth of the training samples, a different one for each
    seed, never on the test set; three or more ``seeds`` give an interval. The best choice depends
    on the length of training: compare at the length you will train for, with ``epochs`` and
    ``budget`` among the ``settings``. In short runs augmentation costs more than it gains.

    One row for ``none``, ``flip``, ``crop`` and ``crop and flip``, best first: the settings
    ``augmentation`` and ``flip``, ``n``, ``accuracy`` (mean, 0 to 1), ``spread`` (standard
    deviation), and ``difference`` from none, paired by seed, with ``ci_low`` and ``ci_high`` (95%).
    ``attrs["advice"]`` is a recommendation in one sentence.
    """
    from budgetlab.data import Splits

    train = training_samples(data)
    if len(train.sample_shape) != 3:
        raise InputError("augmentations are for images, and these samples are vectors")
    seeds = whole("seeds", seeds)
    if settings.keys() & {"augmentation", "flip"}:
        raise InputError("augmentation and flip are what is compared here: leave them out")
    found = pd.DataFrame(index=range(seeds), columns=[*ARMS], dtype=float)
    for seed in range(seeds):
        for name, (augmentation, flip) in ARMS.items():
            splits = Splits.of(replace(train, flip=flip), name="held-out", seed=seed)
            given = {"seed": seed, "augmentation": augmentation, "evaluate_every": 0} | settings
            with temporary_run(splits, **given) as run:
                found.loc[seed, name] = run.summary()["test_accuracy"]
    rows = {}
    for name, (augmentation, flip) in ARMS.items():
        paired = paired_difference(found[name], found["none"])
        rows[name] = {
            "augmentation": augmentation, "flip": "yes" if flip else "no", "n": seeds,
            "accuracy": found[name].mean(), "spread": found[name].std(),
            "difference": paired.difference, "ci_low": paired.ci_low, "ci_high": paired.ci_high,
        }  # fmt: skip
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")
    frame = frame.sort_values("accuracy", ascending=False, kind="stable")
    best, others = frame.iloc[0], frame.drop(index="none")
    claimed = best["ci_low"] > 0 or (best.name == "none" and (others["ci_high"] < 0).all())
    without = (
        "the interval of a difference holds zero" if seeds > 2 else "so few seeds allow no interval"
    )
    rival = frame.iloc[1] if best.name == "none" else frame.loc["none"]
    frame.attrs["advice"] = (
        f"'{best.name}' (augmentation {best['augmentation']}, flip {best['flip']}) is best here: "
        f"{100 * best['accuracy']:.1f}% of held-out samples, against "
        f"{100 * rival['accuracy']:.1f}% with '{rival.name}'"
        + ("" if claimed else f"; {without}, so that more seeds or a longer training may say "
           "otherwise")
    )  # fmt: skip
    return frame
