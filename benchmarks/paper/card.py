"""The reproduction card: claim by claim, what was published, what we find, and a verdict.

    python -m benchmarks.paper.card

Reads benchmarks/results/paper.csv and paper_cpu.csv, writes docs/reproduction.md and
benchmarks/results/reproduction.csv. What has not been run says so; nothing is estimated.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.paper import verdicts
from benchmarks.paper.scales import table_of
from benchmarks.sittings import RESULTS, read
from budgetlab import analysis
from budgetlab.records import write_atomically

DOCS = Path(__file__).parents[2] / "docs"
NOT_RUN = "not run yet"
README_FIGURE = "figure in the README of the official code, read off to about 0.2"


@dataclass(frozen=True)
class Line:
    """One line of a claim: a condition, what was published of it, and what it is read from."""

    name: str
    where: dict[str, object]
    published: str = "no number"
    measure: str = "test_accuracy"
    source: str = ""
    """Where the number was published, if elsewhere than the claim."""


@dataclass(frozen=True)
class Claim:
    """A claim with its lines."""

    title: str
    published: str
    lines: list[Line]
    verdict: verdicts.Verdict
    source: str = "Arazo et al., BMVC 2021, abstract"


def _plain(method: str, budget: float, augmentation: str = "standard") -> dict[str, object]:
    return {"method": method, "budget": budget, "augmentation": augmentation,
            "credit": "dominant", "other_settings": ""}  # fmt: skip


METHODS = ("unif-SGD", "SGD", "p-SGD", "c-SGD", "selective-backprop")
UNIFORM = {0.2: "91.9", 0.3: "92.8", 0.5: "93.8", 0.7: "93.9", 1.0: "94.6"}
SUBSET = {0.2: "84.4", 0.3: "87.6", 0.5: "90.2", 0.7: "91.8"}
VARIANTS = {"no smoothing, last value": "averaging=last, smoothing=0.0",
            "no smoothing, lifetime mean": "smoothing=0.0",
            "smoothing, last value": "averaging=last", "smoothing, lifetime mean": ""}  # fmt: skip

CLAIMS = [
    Claim(
        "(a) A budget costs little when the samples are redrawn, and much with a fixed subset",
        "accuracy falls slowly with the budget under unif-SGD, and faster on a fixed subset",
        [Line(f"unif-SGD, budget {b:g}", _plain("unif-SGD", b), p) for b, p in UNIFORM.items()]
        + [
            Line(f"fixed subset, budget {b:g}", _plain("random-subset", b), p)
            for b, p in SUBSET.items()
        ],
        verdicts.redrawing,
        source=README_FIGURE,
    ),
    Claim(
        "(b) Importance sampling is no consistent improvement over uniform sampling",
        "no consistent improvement",
        [Line(f"{m}, budget {b:g}", _plain(m, b)) for b in (0.2, 0.3) for m in METHODS],
        verdicts.importance,
    ),
    Claim(
        "(c) Augmentation does more than importance sampling",
        "at budget 0.3, RICAP keeps the accuracy of the full run with standard augmentation",
        [
            Line(f"{m} with {a}, budget 0.3", _plain(m, 0.3, a))
            for a in ("standard", "mixup", "ricap", "randaugment")
            for m in ("unif-SGD", "p-SGD")
        ]
        + [Line("unif-SGD with standard, full run", _plain("unif-SGD", 1.0), UNIFORM[1.0],
                source=README_FIGURE)],
        verdicts.augmentation,
    ),
    Claim(
        "(d) Under RICAP, the published code credits the wrong sample",
        "not discussed in the paper",
        [
            Line(f"credit {rule}: {what}", _plain("p-SGD", 0.3, "ricap") | {"credit": rule},
                 measure=column)
            for column, what in (("test_accuracy", "accuracy"), ("entropy", "entropy of counts"))
            for rule in ("row", "dominant", "weighted")
        ],
        verdicts.credit,
        source="the official code",
    ),
    Claim(
        "(e) p-SGD spreads its visits almost as evenly as a uniform draw",
        "entropies of about 10.39, 10.69, 10.77 and 10.81, of at most ln 50000 = 10.82",
        [
            Line(f"p-SGD, {name}", _plain("p-SGD", 0.3) | {"other_settings": other},
                 "one of 10.39, 10.69, 10.77", "entropy")
            for name, other in VARIANTS.items()
        ]
        + [Line("unif-SGD", _plain("unif-SGD", 0.3), "10.81", "entropy")],
        verdicts.evenness,
        source="figure of the paper, read off to about 0.01",
    ),
]  # fmt: skip


def select(rows: pd.DataFrame, where: dict[str, object]) -> pd.DataFrame:
    """Return the rows that have these values."""
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows


def in_words(values: pd.Series, measure: str) -> str:
    """Write mean, standard deviation and n."""
    if values.empty:
        return NOT_RUN
    factor, digits = (100, 2) if measure.endswith("accuracy") else (1, 4)
    spread = f" ± {factor * values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{factor * values.mean():.{digits}f}{spread} (n = {len(values)})"


def card(claims: list[Claim], tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a line of each claim: what was published and what each table holds."""
    return pd.DataFrame(
        {
            "claim": claim.title,
            "condition": line.name,
            "published": line.published,
            "source": (line.source or claim.source) if line.published != "no number" else "",
            **{
                scale: in_words(select(rows, line.where)[line.measure], line.measure)
                for scale, rows in tables.items()
            },
        }
        for claim in claims
        for line in claim.lines
    )


