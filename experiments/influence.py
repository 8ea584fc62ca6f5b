"""Do per-sample measures predict leave-one-out influence? Compare with retraining.

    python -m experiments.influence [--seeds 5 --folds 10]

For each data set, the training set is cut into folds, and networks are trained without each fold,
for several seeds: without a tenth, and without single samples of ``points`` or three of
``digits`` at a time (:data:`PLAN`). A sample's self-influence is the fall of its own margin
``ln(p_y / (1 - p_y))`` when it is left out, on average over seeds. The measures come from runs on
all samples. A second row concerns held-out samples: how their margins change from fold to fold,
against the sum of the estimated influences of the samples left out (the linear datamodeling score
of Park et al., ICML 2023). The table is ``experiments/results/influence.csv``.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from budgetlab import analysis, data, estimators
from budgetlab.analysis.statistics import mean_interval
from budgetlab.config import RunConfig
from budgetlab.data import Dataset, Splits
from budgetlab.devices import describe_hardware
from budgetlab.records import write_atomically
from budgetlab.training import Run
from budgetlab.training.loop import Loop
from experiments.tables import RESULTS

CPU, FLOAT = torch.device("cpu"), torch.float32
TARGETS = 100
MEASURES = ("el2n", "grand", "aum", "confidence", "mean_loss", "forgetting", "dyn_unc", "dual",
            "tdds")  # fmt: skip
# A tenth of the labels is wrong: without label noise, small networks fit almost everything.
DATA = {
    "points": {"limit": 300, "label_noise": 0.1},
    "digits": {"limit": 300, "label_noise": 0.1},
}
# Data set, seeds, folds.
PLAN = (("points", 5, 10), ("points", 3, 300), ("digits", 5, 10), ("digits", 3, 100))
RUN = {"points": {"model": "mlp", "epochs": 40}, "digits": {"model": "tiny", "epochs": 30}}


def trained(config: RunConfig, samples: Dataset) -> torch.nn.Module:
    """Train to the end of the budget, without a record."""
    loop = Loop(config, samples, CPU, FLOAT, threads=1)
    epoch = 0
    while not loop.finished:
        epoch += 1
        loop.train_epoch(epoch)
    return loop.engine.network


def margins(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Return the margin ``ln(p_y / (1 - p_y))`` of each sample, float64 ``[M]``."""
    network.eval()
    with torch.no_grad():
        logits = network(x).double()
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return (own - others).numpy()


def folds(size: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Partition ``size`` samples at random into ``count`` folds."""
    order = np.random.default_rng(seed).permutation(size)
    return (np.sort(part) for part in np.array_split(order, count))


def left_out(config: RunConfig, splits: Splits, seeds: int, count: int) -> dict:
    """Train on all samples and without each fold.

    Returns
    -------
    dict
        ``own`` ``[N]``: fall of a sample's margin when left out; ``folds``: samples left out of
        each run; ``others`` ``[folds, T]``: fall of the margins of held-out samples;
        ``networks``: those trained on all samples.
    """
    train, test = splits.train, splits.test.select(np.arange(TARGETS))
    x, y = train.normalised(), train.y
    own = np.zeros(len(train))
    parts, others, networks = [], [], []
    for seed in range(seeds):
        config = config.replace(seed=seed)
        networks.append(trained(config, train))
        full = margins(networks[-1], x, y), margins(networks[-1], test.normalised(), test.y)
        for part in folds(len(train), count, seed):
            kept = np.setdiff1d(np.arange(len(train)), part)
            network = trained(config, train.select(kept))
            own[part] += (full[0] - margins(network, x, y))[part] / seeds
            parts.append(part)
            others.append(full[1] - margins(network, test.normalised(), test.y))
    return {"own": own, "folds": parts, "others": np.array(others), "networks": networks,
            "targets": test}  # fmt: skip


def measured(config: RunConfig, splits: Splits, networks: Sequence) -> pd.DataFrame:
    """Compute every measure of every sample, from a recorded run and the networks."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config.replace(out=folder), splits=splits)
        for _ in run:
            pass
        frame = analysis.measures(run.record)
    x, y = splits.train.normalised(), splits.train.y
    frame["grand"] = np.mean([analysis.grand(network, x, y) for network in networks], 0)
    frame["influence"] = estimators.self_influence(networks, x, y)
    frame["influence, one network"] = estimators.self_influence(networks[0], x, y)
    return frame


def compare(name: str, seeds: int, count: int, root: str) -> list[dict[str, object]]:
    """Return rank correlations on one data set, one row per measure."""
    splits = data.load(name, root=root, progress=False, **DATA[name])
    config = RunConfig(method="SGD", budget=1.0, batch_size=16, device="cpu", dataset=name,
                       precision="float32", data_root=root, augmentation="none", lr=0.05,
                       **DATA[name], **RUN[name])  # fmt: skip
    real = left_out(config, splits, seeds, count)
    frame = measured(config, splits, real["networks"])
    truth = pd.Series(real["own"])
    rows = []
    for measure in ("influence", "influence, one network", *MEASURES):
        sign = analysis.HARD.get(measure) or 1
        found = analysis.agreement(sign * frame[measure], truth)
        rows.append({"effect": "own margin", "measure": measure, "n": found["n"],
                     "spearman": found["spearman"], "ci_low": found["spearman_ci_low"],
                     "ci_high": found["spearman_ci_high"]})  # fmt: skip
    targets, x, y = real["targets"], splits.train.normalised(), splits.train.y
    effect = estimators.influence(real["networks"], x, y, targets.normalised(), targets.y)
    prediction_sentence = np.array([effect[part].sum(0) for part in real["folds"]])
    each = [stats.spearmanr(a, b).statistic for a, b in
            zip(prediction_sentence.T, real["others"].T, strict=True)]  # fmt: skip
    low, high = mean_interval(np.array(each))
    rows.append({"effect": "margins of held-out samples", "measure": "influence", "n": len(each),
                 "spearman": np.mean(each), "ci_low": low, "ci_high": high})  # fmt: skip
    largest = -(-DATA[name]["limit"] // count)
    return [{"dataset": name, "left_out": largest, **row} for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--seeds", type=int, help="with --folds, in place of the plan")
    parser.add_argument("--folds", type=int)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--table", type=Path, default=RESULTS / "influence.csv")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = [one for one in PLAN if one[0] in given.datasets]
    if given.folds:
        plan = [(name, given.seeds or 5, given.folds) for name in given.datasets]
    rows = []
    for name, seeds, count in plan:
        began = time.perf_counter()
        found = compare(name, seeds, count, given.data_root)
        about = {
            "trainings": seeds * (count + 1),
            "seconds": round(time.perf_counter() - began),
            "command": f"python -m experiments.influence --datasets {name} --seeds {seeds} "
                       f"--folds {count}",
            "hardware": describe_hardware(CPU, FLOAT)["name"],
            "torch": torch.__version__,
        }  # fmt: skip
        rows += [row | about for row in found]
        print(pd.DataFrame(found).to_string(index=False, float_format="%.2f"), file=sys.stderr)
    text = pd.DataFrame(rows).to_csv(index=False, float_format="%.4g")
    write_atomically(given.table, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
