"""The command line: what other programs call, and what a person reads when it goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_images import write_images
from scripts import python
from waiting import until

import budgetlab as bl
from budgetlab import cli, demo, methods, samplers
from budgetlab.analysis import condition_columns
from budgetlab.cli import commands
from budgetlab.config import RunConfig
from budgetlab.records import find_records, open_record

# What is printed about files that cannot be read is a warning first.
pytestmark = pytest.mark.filterwarnings("default")

PROMISED = {"record", "method", "augmentation", "dataset", "budget", "seed", "test_accuracy",
            "steps", "trained_samples", "looked_samples", "flops", "seconds", "status"}  # fmt: skip


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output."""
        assert self.out.count("\n") == 1
        assert self.out.endswith("\n")
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    @property
    def sentence(self) -> str:
        """The one line of a failure."""
        assert self.out == ""
        lines = self.err.rstrip("\n").splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("budgetlab: ")
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def call(capsys) -> Callable[..., Said]:
    def run(*arguments: object) -> Said:
        code = cli.main([str(one) for one in arguments])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def quick(tmp_path, data_root) -> list[object]:
    """Arguments of a run that takes no time."""
    return ["train", "--dataset", "points", "--limit", 128, "--epochs", 3, "--batch-size", 16,
            "--budget", 0.5, "--device", "cpu", "--precision", "float32",
            "--data-root", data_root, "--out", tmp_path / "runs"]  # fmt: skip


# Training


def test_train_prints_what_is_promised(call, quick):
    said = call(*quick, "--method", "p-SGD", "--seed", 3, "--json")
    assert said.code == 0
    summary = said.json
    assert set(summary) >= PROMISED
    assert (summary["method"], summary["seed"], summary["budget"]) == ("p-SGD", 3, 0.5)
    assert (summary["steps"], summary["trained_samples"], summary["looked_samples"]) == (12, 192, 0)
    record = open_record(summary["record"])
    assert record.summary == summary
    assert record.epochs["test_accuracy"].iloc[-1] == summary["test_accuracy"]
    assert "p-SGD on points: 128 samples, model mlp" in said.err


def test_every_option_reaches_the_config_and_without_json_it_is_said_in_words(
    call, quick, tmp_path
):
    options = {"method": "selective-backprop", "augmentation": "none", "budget-unit": "samples",
               "momentum": 0.8, "weight-decay": 0.001, "schedule": "cosine", "alpha": 0.4,
               "randaugment-n": 1, "randaugment-m": 9, "sb-beta": 2.5, "credit": "row",
               "label-noise": 0.1, "lr": 0.05, "seed": 5, "model": "mlp"}  # fmt: skip
    flags = [one for name, value in options.items() for one in (f"--{name}", value)]
    # Notebooks call it too: what it changes for its own time is as it was afterwards.
    before = warnings.showwarning, signal.getsignal(signal.SIGTERM)
    said = call(*quick, *flags)
    assert said.code == 0, said.err
    assert (warnings.showwarning, signal.getsignal(signal.SIGTERM)) == before
    first, second = said.out.splitlines()
    assert first.startswith("selective-backprop at budget 0.5: test accuracy 0.")
    assert " steps, trained on " in first
    assert second.startswith(f"record: {tmp_path / 'runs'}")
    config = open_record(second.removeprefix("record: ")).config
    assert {name: config[name.replace("-", "_")] for name in options} == options


def stop_after(monkeypatch, steps: int) -> None:
    from budgetlab.budget import Ledger

    charge = Ledger.charge_step

    def charge_and_stop(self, samples):
        charge(self, samples)
        if self.steps == steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "charge_step", charge_and_stop)


