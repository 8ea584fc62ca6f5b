"""A sitting on a GPU, rehearsed on a CPU: whatever the moment it ends, what is there is whole."""

import json
import math
import random
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_images import write_classes

from budgetlab.errors import InputError
from budgetlab.records import open_record
from experiments import gpu, gpu_checks, gpu_runs, tables

ROOT = Path(__file__).parents[1]
FOREVER = {"last": math.inf, "end": math.inf}


class Here(Executor):
    """Does what it is given at once, in this process."""

    def __init__(self, workers):
        assert workers > 0

    def submit(self, function, /, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture
def plan(data_root):
    runs = gpu_runs.paper("digits", toy=True, data_root=str(data_root))
    return [run for _, some in runs for run in some][:4]


def stopping_after(questions, monkeypatch):
    """A clock that says for so many questions that it is early."""
    left = iter(range(questions))
    monkeypatch.setattr(gpu_runs, "now", lambda: 0.0 if next(left, None) is not None else 1.0)


def require_readable(out):
    """Everything that can be seen in the folder of a sitting can be read to its end."""
    told = json.loads((out / "progress.json").read_text())
    said = (out / "log.txt").read_text()
    assert said.startswith("What came, and what did not")
    assert said.endswith("\n")
    assert set(told["parts"]) <= {*gpu.COMMANDS, *gpu.TABLES}
    require_records(out)


def require_records(out):
    for table in out.glob("*.csv"):
        rows = pd.read_csv(table)
        assert rows["key"].is_unique
        assert rows.notna()["test_accuracy"].all()
    for path in (out / "records").glob("[!.]*"):
        record = open_record(path)
        assert record.status == "finished"
        assert record.about["thinned"]["samples"] <= gpu_runs.KEPT["samples"]
    for path in (out / "runs").glob("*/record.json"):
        open_record(path.parent).epochs  # noqa: B018


def results(table):
    rows = pd.read_csv(table).drop(columns=["seconds"])
    return rows.sort_values("key", ignore_index=True)


def test_sittings_add_up_to_what_one_would_have_brought(plan, tmp_path, monkeypatch):
    whole = gpu_runs.Table(tmp_path / "whole.csv")
    gpu_runs.run_session(plan, whole, tmp_path / "whole", workers=1, **FOREVER, say=print,
                         executor=Here)  # fmt: skip
    out, said = tmp_path / "parts", []
    for _ in range(40):
        stopping_after(2, monkeypatch)
        table = gpu_runs.Table(out / "paper.csv")
        gpu_runs.run_session(plan, table, out, workers=2, last=0.5, end=9, say=said.append,
                             executor=Here)  # fmt: skip
        require_records(out)
        if len(table.rows) == len(plan):
            break

    assert any("to be gone on with" in each for each in said)
    assert not any("FAILED" in each for each in said)
    gpu_runs.run_session(plan, gpu_runs.Table(out / "paper.csv"), out, workers=1, **FOREVER,
                 say=print, executor=Here)  # fmt: skip
    assert list((out / "runs").iterdir()) == []
    assert len(list((out / "records").iterdir())) == len(plan)
    pd.testing.assert_frame_equal(results(out / "paper.csv"), results(tmp_path / "whole.csv"))


def test_a_run_that_failed_or_cannot_be_gone_on_with_ends_nothing(plan, tmp_path):
    out, said = tmp_path / "out", []
    broken = plan[0].replace(budget=0.001)
    half = out / "runs" / plan[1].folder_name
    half.mkdir(parents=True)  # killed before a word was written
    table = gpu_runs.Table(out / "paper.csv", tmp_path / "results" / "paper.csv")
    gpu_runs.run_session([broken, *plan[1:3]], table, out, workers=1, **FOREVER, say=said.append,
                 executor=Here)  # fmt: skip
    assert "FAILED, InputError" in said[0]
    for file in table.files:
        assert set(pd.read_csv(file)["key"]) == {tables.key(run) for run in plan[1:3]}


def test_a_process_that_ends_is_replaced_and_its_runs_are_trained(plan, tmp_path):
    made, said = [], []

    class Dying(Here):
        def submit(self, function, /, *arguments):
            if function is gpu_runs.train and len(made) == 1:
                future = Future()
                future.set_exception(BrokenProcessPool())
                return future
            return super().submit(function, *arguments)

    def make(workers):
        return made.append(Dying(workers)) or made[-1]

    table = gpu_runs.Table(tmp_path / "paper.csv")
    gpu_runs.run_session(plan[:3], table, tmp_path, workers=2, **FOREVER, say=said.append,
                         executor=make)  # fmt: skip
    assert len(table.rows) == 3
    assert "all are started anew" in said[0]
    assert len(made) == 2


# A sitting with two quick commands and its runs in the process itself, so that its whole length
# is a matter of seconds.
QUICK = """
import sys
sys.path.insert(0, 'tests')
from test_gpu_sitting import Here
from experiments import gpu, gpu_runs
gpu_runs.processes = Here
quick = gpu.Command("quick", (), 1, 1, 0)
gpu.COMMANDS = {"images": gpu.COMMANDS["images"], "steps": quick, "profile": quick}
real = gpu.arguments_of
gpu.arguments_of = lambda name, *rest: (
    real(name, *rest) if name == "images" else [sys.executable, "-c", f"print('{name}')"]
)
print("ready", flush=True)
sys.exit(gpu.main(sys.argv[1:]))
"""


def quick_sitting(out, images, minutes):
    command = [sys.executable, "-c", QUICK, "--toy", "--minutes", str(minutes), "--out", str(out),
               "--images", str(images)]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_whenever_it_is_killed_what_is_there_is_whole_and_goes_on(little, tmp_path):
    out = tmp_path / "out"
    sitting = quick_sitting(out, little, 10)
    assert sitting.stdout.readline() == b"ready\n"
    time.sleep(random.Random(0).uniform(0.05, 3))
    sitting.kill()
    sitting.communicate()
    if (out / "progress.json").exists():
        require_readable(out)
    finished = quick_sitting(out, little, 10)
    _, errors = finished.communicate()
    assert finished.returncode == 0, errors.decode()
    require_readable(out)
    assert not list(out.rglob(".*.csv.*")) + list(out.glob(".*.*"))
    parts = json.loads((out / "progress.json").read_text())["parts"]
    assert {part["status"] for part in parts.values()} == {"done"}
    assert len(pd.read_csv(out / "paper.csv")) == 9
    assert list((out / "runs").iterdir()) == []


def test_a_real_sitting_ends_when_it_says_and_says_what_did_not_come(little, tmp_path):
    command = [sys.executable, "-m", "experiments.gpu", "--toy", "--minutes", "0.25",
               "--out", str(tmp_path), "--images", str(little)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    require_readable(tmp_path)
    said = re.findall(r"^[-\d]+ ([:\d]+)  ", done.stderr, flags=re.M)
    took = pd.Timedelta(said[-1]) - pd.Timedelta(said[0])
    assert took % pd.Timedelta("1D") < pd.Timedelta(seconds=15 + 10)
    log = (tmp_path / "log.txt").read_text()
    assert re.search(r"^profile +(cut off|done|FAILED)", log, flags=re.M)
    assert (tmp_path / "profile" / "output.txt").is_file()
    assert log.strip().endswith(("the time is up", "all is done"))


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """Three classes of small images, in an archive."""
    top = tmp_path_factory.mktemp("images") / "little"
    for part, count in {"train": 80, "test": 10}.items():
        write_classes(top / part, "a", "b", "c", count=count, size=(8, 8))
    archive = top.with_name("little.tar.xz")
    with tarfile.open(archive, "w:xz") as file:
        file.add(top, "little")
    return archive


def test_images_are_found_in_an_archive_and_in_a_folder(little, tmp_path):
    assert gpu_checks.images(little, tmp_path) == "240 training and 30 test images"
    unpacked = tmp_path / "images" / "little"
    assert gpu_checks.dataset_of(little, tmp_path) == f"folder:{unpacked}"
    assert gpu_checks.images(unpacked, tmp_path / "other") == "240 training and 30 test images"
    assert not (tmp_path / "other" / "images").exists()
    with pytest.raises(InputError, match="there is no"):
        gpu_checks.images(tmp_path / "gone", tmp_path)
    with pytest.raises(InputError, match="no tar archive"):
        gpu_checks.images(unpacked / "train" / "a" / "img00.png", tmp_path)


def test_the_same_seed_is_compared_bit_for_bit_and_a_profile_names_the_operations(tmp_path):
    said = gpu_checks.determinism(tmp_path, models=["tiny"], steps=16, batch=8)
    rows = pd.read_csv(tmp_path / "determinism.csv")
    assert said.startswith("4 of 4 pairs")
    assert rows["same"].all()
    assert not rows["graph_in_use"].any()
    one = {"a": np.array([1.0, np.nan]), "b": np.array([True, False])}
    two = {"a": np.array([1.5, np.nan]), "b": np.array([True, False])}
    told = gpu_checks._compared(one, two)
    assert told == {"same": False, "arrays": 2, "differ": 1, "largest": 0.5}
    gpu_checks.profile(tmp_path, models=["tiny"], steps=2, batch=8)
    text = (tmp_path / "profile.txt").read_text()
    assert "tiny, batch 8, without graphs: 2 steps" in text
    assert "convolution" in text


def test_the_plan_is_in_the_order_that_was_asked_for_with_what_it_will_take(tmp_path, capsys):
    given = ["--minutes", "15", "--out", str(tmp_path / "none"), "--plan"]
    assert gpu.main([*given, "--images", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    order = [said.index(f"({letter})") for letter in "dbcae"]
    assert order == sorted(order)
    assert "estimates for an H100" in said
    assert not (tmp_path / "none").exists()
    gpu.main(given)
    assert "LEFT OUT without --images" in capsys.readouterr().out
    runs = [run for _, some in gpu_runs.paper("folder:x") for run in some]
    keys = [tables.key(run) for run in runs]
    assert len(keys) == len(set(keys))
    assert {run.model for run in runs} == {"resnet18"}
    wanted = [("unif-SGD", 1.0), ("unif-SGD", 0.3), ("selective-backprop", 0.3)]
    plain = {(run.method, run.budget): run for run in runs
             if (run.budget_unit, run.augmentation) == ("iterations", "standard")}  # fmt: skip
    full, third, selective = (gpu_runs.expected_seconds(plain[one]) for one in wanted)
    # ResNet-18 on 32x32: 0.56 G multiply-adds forward, three times that with the backward.
    assert full == pytest.approx(1e7 * 3.34e9 / (0.12 * 989e12), rel=0.05)
    assert 0.3 * full < third < 0.31 * full
    assert selective == pytest.approx(2.1 * third, rel=0.1)


def test_parts_can_be_chosen_and_what_has_a_row_is_not_planned(little, tmp_path, capsys):
    given = ["--minutes", "9", "--toy", "--images", str(little), "--out", str(tmp_path / "out")]
    gpu.main([*given, "--plan", "--parts", "profile", "paper"])
    said = capsys.readouterr().out
    assert re.findall(r"^(\w+)\b.*(?:about|side by side)", said, flags=re.M) == [
        "images", "profile", "paper"]  # fmt: skip
    planned = sum(map(int, re.findall(r"(\d+) runs, about", said)))
    assert not (tmp_path / "out").exists()
    runs = [run for _, some in gpu_runs.paper(gpu_checks.dataset_of(little, tmp_path / "out"),
                                             toy=True) for run in some]  # fmt: skip
    assert planned == len(runs)
    done = pd.DataFrame({"key": [tables.key(run) for run in runs[:4]]})
    (tmp_path / "out").mkdir()
    done.to_csv(tmp_path / "out" / "paper.csv", index=False)
    gpu.main([*given, "--plan", "--parts", "paper"])
    said = capsys.readouterr().out
    assert "without the 4 that are in the table" in said
    assert sum(map(int, re.findall(r"(\d+) runs, about", said))) == planned - 4


def test_a_run_that_could_not_finish_does_not_keep_others_from_it(plan, tmp_path, monkeypatch):
    """Two runs of 10 s each on a GPU that they share, and 25 s left: no third is begun."""
    clock, begun, most = [0.0], [], []

    class Later(Executor):
        def submit(self, function, /, config, *_):
            future = Future()
            if function is gpu_runs.train:
                begun.append((clock[0], future, config))
                most.append(sum(not each.done() for _, each, _ in begun))
            else:
                future.set_result(gpu_runs.Outcome())
            return future

    def pass_time(under_way, **_):
        oldest = next(future for _, future, _ in begun if not future.done())
        clock[0] += 10
        oldest.set_result(gpu_runs.Outcome(stopped="at its end"))
        return {oldest}, set()

    monkeypatch.setattr(gpu_runs, "now", lambda: clock[0])
    monkeypatch.setattr(gpu_runs, "wait", pass_time)
    monkeypatch.setattr(gpu_runs, "expected_seconds", lambda run: 10.0)
    gpu_runs.run_session(plan, gpu_runs.Table(tmp_path / "paper.csv"), tmp_path, workers=2,
                         last=25.0, end=40.0, say=print, executor=lambda _: Later())  # fmt: skip
    assert [time for time, *_ in begun] == [0, 0, 20]
    assert max(most) == 2


def test_without_a_gpu_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--toy rehearses"):
        gpu.main(["--minutes", "1", "--out", str(tmp_path)])
    log = gpu.Log(tmp_path, toy=True)
    log.mark("paper", "out", "no images")
    with pytest.raises(InputError, match="holds a rehearsal"):
        gpu.Log(tmp_path, toy=False)
