"""A slip ends in one sentence that names what was given and what to do, wherever it is made."""

import re
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fake_records import write_run
from torch import nn
from torch.utils.data import TensorDataset

import budgetlab as bl
from budgetlab import analysis
from budgetlab.analysis.statistics import mean_interval, paired_difference
from budgetlab.analysis.wrong_labels import precision_and_recall
from budgetlab.errors import InputError, RunError
from budgetlab.training import Run

IMAGES = TensorDataset(torch.rand(40, 1, 8, 8), torch.arange(40) % 2)
OWN = bl.Dataset.from_dataset(IMAGES)
WRAP = "TensorDataset: wrap it with bl.Dataset.from_dataset"
LOAD = "is the text 'digits': load it first, with bl.data.load"


def says(part: str, call: Callable[[], Any]) -> None:
    """Check that a call is refused in one sentence that holds these words."""
    with pytest.raises(InputError, match=re.escape(part)) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("part", "call"), [
    (f"train is a {WRAP}", lambda: bl.Splits.of(IMAGES, name="m")),
    (f"test is a {WRAP}", lambda: bl.Splits.of(OWN, test=IMAGES)),
    (f"splits is a {WRAP}, then bl.Splits.of", lambda: bl.train(splits=IMAGES)),
    ("splits is a Dataset: make splits of it with bl.Splits.of", lambda: bl.train(splits=OWN)),
    ("splits is an ndarray: wrap", lambda: bl.train(splits=np.zeros(3))),
    ("train is all Splits together", lambda: bl.Splits.of(bl.Splits.of(OWN))),
    (LOAD, lambda: bl.analysis.find_suspects("digits")),
    (LOAD, lambda: bl.analysis.find_suspects("digits", by="threshold")),
    (LOAD, lambda: bl.data.find_copies("digits")),
    (LOAD, lambda: bl.analysis.compare_augmentations("digits")),
    (LOAD, lambda: bl.widgets.AugmentationExplorer("digits")),
    ("data is a TensorDataset: wrap", lambda: bl.analysis.held_out_probabilities(IMAGES)),
    ("folds 'a' is not allowed", lambda: bl.analysis.held_out_probabilities(OWN, folds="a")),
    ("seeds '3' is not allowed", lambda: bl.analysis.compare_augmentations(OWN, seeds="3")),
])  # fmt: skip
def test_data_given_as_something_else(part: str, call: Callable[[], Any]) -> None:
    says(part, call)


ONE_RECORD = {
    "pay_features": bl.analysis.pay_features, "will_it_pay": bl.analysis.will_it_pay,
    "measures": bl.analysis.measures, "selection": bl.analysis.selection,
    "group_accuracy": bl.analysis.group_accuracy, "confusion": bl.analysis.confusion,
    "one_epoch": bl.analysis.one_epoch, "calibration": bl.analysis.calibration,
    "groups_of_record": bl.analysis.groups_of_record,
    "class_share": bl.analysis.class_share, "ranked_counts": bl.analysis.ranked_counts,
    "sample_life": lambda record: bl.plots.sample_life(record, 0),
    "probability": bl.plots.sampling_probability, "losses": bl.plots.loss_distribution,
    "probability_vs_loss": bl.plots.probability_vs_loss,
    "measure_vs_measure": bl.plots.measure_vs_measure,
    "class_share_plot": bl.plots.class_share, "class_accuracy": bl.plots.class_accuracy,
}  # fmt: skip


def test_what_takes_a_record_takes_its_folder(train: Callable[..., Run]) -> None:
    path = train(epochs=8, budget=1.0).writer.path
    for place, call in enumerate(ONE_RECORD.values()):
        call(str(path) if place % 2 else path)
        plt.close("all")


OPENING = ONE_RECORD | {"open_record": bl.open_record, "explore": bl.explore.probabilities}


@pytest.mark.parametrize("call", OPENING.values(), ids=OPENING)
def test_what_is_no_record_is_refused(call: Callable[[Any], Any]) -> None:
    says("None is not a record: give a Record or its folder", lambda: call(None))
    a_list = "a list is not a record: give a Record or its folder, one of them"
    says(a_list, lambda: call(["runs/x"]))
    says("'runs/x' is not a record", lambda: call("runs/x"))


@pytest.mark.parametrize(
    "call", [bl.compare, bl.open_records, bl.analysis.triage, bl.plots.learning_curves]
)
def test_what_are_no_records_is_refused(call: Callable[[Any], Any]) -> None:
    says("None is not a record", lambda: call(None))
    says("an int is not a record", lambda: call([3]))


def test_a_run_with_a_method_of_ones_own_is_resumed_with_it(train: Callable[..., Run]) -> None:
    bl.sampler("mybool")(lambda history: history.mean_loss)
    path = train(method="mybool").writer.path
    bl.methods._table.pop("mybool")
    says("on the command line, add --method MODULE:mybool", lambda: Run.resume(path))


