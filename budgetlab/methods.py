"""The table of all methods, which imports without torch.

A method is a class in :mod:`budgetlab.samplers` and an entry here, which lists, figures, forecasts,
widgets and the documentation read.
"""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from budgetlab import errors
from budgetlab.config import RunConfig

__all__ = ["COLOURS", "LINES", "MARKERS", "OPTIONS", "LineStyle", "Method", "about", "add",
           "canonical", "describe", "find", "known", "markdown", "names", "ordered",
           "require_same_code", "require_score", "source_digest", "style"]  # fmt: skip

# Okabe & Ito (2008) without yellow, which is unreadable on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class LineStyle:
    """Colour, line and marker of one series: never distinguished by colour alone."""

    colour: str
    line: Any
    marker: str


def style(place: int) -> LineStyle:
    """Return style ``place`` of 49: after each seven, colours get other lines and markers."""
    number, shift = place % 7, place // 7 % 7
    return LineStyle(COLOURS[number], LINES[(number + shift) % 7], MARKERS[(number + shift) % 7])


@dataclass(frozen=True)
class Method:
    """What the rest of the kit needs to know about a method.

    - ``name``, ``about``: the value of ``method=``, and what the method trains on, in one line.
    - ``family``: ``passes`` (every sample equally often), ``draw`` (by a score, once per epoch),
      ``candidates`` (selected after a forward pass), ``pruning`` (some left out of each epoch),
      ``core set`` (a fixed subset), or ``other``.
    - ``where``: module and class of its code: ``.module:Class`` within :mod:`budgetlab.samplers`,
      else ``module:Class``; empty for a method registered by a decorator.
    - ``fields``: settings of :class:`budgetlab.RunConfig` that it reads besides the common ones.
    - ``style``: its style in figures; None for the first free one.
    - ``candidates``, ``share``: functions of the run's config: the number of samples scored per
      sample trained on, and the share of the full run that is spent, which is the budget unless the
      method ignores it.
    - ``probability``: kind of the probability recorded per sample: ``draw`` sums to one over the
      samples, ``keep`` is the probability of being trained on once it is a candidate.
    - ``cost``, ``loss_weights``, ``source``: for the documentation's table: costs beyond the steps,
      factors on the losses, reference.
    - ``paper``, ``code``: whether Arazo et al. (BMVC 2021) use it; and a digest of the source of a
      method registered by a decorator, to detect runs of other code.
    """

    name: str
    about: str = "Your own"
    family: str = "other"
    where: str = ""
    fields: tuple[str, ...] = ()
    style: LineStyle | None = None
    candidates: Callable[[RunConfig], float] = lambda run: 0.0
    share: Callable[[RunConfig], float] = lambda run: run.budget
    probability: Literal["draw", "keep"] = "draw"
    cost: str = "nothing"
    loss_weights: str = "1"
    source: str = ""
    paper: bool = False
    code: str = ""


def _full_if_published(run: RunConfig) -> float:
    return 1.0 if run.fidelity == "published" else run.budget


def _of_selective_backprop(run: RunConfig) -> float:
    beta = 1 / run.budget - 1 if run.sb_beta == "auto" else float(run.sb_beta)
    return (1 + beta) / run.sb_staleness


def _of_top_k(run: RunConfig) -> float:
    return 1 / run.keep_fraction if run.keep_fraction < 1 else 0.0


DRAW = ("smoothing", "power", "weights", "class_shares")
LEARNED = (*DRAW, "averaging", "credit", "fidelity")
PRUNED = ("subset_fraction", "proxy_share", "proxy_model", "class_shares")
ARAZO = "Arazo et al., BMVC 2021"
SCORING_RUN = "a scoring run"

