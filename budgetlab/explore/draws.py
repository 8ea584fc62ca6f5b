"""Interactive chart of sampling probabilities by smoothing, power, budget and epoch."""

from pathlib import Path
from typing import Any

import numpy as np

from budgetlab.analysis import effective_sample_size, entropy
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, require_number, whole
from budgetlab.explore.chart import (
    SUBTITLE_LETTERS,
    Explorable,
    axis,
    mark,
    slider,
    specification,
    words,
    wrap_title,
    wrapped,
)
from budgetlab.explore.packing import compact, joined, parted
from budgetlab.methods import COLOURS
from budgetlab.records import Record, open_record

WIDTH = 250  # of each of the four views
MOST_VALUES = 18_000  # of each kind, so that a notebook with a chart stays under 1 MB
# Newton steps on log(-log(share left)) over log(t), a straight line where all weights are equal.
# These bring the expected number of draws to within 1e-6; without smoothing, at powers above 2 and
# budgets near 1, to within 1e-3.
NEWTON_STEPS = 6


def probabilities(
    record: Record | Path | str,
    *,
    method: str | None = None,
    samples: int = 1_000,
    seed: int = 0,
) -> Explorable:
    """Explore a method's draw with sliders for smoothing, power, budget and epoch.

    Scores are computed from what the run knew at the start of the epoch. From them the page
    computes ``q`` (:func:`budgetlab.samplers.smooth`), inclusion probabilities, entropy and
    effective sample size. Inclusion probabilities have no closed form for draws without
    replacement; they use the approximation of Rosén (1972),
    :func:`~budgetlab.samplers.scores.inclusion_probability`, within 0.3% for 300 of 1,000. Raises
    InputError if the method has no scores, or the record no epoch; from the twin, if a value is not
    allowed, such as a budget of less than one batch.

    - ``record``: a record, or its folder.
    - ``method``: a method that draws each epoch ahead by scores, such as ``p-SGD``. By default the
      run's, or p-SGD if that has no scores.
    - ``samples``: maximum number of samples, chosen at random; ``q`` is then normalised over these.
    - ``seed``: seed of that choice.

    Returns
    -------
    Explorable
        Its twin takes ``smoothing``, ``power``, ``budget`` and ``epoch`` and returns a dict of
        ``q``, ``inclusion`` and ``losses`` ``[N]`` and ``entropy`` (nats),
        ``effective_samples``, ``draws``, ``lowest`` and ``highest``. Inclusion probabilities and
        draws refer to the samples an epoch trains on: whole batches of the run's size.
    """
    record = open_record(record)
    known = _Scores(record, method, samples, seed)
    config = record.config
    lowest = known.lowest_budget
    highest = max(lowest, 0.95)
    start = {
        "smoothing": min(float(config.get("smoothing", 1.0)), 5.0),
        "power": min(float(config.get("power", 1.0)), 3.0),
        "budget": float(np.clip(config["budget"], lowest, highest)),
        "epoch": int(known.epochs[-1]),
    }
    ends = {"smoothing": (0, 5, 0.05), "power": (0, 3, 0.05), "budget": (lowest, highest, 0.05),
            "epoch": (int(known.epochs[0]), int(known.epochs[-1]), 1)}  # fmt: skip
    controls = [slider(name, name, start[name], *ends[name]) for name in start]
    size = len(known.chosen)
    some = "" if size == known.size else f"; {size:,} of {known.size:,} samples, at random"
    if config.get("class_shares", "free") != "free":
        some += "; from all classes together, which the run kept apart"
    said = f"What {known.method} would draw, with what {config['method']} knew{some}"
    title = {"text": wrap_title(said, SUBTITLE_LETTERS), "fontSize": 11, "fontWeight": "normal"}

    def twin(**values: float) -> dict[str, Any]:
        unknown = set(values) - set(start)
        if unknown:
            raise InputError(f"'{unknown.pop()}' is not a control: give some of {', '.join(start)}")
        return known.draw(**(start | values))

    now = twin()
    alt = (
        f"Which samples {known.method} would draw in epoch {start['epoch']} at smoothing "
        f"{start['smoothing']:g}, power {start['power']:g} and budget {start['budget']:g}: "
        f"{now['draws']:,} of {size:,}, each with a chance of {now['lowest']:.3f} to "
        f"{now['highest']:.3f}; effective sample size {now['effective_samples']:,.0f}, entropy "
        f"{now['entropy']:.3f} nats. Four sliders change this."
    )
    spec = specification(
        title, alt, fits=wrapped(2 * WIDTH + 150, {"/marks/1": 2}),
        params=[*controls, *known.signals()], data={"values": known.rows()},
        transform=_transforms(), spacing=18,
        vconcat=[_headline(known.method), {"columns": 2, "spacing": {"row": 14, "column": 24},
                                           "concat": _views()}],
    )  # fmt: skip
    return Explorable(spec, alt, twin, title=f"What {known.method} would draw")