@pytest.mark.parametrize(("part", "call"), [
    ("precision 'fp16': choose one", lambda: bl.RunConfig(precision="fp16")),
    ("out 'a\\x00b' is not allowed: give a text without null characters",
     lambda: bl.RunConfig(out="a\0b")),
    ("<function", lambda: bl.train(lambda history: history.error)),
    ("image-size 16 is for folder:, not for 'digits'",
     lambda: bl.train(dataset="digits", image_size=16)),
    ("credit weighted does not go with fidelity published",
     lambda: bl.train(credit="weighted", fidelity="published")),
])  # fmt: skip
def test_settings(part: str, call: Callable[[], Any]) -> None:
    says(part, call)


class Lines(torch.utils.data.IterableDataset):
    def __iter__(self) -> Any:
        return iter(IMAGES)


class Lying(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return IMAGES.tensors[0][[0, 1][number]], number


def reported(*given: Any) -> Callable[[], Any]:
    """Report the first batch of a loop of one's own."""

    def call() -> Any:
        sampler = bl.BudgetSampler(40, epochs=1, budget=0.5, batch_size=4)
        next(iter(sampler))
        return sampler.history.update(*given)

    return call


LOGITS, LABELS = torch.rand(4, 3), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(("part", "call"), [
    ("has the label 7, which is not among the 3 classes", reported(LOGITS, LABELS + 7)),
    ("call update(logits, labels)", reported(LABELS, LOGITS)),
    ("logits is None: give a tensor", reported(None, LABELS)),
    ("1 rows of logits and 4 labels were reported", reported(LOGITS.mean(), LABELS)),
    ("unknown setting 'epoch': did you mean 'epochs'?",
     lambda: bl.analysis.find_suspects(OWN, epoch=9)),
    ("limit 10 is not applied to data that is given loaded, such as 'mine'",
     lambda: bl.BudgetSampler(IMAGES, dataset="mine", limit=10)),
    ("data is a Lines: give a map-style data set", lambda: bl.BudgetSampler(Lines())),
    ("data is a Tensor: give a map-style data set", lambda: bl.BudgetSampler(torch.rand(9, 3))),
    ("item 2 of 9 cannot be read (IndexError)", lambda: bl.Dataset.from_dataset(Lying())),
    ("unknown class in true_label 'zzz': choose one of 0, 1",
     lambda: bl.Dataset.from_dataset(IMAGES, true_label=["zzz"] * 40)),
    ("model 'Sequential' has lazy layers: run one batch through it",
     lambda: bl.train(splits=bl.Splits.of(OWN), model=nn.Sequential(nn.LazyLinear(2)))),
    ("'.' is a place, not a data set: write folder:.", lambda: bl.data.inspect(".")),
    ("pred_probs[0, 0] is nan: give probabilities",
     lambda: bl.analysis.label_quality([0, 1], [[np.nan, 0.5], [0.5, 0.5]])),
    ("'mine' takes (a, b): a score is a function of one argument",
     lambda: bl.sampler("mine")(lambda a, b: a)),
])  # fmt: skip
def test_what_is_reported_and_read(part: str, call: Callable[[], Any]) -> None:
    says(part, call)


def test_arrays_are_as_good_as_tensors() -> None:
    assert reported(LOGITS.numpy(), LABELS.numpy())().tolist() == [1] * 4


class Few(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:3])


def test_a_network_that_returns_too_few_rows_is_named(config: bl.RunConfig) -> None:
    with pytest.raises(RunError, match="'Few' returns 3 rows of logits for a batch of 16"):
        list(Run(config, model=Few(2, 2)))


