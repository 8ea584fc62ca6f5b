"""The reproduction card: published results beside those of this kit.

    python -m experiments.card

Reads experiments/results/paper.csv (the paper's scale) and scale_model.csv (the same questions
at small scale, on CIFAR-10 as JPEG); writes docs/reproduction.md and
experiments/results/reproduction.csv. Missing runs are marked as such.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from budgetlab import analysis
from budgetlab.analysis.statistics import MARGIN, sentence
from budgetlab.course.results import averages, select
from budgetlab.records import write_atomically
from experiments.tables import RESULTS, against, listed, open_sentence, provenance, read

DOCS = Path(__file__).parents[1] / "docs"
NOT_RUN = "not run yet"
SCALES = {"paper": ("paper.csv", "ours, paper's scale"),
          "small": ("scale_model.csv", "ours, scale model")}  # fmt: skip
FIGURE = "Read off a figure in the README of the official code (IS4BT, CIFAR-10) to about 0.2"
Rows = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Claim:
    """A published claim: its conditions (lines), published values, and comparisons."""

    title: str
    published: str
    lines: dict[str, dict[str, object]]
    """Settings of each line."""
    numbers: dict[str, str] = field(default_factory=dict)
    """Published numbers, by line."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Lines to compare, each with its baseline."""
    metric: str = "test_accuracy"


METHODS = ("SGD", "p-SGD", "c-SGD", "selective-backprop")
UNIFORM = {0.2: "91.9", 0.3: "92.8", 1.0: "94.6"}
SUBSET = {0.2: "84.4", 0.3: "87.6"}
VARIANTS = {
    f"p-SGD, {'smoothing' if smoothing else 'no smoothing'}, {text}":
        {"method": "p-SGD", "smoothing": smoothing, "averaging": averaging}
    for smoothing in (0.0, 1.0)
    for averaging, text in (("last", "last value"), ("lifetime", "lifetime mean"))
}  # fmt: skip
AUGMENTATIONS = ("standard", "mixup", "ricap", "randaugment")


def _uniform(budget: float) -> str:
    return "unif-SGD, full run" if budget == 1 else f"unif-SGD, budget {budget:g}"


CLAIMS = [
    Claim(
        "(a) Redrawing the samples costs little, a fixed subset costs much",
        "as the budget shrinks, accuracy falls slowly when samples are redrawn and faster on a "
        f"fixed random subset. {FIGURE}.",
        {_uniform(b): {"budget": b} for b in UNIFORM}
        | {f"fixed subset, budget {b:g}": {"method": "random-subset", "budget": b} for b in SUBSET},
        {_uniform(b): text for b, text in UNIFORM.items()}
        | {f"fixed subset, budget {b:g}": text for b, text in SUBSET.items()},
        tuple((f"fixed subset, budget {b:g}", _uniform(b)) for b in SUBSET),
    ),
    Claim(
        "(b) Importance sampling brings no consistent gain over uniform draws",
        "no consistent improvement over uniform sampling (abstract).",
        {_uniform(b): {"budget": b} for b in SUBSET}
        | {f"{m}, budget {b:g}": {"method": m, "budget": b} for b in SUBSET for m in METHODS},
        {_uniform(b): UNIFORM[b] for b in SUBSET},
        tuple((f"{m}, budget {b:g}", _uniform(b)) for b in SUBSET for m in METHODS),
    ),
    Claim(
        "(c) Variety of the data matters more than importance",
        "at a budget of 0.3 RICAP keeps the accuracy of the full run with standard augmentation "
        "(abstract).",
        {"unif-SGD, full run": {"budget": 1.0}}
        | {f"{m}, {a}": {"method": m, "augmentation": a}
           for a in AUGMENTATIONS for m in ("unif-SGD", "p-SGD")},
        {"unif-SGD, full run": "94.6", "unif-SGD, standard": "92.8"},
        (("unif-SGD, ricap", "unif-SGD, full run"),
         *((f"unif-SGD, {a}", "unif-SGD, standard") for a in AUGMENTATIONS[1:]),
         *((f"p-SGD, {a}", f"unif-SGD, {a}") for a in AUGMENTATIONS)),
    ),
    Claim(
        "(d) Under RICAP the published code credits the wrong sample",
        "not discussed in the paper; seen in the official code.",
        {f"credit {rule}": {"method": "p-SGD", "augmentation": "ricap", "credit": rule}
         for rule in ("row", "dominant", "weighted")},
        pairs=(("credit dominant", "credit row"), ("credit weighted", "credit row")),
    ),
    Claim(
        "(e) How unevenly p-SGD spreads its visits: entropy of the counts",
        "a bar chart in the README of the official code (CIFAR-10), read off to about 0.01; the "
        "entropy is at most ln 50,000 = 10.820. The bars are 10.37 for a step schedule with "
        "neither smoothing nor averaging, 10.39 with neither, 10.69 without smoothing, 10.77 for "
        "p-SGD, and 10.81 for p-SGD with RICAP; uniform draws have none. As exp(10.39) / 50,000 is "
        "65%, the draw with neither is worth about two thirds of the samples over 200 epochs.",
        VARIANTS
        | {"p-SGD with RICAP": {"method": "p-SGD", "augmentation": "ricap"}, "unif-SGD": {}},
        {"p-SGD, no smoothing, last value": "10.39", "p-SGD, no smoothing, lifetime mean": "10.69",
         "p-SGD, smoothing, lifetime mean": "10.77", "p-SGD with RICAP": "10.81"},
        tuple((name, "unif-SGD") for name in VARIANTS),
        metric="entropy",
    ),
]  # fmt: skip