# Bad input. What a value may be is said by the config, what a name by the run, and what a folder
# by the data: here is what the command line says by itself.


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "expected one of {train, resume, "),
        ("trian", "did you mean train?"),
        ("resume", "record"),
        ("report", "no record was given"),
        ("resume /nowhere", "'/nowhere' is not a record: give a folder with a record.json"),
        ("compare", "no record was given: name one, such as runs"),
        ("list method", "unknown list 'method': did you mean 'methods'?"),
        ("list", "Missing from budgetlab list: STR datasets, models, methods"),
        ("train --budget 1.5", "budget 1.5 is not allowed: give a number in (0, 1]"),
        ("train --budget a-third", "budget 'a-third' is not allowed: give a number, such as 0.3"),
        ("train --budget=30%", "budget '30%' is not allowed: give a number, such as 0.3"),
        ("train --budget", "--budget has no value: give one after it"),
        ("train --bugdet 0.3", "did you mean --budget?"),
        ("train --seed 0 1", "Unrecognized options: 1; train takes one value for each option"),
        ("train --batch_size x", "batch-size 'x' is not allowed: give a whole number, such as"),
        ("train --epochs 1e3", "epochs '1e3' is not allowed: give a whole number, such as 30"),
        ("train --sb-beta xx", "sb-beta 'xx' is not allowed: give a number, or auto"),
        ("sweep --workers many", "workers 'many' is not allowed: give a whole number, such as 1,"),
        ("sweep --budget 0.2 nope --seed 1", "budget 'nope' is not allowed: give a number"),
        ("sweep --method SGD p-SDG", "did you mean 'p-SGD'"),
        ("sweep --worker 2", "did you mean --workers"),
        ("train --method mine", "unknown method 'mine': choose one of unif-SGD"),
        ("train --method json:loads", "'json' is a part of Python, and has no method"),
        ("train --method os.path:join", "'os.path' is a part of Python, and has no method"),
        ("train --method mk2.py", "one of your own is written MODULE:METHOD, or FILE.py:METHOD"),
        ("train --method nothing_here:mine", "cannot be imported (ModuleNotFoundError"),
        ("train --method ownmethods:wavring", "method of 'ownmethods' 'wavring': did you mean 'w"),
        ("train --method ownmethods:bl", "a method is a function"),
        ("train --method broken.py:mine", "'broken.py' cannot be imported (ZeroDivisionError"),
    ],
)
@pytest.mark.usefixtures("own_methods")
def test_what_cannot_be_done_is_one_line_and_no_record(call, quick, tmp_path, command, says):
    words = command.split()
    said = call(*(quick + words[1:] if words[:1] == ["train"] else words))
    assert said.code == commands.BAD_INPUT
    assert says.lower() in said.sentence.lower()
    assert not (tmp_path / "runs").exists()


# The user's own images


@pytest.fixture
def images(tmp_path) -> Path:
    """Dark and bright images, 110 of each."""
    folder = tmp_path / "images"
    for seed, (name, levels) in enumerate({"dark": (0, 80), "bright": (180, 256)}.items()):
        write_images(folder / name, 110, seed=seed, levels=levels)
    return folder


def test_own_images_are_trained_on_moved_and_trained_on_for_longer(call, quick, images):
    (images / "dark" / "img03.png").write_bytes(b"\x89PNG nothing more")
    own = [*quick, "--dataset", f"folder:{images}", "--limit", 0, "--augmentation", "none"]
    said = call(*own, "--json", "--budget", 1)
    assert said.code == 0, said.err
    # "images" says nothing: the folder around it is named too.
    assert said.json["dataset"].endswith("/images")
    assert (said.json["model"], said.json["test_accuracy"]) == ("small", 1.0)
    assert "skipped" in said.err
    about = open_record(said.json["record"]).about["data"]
    assert about["train"] + about["test"] == 219
    assert "dark/img03.png" in about["skipped"][0]
    record, there = said.json["record"], images.with_name("elsewhere")
    images.rename(there)
    lost = call("resume", record, "--epochs", 5)
    assert lost.code == commands.BAD_INPUT
    assert "say where it is: resume --dataset" in lost.sentence
    said = call("resume", record, "--epochs", 5, "--dataset", f"folder:{there}", "--json")
    assert (said.code, said.json["status"]) == (0, "finished")
    assert said.json["record"] != record
    assert open_record(said.json["record"]).config["extended"] == "3"
    next(there.rglob("*.png")).unlink()
    other = call("resume", record, "--epochs", 6, "--dataset", f"folder:{there}")
    assert other.code == commands.FAILED
    assert "is not what record" in other.err


def test_augmentations_are_compared_before_anything_else(call, images):
    given = ["inspect", f"folder:{images}", "--augmentations", "--epochs", 1]
    given += ["--limit", 60, "--batch-size", 16]
    said, found = call(*given), call(*given, "--json").json
    assert said.code == 0, said.err
    assert "crop and flip" in said.out
    assert "is best here" in said.out
    assert [row["n"] for row in found["augmentations"]] == [3, 3, 3, 3]
    assert found["advice"] in said.out


# Reading


