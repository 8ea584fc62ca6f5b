"""The command line: what other programs call, and what a person reads when it goes wrong."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from budgetlab import cli, methods, samplers
from budgetlab.cli import commands
from budgetlab.records import open_record

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
    assert summary["status"] == "finished"
    record = open_record(summary["record"])
    assert record.summary == summary
    assert record.epochs["test_accuracy"].iloc[-1] == summary["test_accuracy"]
    assert "p-SGD on points: 128 samples, model mlp" in said.err


def test_without_json_it_says_it_in_words(call, quick, tmp_path):
    said = call(*quick)
    assert said.code == 0
    first, second = said.out.splitlines()
    assert first.startswith("unif-SGD at budget 0.5: test accuracy 0.")
    assert "after 12 steps, trained on 192 samples, " in first
    assert second.startswith(f"record: {tmp_path / 'runs'}")


def test_every_option_reaches_the_config(call, quick):
    options = {"method": "selective-backprop", "augmentation": "none", "budget-unit": "samples",
               "momentum": 0.8, "weight-decay": 0.001, "schedule": "cosine", "alpha": 0.4,
               "randaugment-n": 1, "randaugment-m": 9, "sb-beta": 2.5, "credit": "row",
               "label-noise": 0.1, "lr": 0.05, "seed": 5, "model": "mlp"}  # fmt: skip
    flags = [one for name, value in options.items() for one in (f"--{name}", value)]
    said = call(*quick, *flags, "--json")
    assert said.code == 0, said.err
    config = open_record(said.json["record"]).config
    assert {name: config[name.replace("-", "_")] for name in options} == options


def test_resume_goes_on_with_a_stopped_run(call, quick, monkeypatch):
    whole = call(*quick, "--json").json
    with monkeypatch.context() as patched:
        stop_after(patched, steps=6)
        stopped = call(*quick, "--json")
    assert stopped.code == 130
    assert (stopped.json["status"], stopped.json["steps"]) == ("stopped", 4)
    assert f"to go on: budgetlab resume {stopped.json['record']}" in stopped.err
    resumed = call("resume", stopped.json["record"], "--json")
    assert resumed.code == 0
    assert resumed.json | {"seconds": 0, "record": ""} == whole | {"seconds": 0, "record": ""}


def stop_after(monkeypatch, steps: int) -> None:
    from budgetlab.budget import Ledger

    charge = Ledger.charge_step

    def charge_and_stop(self, samples):
        charge(self, samples)
        if self.steps == steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "charge_step", charge_and_stop)


def test_an_interrupt_as_the_program_starts_ends_it_in_a_word(tmp_path):
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "budgetlab", "list", "methods"], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


# Bad input


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--method", "p-sdg"], "unknown method 'p-sdg': did you mean 'p-SGD'? choose one of unif"),
        (["--augmentation", "mixupp"], "unknown augmentation 'mixupp': did you mean 'mixup'?"),
        (["--model", "resnet19"], "unknown model 'resnet19': did you mean 'resnet18'?"),
        (["--schedule", "cosinus"], "unknown schedule 'cosinus': did you mean 'cosine'?"),
        (["--dataset", "shape"], "unknown dataset 'shape': did you mean 'shapes'?"),
        (["--budget-unit", "steps"], "unknown budget unit 'steps'"),
        (["--credit", "rows"], "unknown credit 'rows': did you mean 'row'?"),
        (["--dataset", "folder:~nobodyhere/x"], "~nobodyhere/x"),
        (["--edits", "typo.csv"], "edits 'typo.csv' are missing: give a file that is there"),
        (["--budget", "0"], "budget 0.0 is not allowed: give a number in (0, 1]"),
        (["--budget", "1.5"], "budget 1.5 is not allowed: give a number in (0, 1]"),
        (["--budget", "-0.1"], "budget -0.1 is not allowed: give a number in (0, 1]"),
        (["--budget", "nan"], "budget nan is not allowed: give a number in (0, 1]"),
        (["--budget", "a third"], "a third"),
        (["--epochs", "2.5"], "2.5"),
        (["--budget"], "--budget"),
        (["--bugdet", "0.3"], "did you mean --budget?"),
        (["--methd", "SGD"], "did you mean --method?"),
        (["--budget", "0.01"], "budget 0.01 of 128 samples is 1, less than one batch of 16"),
        (["--limit", "5000"], "limit 5000 is more than the 1000"),
        (["--label-noise", "1"], "label-noise 1.0 is not allowed: give a number in [0, 1)"),
        (["--dataset", "folder:"], "'folder:' has no path: write folder:PATH"),
        (["--dataset", "folder:/nowhere/at/all"], "there is no folder '/nowhere/at/all'"),
        (["--dataset", "npz:/nowhere.npz"], "/nowhere.npz"),
        (["--device", "gpu"], "unknown device 'gpu': choose one of auto, cpu, cuda, cuda:N"),
        (["--device", "cuda:77"], "device 'cuda:77' is not there"),
        (["--sb-beta", "often"], "often"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_no_record(call, quick, tmp_path, flags, says):
    said = call(*quick, *flags)
    assert said.code == 2
    assert says in said.sentence
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "did you mean train?"),
        ([], "expected one of {train, resume, "),
        (["resume"], "record"),
        (["resume", "/nowhere"], "'/nowhere' is no record: give a folder with a record.json"),
        (["compare", "/nowhere"], "record '/nowhere' does not exist"),
        (["compare"], "no record was given: name one, such as runs"),
        (["report"], "no record was given"),
        (["list", "method"], "unknown list 'method': did you mean 'methods'?"),
        (["list"], "budgetlab: Missing from budgetlab list: STR datasets, models, methods"),
    ],
)
def test_a_command_that_cannot_be_read_is_one_line(call, arguments, says):
    said = call(*arguments)
    assert said.code == 2
    assert says.lower() in said.sentence.lower()


def test_out_that_cannot_be_written(call, quick, tmp_path):
    (tmp_path / "file").write_text("")
    said = call(*quick, "--out", tmp_path / "file")
    assert said.code == 2
    assert f"out '{tmp_path / 'file'}' is a file: give a folder" in said.err.splitlines()[-1]
    said = call(*quick, "--out", "/proc/nothing/here")
    assert said.code == 2
    assert "out '/proc/nothing/here' cannot be written" in said.err.splitlines()[-1]


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_from_the_start_and_while_reporting(call, quick, tmp_path, monkeypatch):
    record = call(*quick, "--json", "--out", tmp_path / "before").json["record"]
    page = tmp_path / "page.html"
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", no_room)
        said = call(*quick, "--json"), call("report", record, "--out", page)
    assert [(one.code, one.out) for one in said] == [(commands.FAILED, "")] * 2
    for one in said:
        assert "No space left on device" in one.err.splitlines()[-1]
        assert "Traceback" not in one.err
    assert list((tmp_path / "runs").iterdir()) == []
    assert not page.exists()


# The user's own images


def picture(path: Path, colour: tuple[int, int, int], noise: int) -> None:
    pixels = np.random.default_rng(noise).integers(0, 60, (12, 12, 3)) + np.array(colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def images(tmp_path) -> Path:
    """Ten red and ten blue pictures."""
    folder = tmp_path / "images"
    for number in range(10):
        picture(folder / "red" / f"{number}.png", (180, 20, 20), number)
        picture(folder / "blue" / f"{number}.png", (20, 20, 180), number)
    return folder


@pytest.fixture
def own(quick, images) -> list[object]:
    return [*quick, "--dataset", f"folder:{images}", "--limit", 0, "--batch-size", 4]


def test_own_images_are_trained_on_and_an_unreadable_one_is_said(call, own, images):
    (images / "red" / "3.png").write_bytes(b"\x89PNG nothing more")
    said = call(*own, "--json", "--augmentation", "none", "--epochs", 6, "--budget", 1)
    assert said.code == 0, said.err
    # "images" says nothing: the folder around it is named too.
    assert said.json["dataset"].endswith("/images")
    assert said.json["model"] == "small"
    assert said.json["test_accuracy"] == 1.0
    assert "red/3.png" in said.err
    assert "skipped" in said.err
    about = open_record(said.json["record"]).about["data"]
    assert about["train"] + about["test"] == 19
    assert "red/3.png" in about["skipped"][0]


# Reading


@pytest.fixture
def four(call, quick, tmp_path) -> Path:
    """Two methods, two seeds."""
    for method in ("unif-SGD", "p-SGD"):
        for seed in (0, 1):
            assert call(*quick, "--method", method, "--seed", seed).code == 0
    return tmp_path / "runs"


def test_compare_pairs_over_seeds(call, four, tmp_path):
    said = call("compare", four, "--baseline", "unif-SGD", "--json")
    assert said.code == 0, said.err
    rows = {row["method"]: row for row in said.json["rows"]}
    assert set(rows) == {"unif-SGD", "p-SGD"}
    accuracy = {
        (record.config["method"], record.config["seed"]): record.summary["test_accuracy"]
        for record in map(open_record, four.iterdir())
    }
    for method, row in rows.items():
        values = [accuracy[method, 0], accuracy[method, 1]]
        assert row["n"] == 2
        assert row["mean"] == pytest.approx(np.mean(values))
    for name, start in (
        ("t.csv", "dataset,"),
        ("t.md", "| dataset"),
        ("t.tex", "\\begin{tabular}"),
    ):
        text = call("compare", four, "--out", tmp_path / name)
        assert (text.code, "p-SGD" in text.out) == (0, True)
        assert (tmp_path / name).read_text().startswith(start)
    assert ".csv, .md, .tex" in call("compare", four, "--out", tmp_path / "t.xls").sentence


def test_report_writes_one_page(call, four, tmp_path):
    page = tmp_path / "deep" / "page.html"
    said = call("report", four, "--out", page)
    assert (said.code, said.out.strip()) == (0, str(page))
    text = page.read_text()
    assert text.startswith("<!")
    assert "p-SGD" in text
    assert 'src="http' not in text


@pytest.mark.parametrize(
    "what",
    ["datasets", "models", "methods", "augmentations", "schedules", "presets", "measures"],
)
def test_lists_are_names_and_lines(call, what):
    said = call("list", what, "--json")
    assert said.code == 0
    listed = said.json
    assert all(name and line and "\n" not in line for name, line in listed.items())
    lines = call("list", what).out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == list(listed)


def test_data_that_moved_is_pointed_at_and_a_finished_run_extended(call, own, images):
    record = call(*own, "--json").json["record"]
    images.rename(images.with_name("elsewhere"))
    lost = call("resume", record, "--epochs", 5)
    assert lost.code == commands.BAD_INPUT
    assert "say where it is: resume --dataset" in lost.sentence
    there = f"folder:{images.with_name('elsewhere')}"
    said = call("resume", record, "--epochs", 5, "--dataset", there, "--json")
    assert (said.code, said.json["status"]) == (0, "finished")
    assert said.json["record"] != record
    assert open_record(said.json["record"]).config["extended"] == "3"
    next(images.with_name("elsewhere").rglob("*.png")).unlink()
    other = call("resume", record, "--epochs", 6, "--dataset", there)
    assert other.code == commands.FAILED
    assert "is not what record" in other.err


def test_augmentations_are_compared_before_anything_else(call, images):
    for number in range(10, 120):
        picture(images / "red" / f"{number}.png", (180, 20, 20), number)
        picture(images / "blue" / f"{number}.png", (20, 20, 180), number)
    said = call("inspect", f"folder:{images}", "--augmentations", "--epochs", 1)
    assert said.code == 0, said.err
    assert "crop and flip" in said.out
    assert "is best here" in said.out
    found = call("inspect", f"folder:{images}", "--augmentations", "--epochs", 1, "--json").json
    assert [row["n"] for row in found["augmentations"]] == [3, 3, 3, 3]
    assert found["advice"] in said.out


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
    """A module in the working directory; gone from the lists afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "_table", dict(methods._table))
    # What another test of this process has registered under the same names is not here.
    monkeypatch.setattr(samplers.base, "_registered", {})
    (tmp_path / "ownmethods.py").write_text(OWN)
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
    assert [row["method"] for row in swept["summaries"]] == ["unif-SGD", "wavering"]
    assert [row["how"] for row in swept["summaries"]] == ["trained", "kept"]


