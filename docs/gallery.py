"""Write a page with every plot and the call that drew it.

Run it with ``python docs/gallery.py RECORDS [--out gallery.html]``, where RECORDS is a folder
with runs of several methods. The calls shown are those made: each is evaluated from its text.
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

# The names used in the calls are defined in `SETUP`.
CALLS = """
bl.plots.learning_curves(runs, cost="steps")
bl.plots.frontier(runs, cost="flops")
bl.plots.differences(runs, baseline="unif-SGD")
bl.plots.importance_map(cells)
bl.plots.crossing(lengths)
bl.plots.budget_curves(runs)
bl.plots.cost_ledger(runs)
bl.plots.loss_distribution(record)
bl.plots.sampling_probability(record)
bl.plots.probability_vs_loss(record, epoch=-1)
bl.plots.ranked_picks(same_seed)
bl.plots.measure_vs_measure(record, "confidence", "variability")
bl.plots.class_share(record)
bl.plots.class_accuracy(record)
bl.plots.confusion(record)
bl.plots.flagged_share(same_seed, flag="ambiguous")
bl.plots.detection_curve(record)
bl.plots.noisy_picks(same_seed)
bl.plots.gradient_errors(estimates)
bl.plots.gradient_quality(estimates, "variance_ratio")
bl.plots.image_grid(record, "times_trained")
bl.plots.coverage(same_seed)
bl.plots.points_map([[0, 0], [1, 2], [2, 1]], [0, 1, 0], chance=[0.5, 1, 2])
bl.plots.picks_by(runs)
bl.plots.agreement_matrix(same_seed, measure="times_trained")
bl.plots.image_rows({"some": list(record.thumbnails.values())[:8]})
bl.plots.image_grid(record, "mean_loss", count=8)
bl.plots.sample_life(record, sample)
bl.plots.credit_calibration(same_seed)
""".strip().splitlines()

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


def draw(call: str, names: dict) -> dict[str, str]:
    """Evaluate a call; return its figure, and the question in the plot's docstring."""
    import matplotlib.pyplot as plt

    plot = getattr(plots, call.removeprefix("bl.plots.").partition("(")[0])
    question = " ".join(plot.__doc__.split()).partition("?")[0] + "?"
    ax = eval(call, names)
    file = io.BytesIO()
    ax.figure.savefig(file, format="png", dpi=120)
    plt.close(ax.figure)
    source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"question": question, "call": call, "source": source, "alt": plots.alt_text(ax)}


def build(folder: Path, out: Path) -> Path:
    """Write the gallery; plots that these records cannot fill are left out with a warning."""
    import budgetlab

    mpl.use("Agg")
    methods = [run.config["method"] for run in open_records(folder)]
    method = next((m for m in methods if m not in ("unif-SGD", "SGD")), methods[0])
    setup = SETUP.format(folder=str(folder), method=method)
    names = {"bl": budgetlab, "pd": pd}
    exec(setup, names)
    items = []
    for call in CALLS:
        try:
            items.append(draw(call, names))
        except InputError as error:
            warnings.warn(f"{call}: {error}", stacklevel=2)
    css = Markup((Path(report.__file__).parent / "page.css").read_text(encoding="utf-8"))
    template = jinja2.Environment(autoescape=True).from_string(PAGE)
    out.write_text(template.render(css=css, setup=setup, items=items), encoding="utf-8")
    return out


def main() -> int:
    """Write the page from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--out", type=Path, default=Path("gallery.html"))
    given = parser.parse_args()
    print(build(given.records, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
