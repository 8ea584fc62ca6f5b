"""One record, one trainer: held while it is trained, free however that ends; killed, resumed."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from same_results import same_results
from scripts import python

import budgetlab as bl
from budgetlab import augment, cli
from budgetlab.errors import RunError
from budgetlab.records.writer import InUse, hold, holder, is_held, lock_of
from budgetlab.training import Run


def go(run: Run) -> Path:
    for _ in run:
        pass
    return run.writer.path


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, MemoryError])
def test_a_record_is_held_while_it_is_trained_and_free_however_that_ends(config, error):
    def step(run: Run) -> None:
        assert holder(lock)["process"] == os.getpid()
        assert is_held(lock)
        if error:
            raise error("now")

    run = Run(config, on_step=step)
    lock = lock_of(run.writer.path)
    assert not is_held(lock)
    if error is None:
        go(run)
    else:
        with pytest.raises(BaseException, match=r"now|out of memory"):
            go(run)
    assert not is_held(lock)
    same_results(go(Run.resume(run.writer.path)), go(Run(config)))


TRAIN_AND_WAIT = """
import sys, time
from pathlib import Path
from budgetlab.records.writer import hold, lock_of
with hold(lock_of(Path(sys.argv[1]))) as ours:
    print(ours, flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_the_holder_dies(config, capsys):
    run = Run(config)
    for _ in run:
        break
    before = (run.writer.path / "record.json").read_bytes()
    other = subprocess.Popen(
        [sys.executable, "-c", TRAIN_AND_WAIT, str(run.writer.path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline() == "True\n"
    with pytest.raises(InUse, match=rf"is being trained by process {other.pid} on .*: wait until"):
        go(run)
    assert cli.main(["resume", str(run.writer.path), "--json"]) == 1
    said = capsys.readouterr()
    assert f"is being trained by process {other.pid}" in said.err
    assert (run.writer.path / "record.json").read_bytes() == before
    # A sweep leaves it to the other, and says that it is under way.
    assert bl.sweep(config, progress=False).counts == {"running": 1}
    # Nobody has to clear up after a process that was killed.
    other.kill()
    other.communicate()
    same_results(go(run), go(Run(config)))


def test_what_another_iterator_trained_meanwhile_is_not_trained_over(config):
    """One left in the middle, as after a notebook cell whose loop raised, gives way."""
    run = Run(config)
    left = iter(run)
    next(left)
    finished = (go(Run.resume(run.writer.path)) / "epochs.csv").read_bytes()
    same_results(run.writer.path, go(Run(config)))
    assert list(left) == []
    with pytest.raises(RunError, match="was written by somebody else since it was opened here"):
        go(run)
    assert (run.writer.path / "epochs.csv").read_bytes() == finished
    assert run.record.status == "finished"


def test_one_that_trains_in_another_thread_does_not_give_way(config):
    entered, free = threading.Event(), threading.Event()

    def wait(run: Run) -> None:
        entered.set()
        free.wait()

    run = Run(config, on_step=wait)
    other = threading.Thread(target=go, args=(run,), daemon=True)
    other.start()
    entered.wait()
    with pytest.raises(InUse, match=f"by process {os.getpid()}"):
        go(Run.resume(run.writer.path))
    free.set()
    other.join()
    assert run.record.status == "finished"


def test_a_lock_that_is_a_link_is_not_followed(config, tmp_path):
    """Out of a stranger's record: it may point anywhere."""
    victim = tmp_path / "precious"
    victim.write_text("mine")
    run = Run(config)
    lock_of(run.writer.path).symlink_to(victim)
    with pytest.raises(RunError, match="cannot be written"):
        go(run)
    lock_of(run.writer.path).unlink()
    os.link(victim, lock_of(run.writer.path))
    go(run)
    assert victim.read_text() == "mine"
    # What one says is never relied on.
    lock = tmp_path / "one.lock"
    for content in ("", "{", "[1]", "[" * 100_000, '{"process": "x"}'):
        lock.write_text(content)
        assert isinstance(holder(lock), dict)
        with hold(lock) as ours:
            assert ours
            assert holder(lock)["process"] == os.getpid()


# Killed with ``kill -9`` at any moment, in the write of a record too: nothing is lost.
# ``make soak`` kills every method with every augmentation, and one run at every moment; that
# every method resumes from its state to the same result is shown in test_training.py.

SCRIPT = Path(__file__).with_name("kill_and_resume.py")
SOAK = os.environ.get("BUDGETLAB_SOAK", "") not in ("", "0")


@pytest.mark.timeout(7200 if SOAK else 300)
def test_killed_runs_go_on_bit_for_bit():
    some, all_of_them = "--pairs 3 --every-moment 80", "--every-pair --times 3 --every-moment 1"
    done = python(SCRIPT, *(all_of_them if SOAK else some).split(), timeout=7000)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["pairs"] == (counts["methods"] * len(augment.names()) if SOAK else 3)
    assert counts["kills"] > counts["pairs"]
    assert counts["lost"] == 0
    # Steps, and a good many files for each: the kills do fall into the writing of records.
    assert counts["moments"] > 100 * counts["pairs"]
