"""Write a page with every plot and the call that drew it.

Run it with ``python docs/gallery.py RECORDS [--out gallery.html]``, where RECORDS is a folder
with runs of several methods. The calls on the page are the calls that were made: each is a line
of text that is evaluated here.
"""

import argparse
import base64
import io
import sys
import warnings
from pathlib import Path

import jinja2
import matplotlib as mpl
import pandas as pd
from markupsafe import Markup

from budgetlab import plots, report
from budgetlab.errors import InputError
from budgetlab.records import open_records

# (question, call); the names that the calls use are made in `names`.
CALLS = [
    ("Who learns fastest for what it costs?", 'bl.plots.learning_curves(runs, cost="steps")'),
    ("What does accuracy cost?", 'bl.plots.frontier(runs, cost="flops")'),
    ("Is it better than the baseline?", 'bl.plots.differences(runs, baseline="unif-SGD")'),
    ("When does it pay?", "bl.plots.importance_map(cells)"),
    ("How long must a training be for variety to pay?", "bl.plots.crossing(lengths)"),
    ("What does a larger budget buy?", "bl.plots.budget_curves(runs)"),
    ("Where did the budget go?", "bl.plots.cost_ledger(runs)"),
    ("How do the losses spread?", "bl.plots.loss_distribution(record)"),
    ("How far from uniform does it draw?", "bl.plots.sampling_probability(record)"),
    ("Does it draw what it has not learned?", "bl.plots.probability_vs_loss(record, epoch=-1)"),
    ("Does it return to a few samples?", "bl.plots.ranked_picks(same_seed)"),
    (
        "Do two measures say the same?",
        'bl.plots.measure_vs_measure(record, "confidence", "variability")',
    ),
    ("Are some classes picked more?", "bl.plots.class_share(record)"),
    ("Where does it go wrong?", "bl.plots.class_accuracy(record)"),
    ("Which classes are taken for which?", "bl.plots.confusion(record)"),
    ("Does it pick wrong labels?", 'bl.plots.flagged_share(same_seed, flag="noisy")'),
    ("Which measure finds wrong labels?", "bl.plots.detection_curve(record)"),
    ("Who trains on wrong labels, and when?", "bl.plots.noisy_picks(same_seed)"),
    ("Is the gradient right on average, and how noisy?", "bl.plots.gradient_errors(estimates)"),
    (
        "Does importance pay more late in training?",
        'bl.plots.gradient_quality(estimates, "variance_ratio")',
    ),
    ("Which samples are trained on most?", 'bl.plots.image_grid(record, "times_trained")'),
    ("How much of the data has it seen?", "bl.plots.coverage(same_seed)"),
    (
        "Who is drawn, on points?",
        "bl.plots.points_map([[0, 0], [1, 2], [2, 1]], [0, 1, 0], chance=[0.5, 1, 2])",
    ),
    ("Does it train on the hard ones?", "bl.plots.picks_by(runs)"),
    (
        "Do runs choose the same samples?",
        'bl.plots.agreement_matrix(same_seed, measure="times_trained")',
    ),
    (
        "How do images differ?",
        'bl.plots.image_rows({"some": list(record.thumbnails.values())[:8]})',
    ),
    ("Which samples are hardest?", 'bl.plots.image_grid(record, "mean_loss", count=8)'),
    ("What happened to one sample?", "bl.plots.sample_life(record, sample)"),
    (
        "Does the credited probability mean anything under mixing?",
        "bl.plots.credit_calibration(same_seed)",
    ),
]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Every plot of budgetlab</title><link rel="icon" href="data:,"><style>{{ css }}</style></head>
<body><header><p class="kit">budgetlab</p><h1>Every plot, and the call that drew it</h1>
<p class="lead">A frame or a record goes in, matplotlib Axes come out. All take <code>ax=</code>;
<code>bl.plots.alt_text(ax)</code> says in words what was drawn.</p></header>
<main>
<pre tabindex="0"><code>import budgetlab as bl
import pandas as pd

{{ setup }}</code></pre>
{% for item in items %}
<section><h2>{{ item.question }}</h2>
<pre tabindex="0"><code>{{ item.call }}</code></pre>
<figure><img src="{{ item.source }}" alt="{{ item.alt }}"><figcaption>{{ item.alt }}</figcaption>
</figure></section>
{% endfor %}
</main></body></html>
"""

SETUP = """runs = bl.open_records({folder!r})
record = next(r for r in runs if r.config["method"] == {method!r})
same_seed = [r for r in runs if r.config["seed"] == record.config["seed"]
             and r.config["budget"] == record.config["budget"]]
sample = int(bl.analysis.ranked_counts(record)["sample"].iloc[0])
# Rows as from bl.estimators.Moment; made up here, since they need a network.
estimates = pd.DataFrame({{
    "name": ["uniform", "loss", "uniform", "loss"], "weights": "unbiased", "bias2": 0.0,
    "steps": [10, 10, 200, 200], "variance": [4.0, 3.0, 2.0, 1.0],
    "variance_ratio": [1.0, 0.75, 1.0, 0.5]}})
# The shape of a table of comparisons, and of accuracies over the length; made up as well.
cells = pd.DataFrame({{
    "method": "p-SGD", "redundancy": [0, 0, 0.9, 0.9], "label_noise": [0, 0.4, 0, 0.4],
    "difference": [0.001, -0.01, 0.02, 0.004], "ci_low": [-0.004, -0.013, 0.015, -0.02],
    "ci_high": [0.006, -0.007, 0.025, 0.028], "n": 5,
    "verdict": ["equivalent", "worse", "better", "undecided"]}})
lengths = pd.DataFrame({{
    "epochs": [10, 100, 10, 100], "augmentation": ["none", "none", "ricap", "ricap"],
    "mean": [0.5, 0.6, 0.4, 0.65], "ci_low": [0.49, 0.59, 0.38, 0.64],
    "ci_high": [0.51, 0.61, 0.42, 0.66], "n": 5}})"""


def draw(question: str, call: str, names: dict) -> dict[str, str]:
    """Evaluate a call and keep its figure."""
    import matplotlib.pyplot as plt

    ax = eval(call, names)
    file = io.BytesIO()
    ax.figure.savefig(file, format="png", dpi=120)
    plt.close(ax.figure)
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"question": question, "call": call, "source": source, "alt": plots.alt_text(ax)}


def build(folder: Path, out: Path) -> Path:
    """Write the gallery; a plot that these records cannot fill is left out with a warning."""
    import budgetlab

    mpl.use("Agg")
    methods = [run.config["method"] for run in open_records(folder)]
    method = next((m for m in methods if m not in ("unif-SGD", "SGD")), methods[0])
    setup = SETUP.format(folder=str(folder), method=method)
    names = {"bl": budgetlab, "pd": pd}
    exec(setup, names)
    items = []
    for question, call in CALLS:
        try:
            items.append(draw(question, call, names))
        except InputError as error:
            warnings.warn(f"{call}: {error}", stacklevel=2)
    css = Markup((Path(report.__file__).parent / "page.css").read_text(encoding="utf-8"))
    template = jinja2.Environment(autoescape=True).from_string(PAGE)
    out.write_text(template.render(css=css, setup=setup, items=items), encoding="utf-8")
    return out


def main() -> int:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--out", type=Path, default=Path("gallery.html"))
    given = parser.parse_args()
    print(build(given.records, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