def test_compare_pairs_over_seeds_and_report_writes_one_page(call, quick, tmp_path):
    runs, accuracy = tmp_path / "runs", {}
    for method in ("unif-SGD", "p-SGD"):
        for seed in (0, 1):
            summary = call(*quick, "--method", method, "--seed", seed, "--json").json
            accuracy.setdefault(method, []).append(summary["test_accuracy"])
    said = call("compare", runs, "--baseline", "unif-SGD", "--json")
    assert said.code == 0, said.err
    rows = {row["method"]: row for row in said.json["rows"]}
    assert {name: row["n"] for name, row in rows.items()} == {"unif-SGD": 2, "p-SGD": 2}
    for name, row in rows.items():
        assert row["mean"] == pytest.approx(np.mean(accuracy[name]))
    starts = {"t.csv": "dataset,", "t.md": "| dataset", "t.tex": "\\begin{tabular}"}
    for name, start in starts.items():
        text = call("compare", runs, "--out", tmp_path / name)
        assert (text.code, "p-SGD" in text.out) == (0, True)
        assert (tmp_path / name).read_text().startswith(start)
    assert ".csv, .md, .tex" in call("compare", runs, "--out", tmp_path / "t.xls").sentence
    page = tmp_path / "deep" / "page.html"
    (one,) = runs.glob("*p-SGD*s0*")
    said = call("report", one, "--out", page)
    assert (said.code, said.out.strip()) == (0, str(page))
    assert "p-SGD" in page.read_text()


LISTS = "datasets", "models", "methods", "augmentations", "schedules", "presets", "measures"


def test_lists_are_names_and_lines(call):
    for what in LISTS:
        listed = call("list", what, "--json").json
        assert all(name and line and "\n" not in line for name, line in listed.items())
        lines = call("list", what).out.splitlines()
        assert [line.split("  ")[0].strip() for line in lines] == list(listed)


# Methods of one's own

OWN = """import budgetlab as bl

@bl.sampler("wavering")
def score(history):
    "By how much the probability wavers"
    return history.variability + 0.1

def plain(history):
    return 0 * history.times_trained.float() + 1
"""