BUILT_IN = (
    Method("unif-SGD", "a new uniform draw of *bN* each epoch",
           family="draw", where=".scores:UniformSGD", fields=("class_shares",),
           source=ARAZO, paper=True, style=style(0)),
    Method("SGD", "full shuffled passes until the budget is spent",
           family="passes", where=".epoch_sampling:SGD",
           fields=("fidelity",), share=_full_if_published, paper=True, style=style(3)),
    Method("p-SGD", "draws *bN* by *m*, the mean of 1 − *p*",
           family="draw", where=".scores:ProbabilitySGD",
           fields=LEARNED, loss_weights="1, or unbiased", source=ARAZO, paper=True,
           style=style(1)),
    Method("c-SGD", "draws *bN* by *m* (1 − *m*)",
           family="draw", where=".scores:ConfidenceSGD",
           fields=LEARNED, loss_weights="1, or unbiased", source=ARAZO, paper=True,
           style=style(2)),
    Method("selective-backprop", "keeps a candidate with probability (percentile of its loss)^β",
           family="candidates", where=".candidates:SelectiveBackprop",
           fields=("sb_beta", "sb_staleness", "fidelity"),
           candidates=_of_selective_backprop, share=_full_if_published, probability="keep",
           cost="a forward pass for every candidate", source="Jiang et al., 2019", paper=True,
           style=style(4)),
    Method("top-k", "the *B* highest losses among *B* / keep-fraction candidates",
           family="candidates", where=".candidates:TopK",
           fields=("keep_fraction",), candidates=_of_top_k, probability="keep",
           cost="a forward pass for every candidate: ten for each sample trained on",
           source="Loshchilov & Hutter, 2015", style=style(5)),
    Method("rho-loss", "the *B* candidates with the highest *L* − *L*_IL, where *L*_IL is the loss "
           "under a small network trained on held-out data",
           family="candidates", where=".candidates:RhoLoss",
           fields=("keep_fraction", "proxy_share", "proxy_model", "holdout_fraction"),
           candidates=_of_top_k, probability="keep",
           cost="a forward pass for every candidate; that network, and one pass of all samples "
           "through it",
           source="Mindermann et al., ICML 2022", style=style(6)),
    # An upper bound: whether it switches on is not known in advance.
    Method("grad-norm", "draws *B* of 3*B* candidates by *G* = ‖softmax − onehot‖, while that "
           "reduces the variance enough", family="candidates", where=".candidates:GradientNorm",
           fields=("presample", "grad_norm_threshold", "power"),
           candidates=lambda run: float(run.presample), probability="keep",
           cost="a forward pass for every candidate, while it is on",
           loss_weights="1 / (3*B* *g*), *g* = *G* / Σ*G*",
           source="Katharopoulos & Fleuret, ICML 2018", style=style(7)),
    Method("infobatch", "all but a random share *r* of the samples with a loss below the mean; "
           "all of them in the last eighth of the budget",
           family="pruning", where=".epoch_sampling:InfoBatch",
           fields=("prune_fraction", "credit"), probability="keep",
           loss_weights="1 / (1 − *r*) for those below the mean",
           source="Qin et al., ICLR 2024", style=style(8)),
    Method("seta", "of a random part, a window of difficulty that slides from easy to hard; at "
           "the end the whole part",
           family="pruning", where=".epoch_sampling:SeTa", fields=("prune_fraction", "credit"),
           probability="keep", source="Zhou et al., CVPR 2025", style=style(15)),
    Method("rs2", "consecutive parts of one permutation, so that all samples come equally often",
           family="passes", where=".epoch_sampling:RS2",
           source="Okanovic et al., ICLR 2024", style=style(9)),
    Method("loss", "draws *bN* by the last loss", family="draw", where=".scores:LossSGD",
           fields=(*DRAW, "credit"), loss_weights="1, or unbiased",
           source="Katharopoulos & Fleuret, ICML 2018", style=style(10)),
    Method("random-subset", "one random part, drawn once",
           family="core set", where=".core_sets:RandomSubset",
           fields=("subset_fraction", "class_shares"), style=style(20)),
    Method("el2n-pruned", "the part that a short scoring run gets most wrong",
           family="core set", where=".core_sets:EL2NPruned", fields=PRUNED, cost=SCORING_RUN,
           source="Paul et al., NeurIPS 2021", style=style(12)),
    Method("forgetting-pruned", "the part that a short scoring run forgets most often or never "
           "learns",
           family="core set", where=".core_sets:ForgettingPruned", fields=PRUNED, cost=SCORING_RUN,
           source="Toneva et al., ICLR 2019", style=style(13)),
    Method("ccs", "equally many samples from each of 50 ranges of AUM, without the hardest",
           family="core set", where=".core_sets:CoverageCentric", fields=(*PRUNED, "hard_cutoff"),
           cost=SCORING_RUN, source="Zheng et al., ICLR 2023", style=style(16)),
    Method("dyn-unc", "the part whose *p* varies most in windows of ten epochs",
           family="core set", where=".core_sets:DynamicUncertainty", fields=PRUNED,
           cost=SCORING_RUN, source="He et al., CVPR 2024", style=style(17)),
    Method("dual", "a draw by how much *p* varies times 1 − *p*; easier samples for a small part",
           family="core set", where=".core_sets:DifficultyAndUncertainty", fields=PRUNED,
           cost=SCORING_RUN, source="Cho et al., 2025", style=style(18)),
    Method("tdds", "the part whose predictions change most unevenly from epoch to epoch",
           family="core set", where=".core_sets:TemporalDualDepth", fields=PRUNED,
           cost=SCORING_RUN, source="Zhang et al., CVPR 2024", style=style(19)),
    Method("curriculum", "a uniform draw of *bN* from the easiest *b* + (1 − *b*) · progress of "
           "the samples", family="other", where=".epoch_sampling:Curriculum", fields=("credit",),
           source="Bengio et al., ICML 2009; Hacohen & Weinshall, ICML 2019", style=style(14)),
)  # fmt: skip