OTHERS = """## The same baselines elsewhere

| source | numbers |
|---|---|
| CIFAR-10, the official figure at budget 50 / 70% | fixed subset 90.2 / 91.8, redrawn 93.8 / 93.9; core-sets at 20 / 30 / 50 / 70%: 83.8 / 88.8 / 91.9 / 92.2 |
| CIFAR-100, the official figure at 20 / 30 / 50 / 70 / 100% (read off to about 0.3) | fixed subset 46.2 / 54.2 / 61.5 / 65.8, core-sets 33.5 / 47.4 / 65.3 / 71.9, redrawn 70.5 / 71.6 / 73.1 / 74.2, full 74.7 |
| RS2 (PatrikOkanovic/RS2, plot of CIFAR-10, ResNet-18, 200 epochs, read off to 0.3) | RS2 at 1 / 5 / 10%: 51.9 / 87.1 / 91.8; static random at 1 / 5 / 10 / 20%: 36.9 / 64.6 / 78.5 / 88.2; full 95.5 |
| CORDS (decile-team/cords, CIFAR-10 benchmark notebook, 10%) | Random 87.7, Random-Online 91.2, GLISTER 85.6, CRAIG 85.6, CRAIGPB 88.6, GradMatchPB 89.4, GradMatchPB-Warm 94.9 |
| RICAP (jackryo/ricap, WideResNet-28-10, error) | CIFAR-10 3.89 to 2.85 ± 0.06; CIFAR-100 18.85 to 17.22 ± 0.20 |
| InfoBatch (its README, ResNet-18, 30 / 50 / 70% pruned) | CIFAR-10 95.6 / 95.1 / 94.7 (full 95.6); CIFAR-100 78.2 / 78.1 / 76.5 (full 78.2) |
| txus/ugies-dataset-pruning-repro (one seed, 200 epochs) | CIFAR-10 full 95.24, 30% pruned at random 94.35; CIFAR-100 78.28 and 74.84 |"""

INTRODUCTION = """# Reproduction card

What Arazo, Ortego, Albert, O'Connor and McGuinness published (*How Important is Importance Sampling
for Deep Budgeted Training?*, BMVC 2021), and what this kit finds, claim by claim. Accuracies are in
percent on the test set: the published ones are the best of all epochs, ours are those of the last
epoch, as mean ± standard deviation over n seeds. Differences are paired by seed, in percentage
points, with 95% intervals.

| | published | ours, paper's scale | ours, scale model |
|---|---|---|---|
| data | CIFAR-10 | CIFAR-10, or CIFAR-10 stored as JPEG | 1,000 images of CIFAR-10 stored as JPEG, drawn anew for each seed |
| network | ResNet-18 | ResNet-18 | 97,000 weights, which memorise them |
| epochs at full budget | 200 | 200 | 100 |
| made by | | `python -m experiments --preset paper --datasets cifar10` | `python -m experiments` |

Accuracies at the two scales cannot be compared, but the differences and their direction can."""