@pytest.mark.usefixtures("own_methods")
def test_a_function_that_is_not_registered_is(call, quick, monkeypatch):
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        stopped = call(*quick, "--method", "ownmethods:plain", "--json")
    assert stopped.code == commands.INTERRUPTED
    record = stopped.json["record"]
    said = call("resume", record, "--method", "ownmethods.py:plain", "--json")
    assert (said.code, said.json["method"]) == (0, "plain")


@pytest.mark.usefixtures("own_methods")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nothing_here:mine", "'nothing_here' cannot be imported (ModuleNotFoundError"),
        ("ownmethods:wavring", "unknown method of 'ownmethods' 'wavring': did you mean 'wavering'"),
        ("ownmethods:bl", "a method is a function"),
        ("broken.py:mine", "'broken.py' cannot be imported (ZeroDivisionError"),
    ],
)
def test_a_module_that_has_no_such_method(call, quick, given, says):
    Path("broken.py").write_text("1 / 0")
    said = call(*quick, "--method", given)
    assert said.code == commands.BAD_INPUT
    assert says in said.sentence


# As a program


def program(*arguments: object, **options: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "budgetlab", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_parser_s_frames_are_taken_off(encoding):
    """They are drawn with other characters where the terminal knows only ASCII."""
    said = program("train", "--bugdet", "3", env=os.environ | {"PYTHONIOENCODING": encoding})
    out, err = said.communicate(timeout=60)
    assert (said.returncode, out) == (2, "")
    expected = "Unrecognized options: --bugdet, 3; did you mean --budget? (see budgetlab --help)"
    assert err == f"budgetlab: {expected}\n"


def test_help_shows_the_defaults():
    shown = program("train", "--help")
    out, err = shown.communicate(timeout=60)
    assert (shown.returncode, err) == (0, "")
    for flag in ("--dataset", "--budget-unit", "--sb-beta", "--label-noise", "--json"):
        assert flag in out
    assert "unif-SGD" in out


def test_a_program_that_is_told_to_end_leaves_a_record_that_resumes(call, quick, tmp_path):
    """SIGTERM, as a cluster sends it, stops like Ctrl-C."""
    running = program(*quick, "--epochs", 100_000, "--json")
    table = None
    for _ in range(600):
        time.sleep(0.1)
        table = next(iter((tmp_path / "runs").glob("*/epochs.csv")), None)
        if table is not None or running.poll() is not None:
            break
    assert table is not None, running.communicate()
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    summary = json.loads(out)
    assert summary["status"] == "stopped"
    assert "Traceback" not in err
    record = open_record(table.parent)
    assert record.status == "stopped"
    assert len(record.epochs) == summary["epochs"] >= 1
    assert record.samples.sizes["epoch"] == summary["epochs"]


def test_the_commands_leave_the_process_as_it_was(call, quick):
    """Notebooks call it too."""
    import warnings

    shown, handler = warnings.showwarning, signal.getsignal(signal.SIGTERM)
    call(*quick)
    call("train", "--budget", 2)
    assert warnings.showwarning is shown
    assert signal.getsignal(signal.SIGTERM) == handler