class _Scores:
    """Scores and losses at the start of some epochs, rounded as in the chart."""

    def __init__(self, record: Record, method: str | None, samples: int, seed: int):
        from budgetlab.budget import samples_per_epoch
        from budgetlab.forecast import Replay, scores_of

        samples = whole("samples", samples, 2)
        seed = whole("seed", seed, 0)
        replay = Replay(record)
        config = RunConfig.from_dict(record.config)
        self.method, score = scores_of(config, replay.size, method)
        self.size, self.batch_size = replay.size, config.batch_size
        # A smaller budget does not pay for a single batch.
        afford = [b / 20 for b in range(1, 20)
                  if samples_per_epoch(self.size, b / 20) >= self.batch_size]  # fmt: skip
        self.lowest_budget = min(afford, default=1.0)
        everything = np.arange(self.size)
        if self.size > samples:
            everything = np.random.default_rng(seed).permutation(self.size)[:samples]
        self.chosen = np.sort(everything)
        count = max(1, min(replay.epochs, MOST_VALUES // len(self.chosen)))
        # The first epoch has no scores yet; a longer run is thinned.
        first = min(2, replay.epochs)
        self.epochs = np.unique(np.linspace(first, replay.epochs, count).round().astype(int))
        self.scores, self.losses = [], []
        for epoch in self.epochs:
            history = replay.before(int(epoch))
            scores = score(history)[self.chosen]
            # Relative to the highest, so that powers stay finite.
            self.scores.append(compact((scores / scores.max().clamp(min=1e-300)).tolist()))
            self.losses.append(compact(history.last_loss[self.chosen].tolist()))

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample, with its scores and losses by epoch as text."""
        columns = zip(zip(*self.scores, strict=True), zip(*self.losses, strict=True), strict=True)
        return [{"scores": joined(scores), "losses": joined(losses)} for scores, losses in columns]

    def signals(self) -> list[dict[str, Any]]:
        """Return the signals shared by all samples.

        ``ahead`` samples are drawn, ``draws`` of them are trained on, in whole batches. The
        epoch shown, ``place``, is the last stored one up to the slider's.
        """
        every = np.arange(self.epochs[0], self.epochs[-1] + 1)
        places = (np.searchsorted(self.epochs, every, side="right") - 1).tolist()
        batch, every_draw = self.batch_size, f"floor(round({self.size} * budget * 1e6) / 1e6)"
        trained = f"{batch} * floor({every_draw} / {batch})"
        return [{"name": "n", "value": len(self.chosen)},
                {"name": "ahead", "expr": "floor(round(n * budget * 1e6) / 1e6)"},
                {"name": "draws", "expr": f"floor(n * {trained} / {self.size})"},
                {"name": "place", "expr": f"{places}[epoch - {every[0]}]"}]  # fmt: skip

    def draw(self, smoothing: float, power: float, budget: float, epoch: float) -> dict[str, Any]:
        """Compute the chart's numbers with the functions that training uses."""
        import torch

        from budgetlab.budget import samples_per_epoch, steps_per_epoch
        from budgetlab.samplers import smooth
        from budgetlab.samplers.scores import inclusion_probability

        budget = require_number("budget", budget, 0, 1)
        smoothing = require_number("smoothing", smoothing, 0)
        power = require_number("power", power, 0, 100)
        epoch = whole("epoch", epoch, 0)
        trained = self.batch_size * steps_per_epoch(self.size, budget, self.batch_size)
        place = int(np.searchsorted(self.epochs, epoch, side="right")) - 1
        if not place >= 0 or epoch > self.epochs[-1]:
            raise InputError(
                f"epoch {epoch:g} is not in this chart: give {self.epochs[0]} to {self.epochs[-1]}"
            )
        scores: torch.Tensor = torch.tensor(self.scores[place], dtype=torch.float64)
        q = smooth(scores, smoothing, power)
        ahead = samples_per_epoch(len(q), budget)
        draws = len(q) * trained // self.size
        inclusion = inclusion_probability(q, ahead).numpy() * (draws / max(ahead, 1))
        return {
            "q": q.numpy(),
            "inclusion": inclusion,
            "losses": np.array(self.losses[place], float),
            "entropy": entropy(q.numpy()),
            "effective_samples": effective_sample_size(q.numpy()),
            "draws": draws,
            "lowest": float(inclusion.min()),
            "highest": float(inclusion.max()),
        }


def _as(name: str, expression: str) -> dict[str, Any]:
    return {"calculate": expression, "as": name}


def _sums(operation: str, **fields: str) -> dict[str, Any]:
    """Aggregate fields over all samples; keywords name the results."""
    return {"joinaggregate": [{"op": operation, "field": f, "as": n} for n, f in fields.items()]}


def _transforms() -> list[dict[str, Any]]:
    """Compute q from scores, and inclusion probabilities from q, as Vega transforms."""
    newton = [
        _as("left", "datum.q > 0 ? exp(-datum.q * datum.t) : 0"),
        _as("rate", "datum.q * datum.left"),
        _sums("sum", missed="left", slope="rate"),
        _as("t", "datum.t * pow(datum.aim / log(datum.others / datum.missed), datum.missed * "
            "log(datum.others / datum.missed) / (datum.t * datum.slope))"),
    ]  # fmt: skip
    return [
        *parted(score="scores", known="losses"),
        _as("loss", "toNumber(datum.known[place])"),
        _as("raised", "pow(toNumber(datum.score[place]), power)"),
        _sums("mean", level="raised"),
        _as("weight", "datum.raised + smoothing * datum.level"),
        _as("possible", "datum.weight > 0 ? 1 : 0"),
        _sums("sum", total="weight", others="possible"),
        _as("others", "datum.others || n"),
        _as("q", "datum.total > 0 ? datum.weight / datum.total : 1 / n"),
        _as("aim", "-log(max(1e-12, 1 - ahead / datum.others))"),
        _as("t", "datum.others * datum.aim"),
        *(NEWTON_STEPS * newton),
        _as("inclusion", "draws / max(1, ahead) * (ahead < datum.others ? "
            "1 - exp(-datum.q * datum.t) : datum.q > 0 ? 1 : "
            "(ahead - datum.others) / max(1, n - datum.others))"),
        _as("relative", "datum.q * n"),
    ]  # fmt: skip


SUMS = [
    _as("surprise", "datum.q > 0 ? -datum.q * log(datum.q) : 0"),
    _as("squared", "datum.q * datum.q"),
    {"aggregate": [{"op": "sum", "field": "surprise", "as": "entropy"},
                   {"op": "sum", "field": "squared", "as": "squares"},
                   {"op": "min", "field": "inclusion", "as": "lowest"},
                   {"op": "max", "field": "inclusion", "as": "highest"}]},
]  # fmt: skip


def _headline(method: str) -> dict[str, Any]:
    """Build a title that summarises the draw and follows the controls."""
    said = (
        f"datum.highest - datum.lowest < 0.001 ? '{method} draws all alike' : '{method} draws some "
        "samples ' + format(datum.highest / max(0.001, datum.lowest), '.2r') + ' times\\nas often "
        "as others, as evenly as a uniform\\ndraw from ' + format(1 / datum.squares / n, '.0%') + "
        "' of them'"
    )
    return {"width": 290, "height": 40, "transform": SUMS,
            "layer": [words(said, x=-44, fontSize=13, fontWeight=600)]}  # fmt: skip


def _views() -> list[dict[str, Any]]:
    """Build the views: ranked q, inclusion against loss, loss histograms, and summary text."""
    blue, orange, green = COLOURS[:3]
    size = {"width": WIDTH, "height": 170}

    def titled(text: str) -> dict[str, Any]:
        return {"text": text, "frame": "group", "fontSize": 12, "offset": 6}

    loss = "last known loss (nats)"
    ranked = {
        "title": titled("Probability q, highest first"),
        "transform": [
            {"window": [{"op": "row_number", "as": "rank"}],
             "sort": [{"field": "relative", "order": "descending"}]},
            _as("percent", "100 * datum.rank / n"),
        ],
        "mark": mark("line", color=green, strokeWidth=2),
        "encoding": {"x": axis("percent", "samples (%)", scale={"domain": [0, 100]}),
                     # At least up to 2, so that a nearly uniform draw looks flat.
                     "y": axis("relative", "times that of a uniform draw",
                               scale={"domain": {"unionWith": [0, 2]}})},
    }  # fmt: skip
    against = {
        "title": titled("Chance of being drawn"),
        "transform": [{"filter": "isValid(datum.loss)"}],
        "mark": mark("point", size=9, opacity=0.35, color=blue),
        "encoding": {"x": axis("loss", loss, axis={"tickCount": 6}),
                     "y": axis("inclusion", "chance in this epoch", scale={"domain": [0, 1]})},
    }  # fmt: skip
    # Binned before folding, so that thirty bars, not a thousand samples, are duplicated.
    losses = {
        "title": titled("Losses known before"),
        "transform": [
            {"filter": "isValid(datum.loss)"},
            {"bin": {"maxbins": 30}, "field": "loss", "as": ["from", "to"]},
            {"aggregate": [{"op": "count", "as": "all"},
                           {"op": "sum", "field": "inclusion", "as": "expected draw"}],
             "groupby": ["from", "to"]},
            {"fold": ["all", "expected draw"], "as": ["which", "weight"]},
        ],
        "mark": mark("bar", opacity=0.75),
        "encoding": {
            "x": axis("from", loss, bin="binned", axis={"tickCount": 6}),
            "x2": {"field": "to"},
            "y": axis("weight", "samples", stack=None),
            "color": {"field": "which", "type": "nominal",
                      "scale": {"domain": ["all", "expected draw"], "range": ["#8a8a8a", orange]},
                      "legend": {"title": None, "orient": "bottom"}},
        },
    }  # fmt: skip
    lines = [
        "'Epoch ' + epoch + ', budget ' + format(budget, '.2f')",
        "'Smoothing ' + format(smoothing, '.2f') + ', power ' + format(power, '.2f')",
        "'Drawn: ' + format(draws, ',') + ' of ' + format(n, ',')",
        "'Entropy of q: ' + format(datum.entropy, '.3f') + ' of ' + format(log(n), '.3f')"
        " + ' nats'",
        "'Effective sample size: ' + format(1 / datum.squares, ',.0f')",
        "'Chance of being drawn: ' + format(datum.lowest, '.3f') + ' to '"
        " + format(datum.highest, '.3f')",
    ]
    sums = {
        "transform": SUMS,
        "layer": [words(line, y=14 + 24 * row) for row, line in enumerate(lines)],
    }
    return [size | view for view in (ranked, against, losses, sums)]
