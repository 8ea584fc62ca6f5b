"""One sentence on each claim, from the rows that a table holds; never more than they show."""

from collections.abc import Callable, Iterable

import pandas as pd

from budgetlab import analysis

__all__ = ["Verdict", "augmentation", "credit", "evenness", "importance", "redrawing"]

Verdict = Callable[[pd.DataFrame], str]
NOT_RUN = "not run yet."


def where(rows: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Return the rows that have these values."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows


def difference(
    ours: pd.DataFrame, theirs: pd.DataFrame, what: str, measure: str = "test_accuracy"
) -> str:
    """Say how far apart two conditions are, paired by seed; empty without a pair."""
    a, b = (rows.set_index("seed")[measure] for rows in (ours, theirs))
    seeds = a.index.intersection(b.index)
    if seeds.empty:
        return ""
    found = analysis.paired_difference(a[seeds].to_numpy(), b[seeds].to_numpy())
    factor, unit, digits = (100, " points", 2) if measure == "test_accuracy" else (1, "", 4)
    size = f"{factor * found.difference:+.{digits}f}{unit}"
    if found.p != found.p:
        return f"{what} {size} (n = {found.pairs}, no interval)"
    interval = f"{factor * found.low:+.{digits}f} to {factor * found.high:+.{digits}f}"
    told = "" if found.p < 0.05 else ", not told apart"
    return f"{what} {size} (95% CI {interval}, n = {found.pairs}{told})"


def joined(parts: Iterable[str]) -> str:
    """Join what is known; say so where nothing is."""
    known = [part for part in parts if part]
    return "; ".join(known) + "." if known else NOT_RUN


def redrawing(rows: pd.DataFrame) -> str:
    """(a): redrawing against a fixed subset at each budget."""
    plain = where(rows, augmentation="standard", other_settings="")
    return joined(
        difference(
            where(plain, method="unif-SGD", budget=budget),
            where(plain, method="random-subset", budget=budget),
            f"redrawing against a fixed subset at budget {budget:g}:",
        )
        for budget in (0.2, 0.3, 0.5, 0.7)
    )


def importance(rows: pd.DataFrame) -> str:
    """(b): every method against unif-SGD, corrected for many comparisons."""
    plain = where(rows, augmentation="standard", other_settings="", credit="dominant")
    plain = plain[plain["budget"].isin([0.2, 0.3])]
    plain = plain[plain["method"] != "random-subset"]
    if "unif-SGD" not in set(plain["method"]) or plain["method"].nunique() < 2:
        return NOT_RUN
    table = analysis.compare(plain, baseline="unif-SGD")
    table = table[(table["method"] != "unif-SGD") & (table["pairs"] > 1)]
    if table.empty:
        return "too few seeds for a comparison yet."
    better = table[(table["p_corrected"] < 0.05) & (table["difference"] > 0)]
    worse = table[(table["p_corrected"] < 0.05) & (table["difference"] < 0)]
    return (
        f"of {len(table)} comparisons with unif-SGD, {len(better)} show an improvement and "
        f"{len(worse)} a loss (Holm-corrected, n = {table['pairs'].min()}){_named(better)}"
        f"{_named(worse)}; the best is {_one(table.loc[table['difference'].idxmax()])}, the worst "
        f"{_one(table.loc[table['difference'].idxmin()])}."
    )


def _one(row: pd.Series) -> str:
    points = f"{100 * row['difference']:+.2f} points"
    interval = f"95% CI {100 * row['ci_low']:+.2f} to {100 * row['ci_high']:+.2f}"
    return f"{row['method']} at {row['budget']:g} with {points} ({interval})"


def _named(table: pd.DataFrame) -> str:
    return "".join(f"; {_one(row)}" for _, row in table.iterrows())


def augmentation(rows: pd.DataFrame) -> str:
    """(c): what augmentation adds, what importance adds, and the full run."""
    rows = where(rows, other_settings="", credit="dominant")
    base = where(rows, method="unif-SGD", budget=0.3, augmentation="standard")
    full = where(rows, method="unif-SGD", budget=1.0, augmentation="standard")
    ricap = where(rows, method="unif-SGD", budget=0.3, augmentation="ricap")
    return joined(
        [
            *(
                difference(
                    where(rows, method="unif-SGD", budget=0.3, augmentation=name), base,
                    f"{name} against standard, unif-SGD:",
                )
                for name in ("mixup", "ricap", "randaugment")
            ),
            difference(
                where(rows, method="p-SGD", budget=0.3, augmentation="standard"), base,
                "p-SGD against unif-SGD, standard:",
            ),
            difference(ricap, full, "RICAP at budget 0.3 against the full run with standard:"),
        ]
    )  # fmt: skip


def credit(rows: pd.DataFrame) -> str:
    """(d): what the rule of credit changes."""
    runs = where(rows, method="p-SGD", augmentation="ricap", budget=0.3, other_settings="")
    row = where(runs, credit="row")
    return joined(
        difference(where(runs, credit=rule), row, f"{rule} against row, {name}:", measure)
        for measure, name in (("test_accuracy", "accuracy"), ("entropy", "entropy of the counts"))
        for rule in ("dominant", "weighted")
    )


def evenness(rows: pd.DataFrame) -> str:
    """(e): what smoothing and averaging do to the entropy."""
    runs = where(rows, augmentation="standard", budget=0.3, credit="dominant")
    full = where(runs, method="p-SGD", other_settings="")
    uniform = where(runs, method="unif-SGD")
    bare = where(runs, method="p-SGD", other_settings="averaging=last, smoothing=0.0")
    return joined(
        [
            difference(full, uniform, "p-SGD against unif-SGD, entropy:", "entropy"),
            difference(bare, uniform, "neither smoothed nor averaged, entropy:", "entropy"),
        ]
    )
