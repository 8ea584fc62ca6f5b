"""A snapshot of training: network, samples, and the history of each sample."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from budgetlab import devices, methods, samplers
from budgetlab.analysis.conditions import require_data_of
from budgetlab.augment import AugmentedBatch
from budgetlab.config import RunConfig
from budgetlab.data import Dataset, Splits
from budgetlab.errors import InputError, whole
from budgetlab.estimators.gradients import (
    BLOCKS,
    LAST_SEED,
    WEIGHTS,
    Quality,
    SampleGradients,
    best_distribution,
    of_estimates,
    possible_gain,
    sample_gradients,
    with_replacement,
)
from budgetlab.forecast import Replay
from budgetlab.history import History, Measures, measure
from budgetlab.records import Record, open_record
from budgetlab.samplers.checking import CheckedBatches
from budgetlab.training import Run
from budgetlab.training.resume import load_again, require_model, trained_network

DRAWS = 400


class Moment:
    """A snapshot of a network during training, with the samples it is trained on.

    Create one with :meth:`of_run` during a run, or with :meth:`of_record` from a record. All
    results are for samples without augmentation and the network in eval mode and float32: see
    :func:`budgetlab.estimators.sample_gradients` for why, and for ``sketch``.

    - ``network``: maps normalised samples to logits; it is copied.
    - ``samples``: the samples whose mean gradient is the full gradient.
    - ``history``: the history of these samples.
    - ``config``: settings of the run: methods read budget, batch size and their options.
    - ``epoch``, ``steps``, ``spent``: progress of training; ``spent`` is a share of the budget.
    """

    def __init__(
        self,
        network: nn.Module,
        samples: Dataset,
        history: History,
        config: RunConfig,
        *,
        epoch: int,
        steps: int = 0,
        spent: float = 0.0,
        sketch: int | Literal["auto"] | None = "auto",
    ):
        self.network = copy.deepcopy(network).float().cpu().eval()
        self.samples = samples.to("cpu")
        self.history = history
        self.config = config
        self.epoch, self.steps, self.spent = epoch, steps, spent
        self.sketch = sketch

    @classmethod
    def of_run(
        cls, run: Run, *, limit: int = 0, sketch: int | Literal["auto"] | None = "auto"
    ) -> "Moment":
        """Take a snapshot of a run between two epochs; the run can continue.

        ``limit`` uses only this many samples, drawn with the seed of the run; 0 uses all.
        """
        return cls._of_subset(
            run.loop.engine.network, run.splits.train, run.history, run.config, limit,
            epoch=run.epoch, steps=run.ledger.steps, sketch=sketch,
            spent=run.budget.progress(run.ledger, 0),
        )  # fmt: skip

    @classmethod
    def of_record(
        cls,
        record: Record | Path | str,
        *,
        splits: Splits | None = None,
        model: Any = None,
        data_root: Path | str | None = None,
        limit: int = 0,
        sketch: int | Literal["auto"] | None = "auto",
    ) -> "Moment":
        """Take a snapshot of the end of a finished run, with the weights in its record.

        The history is rebuilt from the record, which keeps one visit per epoch
        (:class:`budgetlab.forecast.Replay`).

        - ``record``: a record with ``model.safetensors``.
        - ``splits``, ``model``: the data, already loaded, and the network, if they are your own.
        - ``data_root``: folder of the data, if not where the record says.
        - ``limit``, ``sketch``: as for :meth:`of_run`.
        """
        record = open_record(record)
        config = RunConfig.from_dict(record.config)
        require_model(record.path, config.model, model)
        if splits is None:
            splits = load_again(record.path, config, data_root, "intake" in record.about["data"])
        require_data_of(record, splits)
        network, replay = trained_network(record, splits, model), Replay(record)
        return cls._of_subset(
            network, splits.train, replay.before(replay.epochs + 1), config, limit,
            epoch=replay.epochs, steps=int(record.summary.get("steps") or 0), sketch=sketch,
            spent=float(record.epochs["progress"].iloc[-1]),
        )  # fmt: skip

    @classmethod
    def _of_subset(
        cls, network: nn.Module, train: Dataset, history: History, config: RunConfig, limit: int,
        **more: Any,
    ) -> "Moment":  # fmt: skip
        """Create a snapshot of ``limit`` samples, ascending, and their history, on the CPU."""
        size, chosen = len(train), torch.arange(len(train))
        if limit := whole("limit", limit, 0, size):
            generator = devices.torch_generator(config.seed, "data")
            chosen = torch.randperm(size, generator=generator)[:limit].sort().values
        part = History(len(chosen))
        part.load_state_dict({
            name: value.cpu()[chosen].clone() if isinstance(value, Tensor) else value
            for name, value in history.state_dict().items()
        })  # fmt: skip
        return cls(network, train.select(chosen), part, config, **more)

    @cached_property
    def gradients(self) -> SampleGradients:
        """Gradient of each sample, computed on first access."""
        x = self.samples.normalised()
        return sample_gradients(self.network, x, self.samples.y, sketch=self.sketch)

    @cached_property
    def logits(self) -> Tensor:
        """Logits of each sample, float32 ``[N, C]``."""
        with torch.no_grad():
            parts = [self.network(part) for part in self.samples.normalised().split(500)]
        return torch.cat(parts).float()

    @cached_property
    def measures(self) -> Measures:
        """Loss, probability of the label, EL2N and margin of each sample in this snapshot."""
        return measure(self.logits, self.samples.y)

    def scores(self) -> dict[str, Tensor]:
        """Compute scores to sample by, float64 ``[N]`` each, by name.

        ``uniform``; ``loss`` and ``EL2N`` of the current network (the latter is the bound of
        Katharopoulos & Fleuret 2018); ``p-SGD`` and ``c-SGD``, the smoothed probabilities that
        these methods compute from past visits; and ``gradient norm``, the optimum for unbiased
        weights.
        """
        now = {
            "uniform": torch.ones(len(self.samples), dtype=torch.float64),
            "loss": self.measures.loss.double(),
            "EL2N": self.measures.el2n.double(),
        }
        for method in ("p-SGD", "c-SGD"):
            sampler = self._sampler(method, torch.Generator(), {})
            assert isinstance(sampler, samplers.ScoreSampler)
            now[method] = sampler.probabilities(self.history).double()
        return now | {"gradient norm": best_distribution(self.gradients)}

    def distributions(
        self, scores: Mapping[str, Tensor] | None = None, *, batch_size: int | None = None
    ) -> pd.DataFrame:
        """Compute the exact quality of sampling with replacement from each distribution.

        - ``scores``: scores ``[N]`` >= 0 by name; by default :meth:`scores`.
        - ``batch_size``: by default that of the run.

        Returns
        -------
        DataFrame
            Two rows per distribution, ``weights`` none and unbiased: ``epoch``, ``steps``,
            ``name``, ``how`` (exact), ``batch_size``, ``full2`` (squared length of the full
            gradient), the fields of :class:`budgetlab.estimators.Quality`, ``variance_ratio``
            (to uniform sampling with replacement) and ``possible_gain`` (share of the reduction
            that the best distribution achieves; unbiased weights only).
        """
        size = self.config.batch_size if batch_size is None else whole("batch_size", batch_size)
        scores = self.scores() if scores is None else scores
        if not isinstance(scores, Mapping) or not scores:
            raise InputError("scores hold no distribution: give a dict of one or more, by name")
        best = with_replacement(
            self.gradients, best_distribution(self.gradients), batch_size=size
        ).variance
        rows = []
        for name, score in scores.items():
            for weights in WEIGHTS:
                found = with_replacement(self.gradients, score, batch_size=size, weights=weights)
                row = self._row(name, weights, "exact", size, found)
                gain = possible_gain(found.variance, self._uniform(size), best)
                rows.append(row | {"possible_gain": gain if weights == "unbiased" else None})
        return pd.DataFrame(rows).astype({"possible_gain": float})

    def methods(
        self, names: Sequence[str] | str, *, draws: int = DRAWS, seed: int = 0, **settings: Any
    ) -> pd.DataFrame:
        """Estimate the quality of the batches that methods draw, by simulation.

        Each method draws epoch after epoch with network and history frozen. The first epoch, in
        which filters fill their memory of losses, is discarded. Looks are without augmentation.

        - ``names``: one or more methods. Those that train another network first cannot be
          simulated.
        - ``draws``: batches per method, at least 40.
        - ``seed``: seed of the draws.
        - ``**settings``: fields of the config to change, such as ``weights="unbiased"``.

        Returns
        -------
        DataFrame
            One row per method, with the columns of :meth:`distributions` (``how`` is
            simulated) except ``possible_gain``. ``weights`` is ``own`` if a method weights its
            losses whatever the config says, as ``infobatch`` and ``grad-norm`` do. Most methods
            draw batches without replacement, so that ``variance_ratio``, whose reference is with
            replacement, is below 1 even for ``unif-SGD``: about ``(N - B) / (N - 1)``.
        """
        draws, seed = whole("draws", draws, 2 * BLOCKS), whole("seed", seed, 0, LAST_SEED)
        rows = []
        for name in [names] if isinstance(names, str) else names:
            name = methods.find(name).name
            sampler = self._sampler(name, torch.Generator().manual_seed(seed), settings)
            if sampler.proxy is not None:
                raise InputError(
                    f"method '{name}' trains another network first: choose one that does not"
                )
            estimates, weighted = self._estimates(sampler, draws)
            found = of_estimates(estimates, self.gradients.full)
            weights = str(settings.get("weights", self.config.weights))
            if weighted:
                weights = weights if sampler.weighting == "offered" else "own"
            rows.append(self._row(name, weights, "simulated", sampler.batch_size, found))
        return pd.DataFrame(rows)

    def _uniform(self, size: int) -> float:
        """Return the variance of uniform sampling with replacement."""
        even = torch.ones(len(self.samples))
        return with_replacement(self.gradients, even, batch_size=size).variance

    def _row(self, name: str, weights: str, how: str, size: int, found: Quality) -> dict[str, Any]:
        uniform = self._uniform(size)
        return {
            "epoch": self.epoch, "steps": self.steps, "name": name, "weights": weights, "how": how,
            "batch_size": size, "full2": float(self.gradients.full.square().sum()), **asdict(found),
            "variance_ratio": found.variance / uniform if uniform > 0 else float("nan"),
        }  # fmt: skip

    def _sampler(
        self, method: str, generator: torch.Generator, settings: dict[str, Any]
    ) -> samplers.Sampler:
        config = self.config.replace(method=method, **settings)
        context = samplers.SamplerContext(
            len(self.samples), config, generator, torch.device("cpu"), labels=self.samples.y,
            spent=lambda: self.spent,
        )  # fmt: skip
        return samplers.build(method, context)

    def _estimates(self, sampler: samplers.Sampler, draws: int) -> tuple[Tensor, bool]:
        """Return mean gradients of batches, and whether any batch weighted its losses."""
        weighted = False
        vectors = self.gradients.vectors
        found: list[Tensor] = []
        # Methods treat the first epoch differently, as they have not seen the samples yet.
        epoch, checked = max(self.epoch, 1) + 1, CheckedBatches(sampler)
        for batch in checked.batches(epoch, self.history, self._look):
            del batch
        while len(found) < draws:
            before = len(found)
            epoch += 1
            for batch in checked.batches(epoch, self.history, self._look):
                rows = vectors[batch.indices]
                if batch.weights is not None:
                    weighted = True
                    rows = rows * batch.weights[:, None].to(rows)
                found.append(rows.mean(0))
            if len(found) == before:
                raise InputError(
                    f"method '{sampler.context.config.method}' drew no full batch of "
                    f"{sampler.batch_size} from {len(self.samples)} samples: lower batch_size"
                )
        return torch.stack(found[:draws]), weighted

    def _look(self, indices: Tensor) -> samplers.ForwardResult:
        """Return the result of a look from the stored logits; the images are not needed."""
        probabilities = self.logits[indices].softmax(1)
        own = indices[:, None]
        augmented = AugmentedBatch(own.float(), own, torch.ones(len(indices), 1))
        now = self.measures
        return samplers.ForwardResult(
            now.loss[indices], probabilities, self.samples.y[indices], augmented, now.el2n[indices]
        )
