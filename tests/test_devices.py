"""The machine: memory of a step is kept for the next, and threads are those that pay."""

import ctypes
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from same_results import same_results

import budgetlab as bl
from budgetlab import devices
from budgetlab.devices import STREAMS, numpy_generator, stream_seed
from budgetlab.records import open_record
from budgetlab.training import Run, loop

# Straight from the C library: what torch keeps in between decides by luck whether the blocks of
# the last step can be given back (with torch 2.6 they mostly cannot).
COUNT = """
import ctypes, resource
from budgetlab.devices import keep_freed_memory

c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
BLOCK = ctypes.c_size_t(2**24)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed_memory()
def like_a_step():
    held = [ctypes.c_void_p(c.malloc(BLOCK)) for _ in range(8)]
    for block in held:
        c.memset(block, 1, BLOCK)
    for block in held:
        c.free(block)

like_a_step()
before = faults()
for _ in range(10):
    like_a_step()
print(f'["{kept}", {faults() - before}]')
"""


def glibc() -> bool:
    try:
        return bool(ctypes.CDLL(None).mallopt)
    except (AttributeError, OSError, TypeError):
        return False


def told(code: str, **environment: str) -> object:
    """What a program prints in a process of its own, where nobody has chosen threads."""
    clean = {name: value for name, value in os.environ.items() if "MP_" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not glibc(), reason="only glibc can be told to keep memory")
def test_freed_memory_is_used_again_without_asking_the_system():
    without, with_it = told(COUNT, BUDGETLAB_KEEP_MEMORY="0"), told(COUNT)
    assert (without[0], with_it[0]) == ("False", "True")
    # Ten times 128 MiB, in pages of 4 kB or of 2 MB.
    assert without[1] >= 10 * 64
    assert with_it[1] < without[1] / 10


@pytest.mark.parametrize("missing", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_as_it_is(monkeypatch, missing):
    def no_library(_: None) -> None:
        raise missing

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert devices.keep_freed_memory.__wrapped__() is False


# Threads


@pytest.mark.parametrize(
    ("seconds", "most", "best"),
    [({1: 8, 2: 4.4, 4: 2.5, 8: 2}, 8, 8),  # alone on the machine
     ({1: 8, 2: 4.4, 4: 4.2, 8: 2}, 8, 2),  # two more save next to nothing
     ({1: 4, 2: 7}, 2, 1),  # a core is busy
     ({1: 6, 2: 4, 3: 2}, 3, 3),  # three cores
     ({1: 1}, 1, 1), ({1: 300, 2: 300}, 2, 1)],
)  # fmt: skip
def test_threads_are_those_with_which_a_step_is_fastest(monkeypatch, seconds, most, best):
    clock, before, steps = [0.0], torch.get_num_threads(), []

    def step():
        steps.append(torch.get_num_threads())
        clock[0] += seconds[steps[-1]] / 100

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert devices.fastest_threads(step, most) == best
    assert torch.get_num_threads() == before
    if max(seconds.values()) > 100:
        assert steps == [1, 2]  # a slow step is tried once


CHOICE = """
import json, os, torch
import budgetlab.devices as devices
asked = [devices.max_threads_to_try()]
torch.set_num_threads(torch.get_num_threads() + 1)
asked.append(devices.max_threads_to_try())
print(json.dumps([asked, os.environ.get("OMP_WAIT_POLICY"), os.environ.get("KMP_BLOCKTIME")]))
"""


def test_a_number_of_threads_that_the_user_gave_is_left_alone():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    (free, given), *spinning = told(CHOICE)
    assert free in (cores, cores // 2, os.cpu_count())
    assert given == 1
    # Nor do threads spin unless the user wants it.
    assert spinning == ["PASSIVE", "0"]
    asked = told(CHOICE, OMP_NUM_THREADS=str(cores), OMP_WAIT_POLICY="ACTIVE")
    assert asked == [[1, 1], "ACTIVE", None]


def test_the_choice_is_recorded_kept_on_resuming_and_left_to_the_run(config, monkeypatch):
    chosen = min(2, os.cpu_count())
    monkeypatch.setattr(devices, "max_threads_to_try", lambda: 2)
    monkeypatch.setattr(devices, "fastest_threads", lambda step, most: (step() and 0) or chosen)
    monkeypatch.setattr(loop, "_THREADS", {})
    seen = []
    run = Run(config, on_step=lambda run: seen.append(torch.get_num_threads()))
    first = iter(run)
    next(first)
    assert torch.get_num_threads() == 1
    first.close()
    record = open_record(run.writer.path)
    assert record.about["hardware"]["threads"] == chosen
    # Whatever would be chosen now.
    monkeypatch.setattr(devices, "fastest_threads", lambda step, most: 1)
    loop._THREADS.clear()
    resumed = Run.resume(record.path, on_step=run.on_step)
    list(resumed)
    assert set(seen) == {chosen}
    assert torch.get_num_threads() == 1


def test_trying_threads_changes_no_result(config, monkeypatch):
    plain = bl.train(config, out=config.out + "-plain", progress=False)
    tried = []
    monkeypatch.setattr(devices, "max_threads_to_try", lambda: 2)
    monkeypatch.setattr(loop, "_THREADS", {})
    monkeypatch.setattr(
        devices, "fastest_threads", lambda step, most: tried.extend([step()] * 2) or 1
    )
    same_results(plain, bl.train(config, progress=False))
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("flags", "isa", "precision"),
    [("avx512f avx512_bf16", isa, "bfloat16") for isa in (None, "ALL", "AVX512_CORE_BF16",
                                                          "AVX512_CORE_AMX")]
    + [("avx512f avx512_bf16", isa, "float32") for isa in ("AVX2", "avx512_core")]
    + [("fpu amx_bf16", None, "bfloat16"), ("fpu avx2 avx512f", None, "float32"),
       ("", None, "float32")],
)  # fmt: skip
def test_bfloat16_is_chosen_where_the_processor_has_it_and_may_use_it(
    monkeypatch, flags, isa, precision
):
    monkeypatch.setattr(devices, "_cpuinfo", lambda *fields: flags)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if isa:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    found = {asked: str(devices.choose_precision(asked, torch.device("cpu")))
             for asked in ("auto", "float32", "bfloat16")}  # fmt: skip
    assert found == {"auto": f"torch.{precision}", "float32": "torch.float32",
                     "bfloat16": "torch.bfloat16"}  # fmt: skip


# One seed, many streams: each its own, all the same everywhere


def test_streams_are_the_same_on_every_machine():
    # Written down once: if one of these changes, every record in the world becomes another.
    assert stream_seed(0, "init") == 7290039654019473914
    assert stream_seed(0, "order") == 6230928577095065118
    assert numpy_generator(3, "noise").integers(0, 1000, 3).tolist() == [104, 967, 942]
    for seed in (0, 1, 2**62, 2**63 - 1):
        seeds = [stream_seed(seed, name) for name in STREAMS]
        assert len(set(seeds)) == len(STREAMS)
        assert all(0 <= one < 2**63 for one in seeds)
    with pytest.raises(ValueError, match="unknown stream 'ordre': choose one of data"):
        stream_seed(0, "ordre")


def test_neighbouring_seeds_have_nothing_in_common():
    draws = np.stack([numpy_generator(seed, "order").random(1000) for seed in range(8)])
    correlation = np.corrcoef(draws) - np.eye(8)
    # Independent draws: standard error 1/sqrt(1000), 28 pairs.
    assert np.abs(correlation).max() < 4.5 / np.sqrt(1000)