@pytest.fixture
def own_methods(tmp_path, monkeypatch):
    """Modules in the working directory; gone from the lists afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "_table", dict(methods._table))
    # What another test of this process has registered under the same names is not here.
    monkeypatch.setattr(samplers.base, "_registered", {})
    (tmp_path / "ownmethods.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0")
    yield
    sys.modules.pop("ownmethods", None)


@pytest.mark.usefixtures("own_methods")
@pytest.mark.parametrize("given", ["ownmethods:wavering", "ownmethods.py:wavering"])
def test_a_method_of_ones_own_is_named_by_its_module(call, quick, given):
    said = call(*quick, "--method", given, "--json")
    assert (said.code, said.json["method"]) == (0, "wavering")
    listed = call("list", "methods", "--method", given, "--json").json
    assert listed["wavering"] == "By how much the probability wavers"
    swept = call("sweep", *quick[1:], "--method", "unif-SGD", given, "--json").json
    assert [(row["method"], row["how"]) for row in swept["summaries"]] == [
        ("unif-SGD", "trained"), ("wavering", "kept")
    ]  # fmt: skip


@pytest.mark.usefixtures("own_methods")
def test_a_stopped_run_of_a_function_that_is_not_registered_is_resumed_with_it(
    call, quick, monkeypatch
):
    whole = call(*quick, "--method", "ownmethods:plain", "--json").json
    with monkeypatch.context() as stopping:
        stop_after(stopping, steps=6)
        stopped = call(*quick, "--method", "ownmethods:plain", "--json")
    assert stopped.code == commands.INTERRUPTED
    assert (stopped.json["status"], stopped.json["steps"]) == ("stopped", 4)
    assert f"to go on: budgetlab resume {stopped.json['record']}" in stopped.err
    said = call("resume", stopped.json["record"], "--method", "ownmethods.py:plain", "--json")
    assert (said.code, said.json["method"]) == (0, "plain")
    assert said.json | {"seconds": 0, "record": ""} == whole | {"seconds": 0, "record": ""}


# As a program


def test_the_parser_s_frames_are_taken_off():
    """They are drawn with other characters where the terminal knows only ASCII."""
    said = python("-m", "budgetlab", "train", "--bugdet", "3", PYTHONIOENCODING="ascii")
    assert (said.returncode, said.stdout) == (commands.BAD_INPUT, "")
    expected = "Unrecognized options: --bugdet, 3; did you mean --budget? (see budgetlab --help)"
    assert said.stderr == f"budgetlab: {expected}\n"


def test_help_explains_every_setting_of_a_run_and_version_is_that_of_the_package(call):
    for command in ("train", "sweep"):
        said = call(command, "--help")
        assert (said.code, said.err) == (0, "")
        shown = " ".join(said.out.replace("│", " ").split())
        for name in RunConfig.__dataclass_fields__:
            assert f"--{name.replace('_', '-')} " in shown
        assert "Learning rate at the start." in shown
        assert "unif-SGD" in shown
    version = call("--version")
    assert (version.code, version.out) == (0, f"budgetlab {bl.__version__}\n")


def test_an_interrupt_as_the_program_starts_ends_it_in_a_word(tmp_path):
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt")
    places = os.pathsep.join([str(tmp_path), *sys.path])
    said = python("-m", "budgetlab", "list", "methods", PYTHONPATH=places)
    assert (said.stdout, said.stderr, said.returncode) == ("", "interrupted\n", 130)


def test_a_program_that_is_told_to_end_leaves_a_record_that_resumes(quick, tmp_path):
    """SIGTERM, as a cluster sends it, stops like Ctrl-C."""
    words = [sys.executable, "-m", "budgetlab", *map(str, quick), "--epochs", "100000", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(words, **pipes)
    tables = (tmp_path / "runs").glob
    until(lambda: any(tables("*/epochs.csv")) or running.poll() is not None)
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    summary = json.loads(out)
    assert summary["status"] == "stopped"
    assert "Traceback" not in err
    record = open_record(summary["record"])
    assert record.status == "stopped"
    assert len(record.epochs) == record.samples.sizes["epoch"] == summary["epochs"] >= 1


# The demo: what a newcomer sees first


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def small(monkeypatch):
    plan = demo.configs
    small = {"dataset": "digits", "model": "tiny", "epochs": 2, "limit": 200, "batch_size": 16}
    monkeypatch.setattr(demo, "configs", lambda out: plan(out, **small))


def test_prints_each_run_then_a_table_and_writes_a_page(out, small, capsys):
    assert demo.main(out) == 0
    printed = capsys.readouterr().out
    for method, budget in demo.PLAN:
        line = rf"^ *\d+ of 12  {method} +budget {budget:.0%} +seed 2 +\d+\.\d%$"
        assert re.search(line, printed, re.MULTILINE)
    heading = next(line for line in printed.splitlines() if line.startswith("dataset"))
    for column in ("n", "test accuracy %", "steps", "trained", "seconds", "cost of full"):
        assert column in heading
    assert re.search(r"^digits +random-subset .* 30% +3 ", printed, re.MULTILINE)
    assert re.search(r"^digits +unif-SGD .* 100% +3 ", printed, re.MULTILINE)
    assert printed.count("unif-SGD") >= 8

    page = (out / "index.html").read_text()
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    images = re.findall(r"<img\b[^>]*>", page)
    assert len(images) >= 4
    for image in images:
        assert 'src="data:image/' in image
        assert re.search(r'alt="[^"]{20,}"', image)
    assert not re.search(r'(src|href)="https?:', page)
    # A seed draws the data too: three seeds are three pairs of one comparison, here as there.
    for sentence in re.findall(r"^- (.*)$", printed, re.MULTILINE):
        assert "n = 3" in sentence
        assert sentence[1:] in page
    assert "2 comparisons with unif-SGD: " in page
    assert "data seed" not in page
    assert "so there are no learning curves" in page
    assert "random-subset draws the same 30% of the samples" in page
    by_seed = bl.summaries(out / "runs").query("seed == data_seed")
    assert "data_seed" not in condition_columns(by_seed)
    crossed = pd.concat([by_seed, by_seed.assign(data_seed=0)])
    assert "data_seed" in condition_columns(crossed)


def test_a_second_time_keeps_what_is_finished(out, small, capsys, monkeypatch):
    monkeypatch.setattr("budgetlab.report.write", lambda records, out: out)
    before = find_records(out / "runs")
    assert demo.main(out) == 0
    assert capsys.readouterr().out.count("kept from before") == 12
    assert find_records(out / "runs") == before
    assert all(open_record(path).status == "finished" for path in before)