# One sentence each, before anything is read or computed wrongly.
CONFIDENCE = "is not allowed: give a number in (0, 1)"
FRAME = pd.DataFrame({"label": [0, 1], "predicted": [0, 0]})
MEASURED = pd.DataFrame({"el2n": [0.1, 0.2, 0.3, 0.5]})
LOSSES = pd.DataFrame({"loss": [0.5, 1.0]})  # recorded elsewhere
REFUSED = {
    f"confidence 95 {CONFIDENCE}": lambda r: analysis.group_accuracy(FRAME, confidence=95),
    f"confidence 1.5 {CONFIDENCE}": lambda r: paired_difference([1, 2, 4], [0, 0, 0], 1.5),
    f"confidence 'a' {CONFIDENCE}": lambda r: mean_interval([1, 2, 4], "a"),
    f"confidence True {CONFIDENCE}": lambda r: precision_and_recall([1], [1], True),
    f"confidence -1 {CONFIDENCE}": lambda r: analysis.noise_cost([], confidence=-1),
    "el2n_epochs 0 ": lambda r: analysis.measures(r, el2n_epochs=0),
    "epochs True is not allowed": lambda r: analysis.measures(r, epochs=True),
    "groups 2.5 ": lambda r: analysis.picks_by(r, "label", groups=2.5),
    "bins 2.5 ": lambda r: analysis.credit_by_reference(r, r, bins=2.5),
    "bins -1 ": lambda r: analysis.calibration(r, bins=-1),
    "levels [0.5, 2] are not allowed": lambda r: analysis.quantiles(r, "loss", [0.5, 2]),
    "levels 0.5 are": lambda r: analysis.quantiles(r, "loss", 0.5),
    "levels [] are": lambda r: analysis.quantiles(r, "loss", []),
    "levels 'ab' are": lambda r: analysis.quantiles(r, "loss", "ab"),
    "sample 1.5 ": lambda r: analysis.sample_life(r, 1.5),
    "sample '3' ": lambda r: analysis.sample_life(r, "3"),
    "sample True ": lambda r: analysis.sample_life(r, True),
    "epoch 'last' does not exist": lambda r: analysis.one_epoch(r, "last"),
    "epoch True does": lambda r: analysis.one_epoch(r, True),
    "el2n has none to agree with": lambda r: analysis.measure_agreement(MEASURED, "el2n"),
    "no measure has none": lambda r: analysis.measure_agreement(MEASURED, []),
    "infinite, not [inf, 1]": lambda r: analysis.entropy([np.inf, 1]),
    "infinite, not 'abc'": lambda r: analysis.entropy("abc"),
    "infinite, not []": lambda r: analysis.coverage([]),
    "unknown baseline '': choose one of unif-SGD": lambda r: bl.compare(r, baseline=[]),
    "are of mixed kinds": lambda r: analysis.group_accuracy(FRAME.assign(predicted=0.5)),
    "classes, or names": lambda r: analysis.confusion(FRAME.assign(predicted=["a", "b"])),
    "unknown class 'b': choose one of a, c": lambda r: analysis.group_accuracy(
        pd.DataFrame({"label": ["a"], "predicted": ["b"]}), classes=["a", "c"]
    ),
    "is a Record: give a pandas DataFrame with epochs, augm": lambda r: bl.plots.crossing(r),
    "is a list: give a pandas DataFrame with method,": lambda r: bl.plots.importance_map([r]),
    "a frame of errors over steps is a Record": lambda r: bl.plots.gradient_quality(r),
    "a frame of this chart is a Record: give": lambda r: bl.explore.importance_map(r),
    "this frame lacks the columns label, visits, aum,": lambda r: analysis.triage(LOSSES),
    "quality lacks the columns suspect, p_wrong": lambda r: analysis.triage(r, quality=LOSSES),
    "quality lacks the columns suspect,": lambda r: analysis.suspects(LOSSES),
    "this frame lacks the column verdict": lambda r: analysis.indices(LOSSES),
    "labels are float64: give whole numbers": lambda r: analysis.label_quality(
        np.array([0, np.nan]), np.full((2, 2), 0.5)
    ),
    "listed (2,) and wrong (3,) do not fit": lambda r: analysis.precision_and_recall(
        [0, 1], [True, False, True]
    ),
}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> bl.Record:
    return write_run(tmp_path_factory.mktemp("record"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("said", REFUSED)
def test_what_has_no_meaning_is_refused_and_named(record: bl.Record, said: str) -> None:
    says(said, lambda: REFUSED[said](record))


def test_what_a_method_yields_is_a_batch_of_samples(config: bl.RunConfig) -> None:
    @bl.sampler("yields")
    class Yields(bl.Sampler):
        def batches(self, *_: Any) -> Any:
            yield [1, 2, 3]

    says("method 'yields' yields a list: yield bl.samplers.Batch(indices)",
         lambda: list(Run(config.replace(method="yields"))))  # fmt: skip
    says("indices are int64 [B], B of 1 or more, not torch.int64 of shape (0,)",
         lambda: bl.samplers.Batch(torch.zeros(0, dtype=torch.int64)))  # fmt: skip


NO_SAMPLES = {
    "asks for sample 128: give 0 to 127": torch.arange(113, 129),
    "asks for sample -1: give": torch.arange(-1, 15),
    "B of 1 or more, not torch.float32 of shape (16,): give": torch.arange(16.0),
    "B of 1 or more, not torch.int64 of shape (0,): give": torch.arange(0),
    "B of 1 or more, not a list: give": [1, 2, 3],
}


@pytest.mark.parametrize("said", NO_SAMPLES)
def test_numbers_that_are_none_of_a_sample_are_named_with_their_method(
    config: bl.RunConfig, said: str
) -> None:
    @bl.sampler("astray")
    class Astray(bl.Sampler):
        def batches(self, *_: Any) -> Any:
            yield bl.samplers.Batch(NO_SAMPLES[said])  # type: ignore[arg-type]

    @bl.sampler("looks astray")
    class LooksAstray(bl.Sampler):
        def batches(self, epoch: int, history: Any, look: Any) -> Any:
            yield bl.samplers.Batch(look(NO_SAMPLES[said]).labels)

    for method in ("astray", "looks astray")[: 2 if "asks" in said else 1]:
        with pytest.raises(bl.InputError, match=f"method '{method}' ") as error:
            list(Run(config.replace(method=method)))
        assert said in str(error.value)


def test_a_record_without_an_epoch_is_shown_as_such(config: bl.RunConfig) -> None:
    record = Run(config).record
    says("holds no finished epoch", lambda: bl.plots.credit_calibration(record))
    assert "No epoch was trained yet" in bl.plots.loss_distribution(record).texts[0].get_text()