HEADINGS = {"paper": "ours, paper's scale", "cpu": "ours, reduced scale"}

INTRODUCTION = """# Reproduction card

Claim by claim: what Arazo, Ortego, Albert, O'Connor and McGuinness published (*How Important is
Importance Sampling for Deep Budgeted Training?*, BMVC 2021), what this kit finds, and what can be
said. Accuracies are percent on the test set after the last epoch (the published ones are the best
of all epochs), mean ± standard deviation over n seeds; differences are paired by seed.

| | published | ours, paper's scale | ours, reduced scale |
|---|---|---|---|
| data | CIFAR-10 | CIFAR-10, or it as JPEG (`cifar10-jpeg`) | 10,000 of its images as JPEG |
| network | ResNet-18 | ResNet-18 | ResNet-8, widths 16-32-64 |
| epochs at full budget | 200 | 200 | 20 |
| recipe | SGD at 0.1, momentum 0.9, decay 1e-4, batch 128, linear schedule | same | same |

JPEG costs some accuracy and the reduced scale much more, so compare differences, not levels. Every
run behind this page is a row of `benchmarks/results/paper.csv` (which is there once a run at that
scale is) or of `benchmarks/results/paper_cpu.csv`, with its hardware and versions. The rows are
made by `python -m benchmarks.paper`, at the reduced scale with `--scale cpu`, and this page by
`python -m benchmarks.paper.card`."""


def page(claims: list[Claim], tables: dict[str, pd.DataFrame]) -> str:
    """Write the card as Markdown."""
    parts = [INTRODUCTION]
    rows = card(claims, tables)
    for claim in claims:
        own = rows[rows["claim"] == claim.title]
        elsewhere = ~own["source"].isin(["", claim.source])
        cited = own["published"] + " (" + own["source"] + ")"
        own = own.assign(published=own["published"].mask(elsewhere, cited))
        own = own.drop(columns=["claim", "source"])
        said = [
            f"**Verdict, {HEADINGS[scale].removeprefix('ours, ')}:** {claim.verdict(table)}"
            for scale, table in tables.items()
        ]
        parts += [
            f"## {claim.title}",
            f"Published: {claim.published} ({claim.source}).",
            analysis.markdown(own.rename(columns=HEADINGS)).rstrip(),
            *said,
        ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write the page and the table; returns the exit code."""
    tables = {scale: read(table_of(scale)) for scale in HEADINGS}
    write_atomically(DOCS / "reproduction.md", page(CLAIMS, tables).encode())
    rows = card(CLAIMS, tables)
    for scale in HEADINGS:
        said = {claim.title: claim.verdict(tables[scale]) for claim in CLAIMS}
        rows[f"verdict_{scale}"] = rows["claim"].map(said)
    write_atomically(RESULTS / "reproduction.csv", rows.to_csv(index=False).encode())
    print(rows.drop(columns=["source", "verdict_paper", "verdict_cpu"]).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