_table: dict[str, Method] = {method.name: method for method in BUILT_IN}

OPTIONS = tuple(dict.fromkeys(field for method in BUILT_IN for field in method.fields))
"""Settings that only some methods read."""


def add(method: Method) -> None:
    """Add a method at the end of the table, or replace the one of the same name."""
    _table[method.name] = method


def require_score(name: str, function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with the history alone."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise errors.InputError(
            f"'{name}' takes {inspect.signature(function)}: a score is a function of one argument, "
            "the history"
        ) from None
    except ValueError:  # no signature available: the call will tell
        pass


def names() -> list[str]:
    """List the names of all methods in the order of lists and figures, custom ones last."""
    return list(_table)


def describe() -> dict[str, str]:
    """Describe each method in one line, by name."""
    return {name: method.about.replace("*", "") for name, method in _table.items()}


def known(name: object) -> Method | None:
    """Return the entry of exactly this name, or None."""
    return _table.get(name) if isinstance(name, str) else None


def source_digest(made: object) -> str:
    """Return a digest of a method's source, without its comments; empty if there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(made))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
    with suppress(SyntaxError):  # source of a lambda may be a fragment
        source = ast.unparse(ast.parse(source))
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def about(name: str) -> dict[str, str]:
    """Return what a record stores about the code of a method."""
    code = find(name).code
    return {"method_code": code} if code else {}


def require_same_code(path: Path | str, name: str, code: str) -> None:
    """Refuse a record trained with code of the method that has changed; unknown code passes."""
    now = find(name).code
    if now and code and now != code:
        raise errors.InputError(
            f"record '{path}' was trained with other code of method '{name}': give the new code "
            "another name, or train into another folder with out"
        )


def canonical(name: str) -> str:
    """Return the name of a method as listed, regardless of case; InputError if there is none."""
    return errors.known("method", name, _table)


def find(name: str) -> Method:
    """Return the entry of a method; raises as :func:`canonical` does."""
    return _table[canonical(name)]


def ordered(some: Iterable[str]) -> list[str]:
    """Sort method names: those of the table in its order, then others as they come."""
    place = {name: number for number, name in enumerate(_table)}
    return sorted(dict.fromkeys(some), key=lambda name: place.get(name, len(place)))


def markdown() -> str:
    """Return the table of ``docs/methods.md``."""
    head = ("Method", "What it trains on", "What it costs beyond its steps", "Loss weights",
            "Options", "Source")  # fmt: skip
    rows = [head, ("---",) * len(head)]
    for method in _table.values():
        options = ", ".join(field.replace("_", "-") for field in method.fields)
        rows.append((f"`{method.name}`", method.about, method.cost, method.loss_weights, options,
                     method.source))  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows)
