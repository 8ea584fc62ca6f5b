"""Has anything become slower than it was when the baseline was set?"""

import sys
from pathlib import Path

import pandas as pd

__all__ = ["BASELINE", "slower", "warn"]

BASELINE = Path(__file__).parents[1] / "results" / "speed" / "baseline.csv"
# Ratios taken side by side vary by a few per cent from run to run.
ALLOWED = 0.85


def slower(now: pd.DataFrame, baseline: pd.DataFrame) -> list[str]:
    """Say which ratios fell below the baseline.

    Only rows of unit ``ratio`` count, of which more is better: how many times as fast as the
    usual way. Seconds would compare one day, or one machine, with another.

    Parameters
    ----------
    now, baseline
        Tables of :class:`~benchmarks.speed.measure.Row`, with a column ``threads``.

    Returns
    -------
    list of str
        One sentence each.
    """
    keys = ["part", "what", "threads", "device"]
    both = now.merge(baseline, on=keys, suffixes=("", "_before"))
    quick = both[(both["unit"] == "ratio") & both["what"].str.contains("times as fast")]
    fell = quick[quick["value"] < ALLOWED * quick["value_before"]]
    return [
        f"{each.part}, {each.what}: {each.value:.2f}, and {each.value_before:.2f} in the baseline"
        for each in fell.itertuples()
    ]


def warn(now: pd.DataFrame) -> bool:
    """Compare with the committed baseline and say so; True where something is slower."""
    if not BASELINE.is_file():
        print("no baseline to compare with: --set-baseline keeps this run as one")
        return False
    baseline = pd.read_csv(BASELINE)
    same = set(baseline["machine"]) & set(now["machine"])
    sentences = slower(now, baseline)
    for sentence in sentences:
        print(f"slower: {sentence}", file=sys.stderr)
    if sentences and not same:
        print("the baseline is of another machine, so this may be the machine", file=sys.stderr)
        return False
    if not sentences:
        print(f"no ratio fell below {ALLOWED:.0%} of the baseline")
    return bool(sentences)