def _rows(claim: Claim, rows: pd.DataFrame) -> pd.DataFrame:
    """Select the runs of a claim, each with its line."""
    parts = []
    for name, settings in claim.lines.items():
        own = select(rows, **settings) if len(rows) else rows
        parts.append(own.assign(line=name))
    return pd.concat(parts) if parts else rows


def card(claim: Claim, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tabulate a claim: one row per line, with published values and those of each table."""
    found = pd.DataFrame({"condition": list(claim.lines)})
    found["published"] = [claim.numbers.get(name, "no number") for name in claim.lines]
    for scale, (_, heading) in SCALES.items():
        own = _rows(claim, tables[scale])
        cells: dict[str, str] = {}
        if len(own):
            for row in averages(own, ["line"], claim.metric).to_dict("records"):
                factor, digits = (100, 2) if claim.metric == "test_accuracy" else (1, 3)
                spread = f" ± {factor * row['spread']:.{digits}f}" if row["n"] > 1 else ""
                cells[row["line"]] = f"{factor * row['mean']:.{digits}f}{spread} (n = {row['n']})"
        found[heading] = [cells.get(name, NOT_RUN) for name in claim.lines]
    return found


def verdicts(claim: Claim, rows: pd.DataFrame) -> list[str]:
    """Return a sentence for each pair of lines that both have runs."""
    if not len(rows):
        return [NOT_RUN]
    own, sentences = _rows(claim, rows), []
    paired = pd.concat([
        own[own["line"].isin(pair)].assign(
            pair="|".join(pair), baseline_line=pair[1],
            side=lambda part, pair=pair: part["line"].map({pair[0]: "ours", pair[1]: "theirs"}),
        )
        for pair in claim.pairs
    ])  # fmt: skip
    margin = MARGIN if claim.metric == "test_accuracy" else None
    # A claim's comparisons with one line form one question.
    table = against(paired, "side", "theirs", ["pair", "baseline_line"],
                    question=["baseline_line"], metric=claim.metric, margin=margin)  # fmt: skip
    if table.empty:
        return [NOT_RUN]
    for row in table.to_dict("records"):
        ours, theirs = map(_named, row["pair"].split("|"))
        if claim.metric == "test_accuracy":
            named = row | {"method": ours, "baseline": theirs}
            sentences.append(sentence(named, claim.metric, margin=margin) if row["verdict"]
                             else open_sentence(named))  # fmt: skip
        else:  # neither direction is better
            sentences.append(
                f"{ours} against {theirs}: {row['difference']:+.3f} (95% CI {row['ci_low']:+.3f} to "
                f"{row['ci_high']:+.3f}, n = {row['n']})."
            )
    return sentences


def _named(line: str) -> str:
    method, *settings = line.split(", ")
    return f"{method} ({', '.join(settings)})" if settings else method


def page(tables: dict[str, pd.DataFrame]) -> str:
    """Write the card as Markdown."""
    parts = [INTRODUCTION]
    for claim in CLAIMS:
        parts += [f"## {claim.title}", f"Published: {claim.published}",
                  analysis.markdown(card(claim, tables)).rstrip()]  # fmt: skip
        for scale, (_, heading) in SCALES.items():
            said = "\n".join(f"- {text}" for text in verdicts(claim, tables[scale]))
            said = "Not run yet." if said == f"- {NOT_RUN}" else said
            parts.append(f"**{heading.capitalize()}:**\n\n{said}")
    parts.append(OTHERS)
    for scale, (file, heading) in SCALES.items():
        if len(tables[scale]):
            data = listed(tables[scale]["dataset"].unique(), "and")
            parts.append(f"{heading.capitalize()} (`experiments/results/{file}`, {data}): "
                         f"{provenance(tables[scale])}.")  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write the page and the table; return the exit code."""
    tables = {scale: read(RESULTS / file) for scale, (file, _) in SCALES.items()}
    small = tables["small"]
    if len(small):
        tables["small"] = small[small["dataset"] == "cifar10-jpeg"]
    write_atomically(DOCS / "reproduction.md", page(tables).encode())
    rows = pd.concat([card(claim, tables).assign(claim=claim.title) for claim in CLAIMS])
    write_atomically(RESULTS / "reproduction.csv", rows.to_csv(index=False).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
