"""Thousands of damaged inputs: each either opens or is refused in one sentence.

``make fuzz`` tries as many as you like.
"""

import json
import os
import shlex
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from budgetlab import analysis, cli, data
from budgetlab.config import RunConfig
from budgetlab.data.images import read_images
from budgetlab.errors import InputError
from budgetlab.records import open_record
from budgetlab.records.writer import holder
from budgetlab.training import Run, resume

EXAMPLES = int(os.environ.get("BUDGETLAB_FUZZ", "30"))
PARTS = ("record.json", "epochs.csv", "thumbnails.npz", "predictions.npz", "state.pt", "chunk",
         "samples.zarr/zarr.json", "samples.zarr/loss/zarr.json")  # fmt: skip
IMAGES = ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm", "tga")
# What all mutations begin with: numbers and words that programs stumble over.
TOKENS = (b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"-1", b"1e999", b"NaN", b"null",
          b"[]", b"{}", b'""', b"true", b"9" * 30, b"'", b'"', b"\\", b",", b"\n", b"../../etc",
          b"<b>", b"\xc3\x28", b"\xed\xa0\x80", struct.pack("<q", 2**62))  # fmt: skip
VALUES = (None, True, -1, 0, 1, 2**70, 1e308, "", "auto", "NaN", "../..", "\ud800", [], {}, [[]],
          [1, 2], {"a": 1}, 0.5, "x" * 300)  # fmt: skip


class Targets:
    """Good input in a folder of its own, and what reads it once it was changed."""

    def __init__(self, folder: Path, data_root: Path):
        self.folder, self.images, self.npz = folder, folder / "images", folder / "mine.npz"
        self.run = Run(RunConfig(
            dataset="digits", limit=64, epochs=3, batch_size=16, budget=0.5, model="small",
            method="p-SGD", precision="float32", device="cpu", out=str(folder / "good"),
            data_root=str(data_root),
        ))  # fmt: skip
        for row in self.run:
            if row["epoch"] == 2:
                break
        self.run.writer.save_predictions(pd.DataFrame({"label": [0, 1], "predicted": [1, 1]}))
        self.run.writer.save_thumbnails(np.array([1, 2]), np.zeros((2, 8, 8, 1), np.uint8))
        self.good, self.record = self.run.writer.path, folder / "record"
        chunks = (self.good / "samples.zarr/loss/c").rglob("*")
        self.chunk = next(one for one in chunks if one.is_file()).relative_to(self.good)
        shutil.copytree(self.good, self.record)
        rng = np.random.default_rng(0)
        np.savez(self.npz, x=rng.integers(0, 255, (20, 8, 8, 3), dtype=np.uint8),
                 y=np.arange(20) % 2, classes=np.array(["a", "b"]))  # fmt: skip
        self.images.mkdir()
        pixels = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
        for kind in IMAGES:
            pixels.save(self.images / f"good.{kind}")
        (folder / "mini-imagenet" / "images").mkdir(parents=True)
        for name in ("n01.jpg", "n02.jpg"):
            pixels.save(folder / "mini-imagenet" / "images" / name)

    def part(self, name: str) -> Path:
        return self.record / (self.chunk if name == "chunk" else name)

    def seed(self, name: str) -> bytes:
        """Good bytes for this target."""
        if name in PARTS:
            return self.part(name).read_bytes()
        if name in IMAGES:
            return (self.images / f"good.{name}").read_bytes()
        return {
            "npz": self.npz.read_bytes(),
            "config": json.dumps(self.run.config.to_dict()).encode(),
            "command": b"train --method p-SGD --budget 0.3 --milestones 0.5 0.75 --seed 1",
            "table": b"filename,label\nn01.jpg,n01\nn02.jpg,n02\n",
            "lock": json.dumps({"process": 1, "host": "a", "since": "b"}).encode(),
        }[name]

    def feed(self, name: str, content: bytes) -> bool:
        """Whether it opened; otherwise it was refused in one sentence, or this raises."""
        read = self.read_record if name in PARTS else self.read_image if name in IMAGES else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(name, content) if read else getattr(self, f"read_{name}")(content)
        except InputError as error:
            message = str(error)
            assert message
            assert "\n" not in message, message
            assert len(message) < 2_000, message
            return False
        return True

    def read_record(self, name: str, content: bytes) -> None:
        file = self.part(name)
        before = file.read_bytes()
        file.write_bytes(content)
        try:
            if name == "state.pt":
                resume.load_state(self.run.loop, file)
                return
            record = open_record(self.record)
            for part in ("classes", "fingerprint", "probability_kind", "config", "summary",
                         "status", "epochs", "thumbnails", "predictions"):  # fmt: skip
                getattr(record, part)
            assert repr(record)
            record.samples.load()
            # Of runs that were not finished there is no average.
            frame = analysis.summaries([self.record]).assign(status="finished")
            analysis.table(analysis.results(frame))
            analysis.condition_columns(analysis.epochs([self.record]))
            RunConfig.from_dict(record.config)
        finally:
            file.write_bytes(before)

    def read_image(self, name: str, content: bytes) -> None:
        # Beside a good one: it alone must be left out, and the others come through.
        (self.images / f"bad.{name}").write_bytes(content)
        decoded = read_images(
            self.images, [f"bad.{name}", "good.png"], np.arange(2), stamp="", size=8,
            root=self.images, keep=False, progress=False,
        )  # fmt: skip
        assert 1 in decoded.kept
        assert len(decoded.x) + len(decoded.skipped) == 2

    def read_npz(self, content: bytes) -> None:
        self.npz.write_bytes(content)
        data.load(f"npz:{self.npz}", root=self.folder, progress=False)

    def read_config(self, content: bytes) -> None:
        # Not JSON is the business of the record; any JSON object is that of the config.
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            return
        if isinstance(values, dict):
            config = RunConfig.from_dict(values)
            assert len(config.id) == 10
            assert "/" not in config.folder_name

    def read_command(self, content: bytes) -> None:
        text = content.decode(errors="replace").replace("\0", " ")
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        if not {"-h", "--help"} & set(words):
            cli._parse(words)

    def read_table(self, content: bytes) -> None:
        for part in ("train", "val", "test"):
            (self.folder / "mini-imagenet" / f"{part}.csv").write_bytes(content)
        data.load("mini-imagenet", root=self.folder, progress=False)

    def read_lock(self, content: bytes) -> None:
        (self.folder / "a.lock").write_bytes(content)
        assert isinstance(holder(self.folder / "a.lock"), dict)


def mutated_json(content: bytes, cuts: list[tuple[int, int, int]]) -> bytes:
    """Change values of a JSON object: remove, rename or replace one by something else."""
    values = json.loads(content)
    for kind, place, number in cuts:
        inside = [values]
        for one in inside:
            inside += [part for part in one.values() if isinstance(part, dict) and part]
        if one := inside[place % len(inside)]:
            key = list(one)[number % len(one)]
            old = one.pop(key)
            if kind % 4:
                one[key + "x" * (kind % 4 == 1)] = old if kind % 4 == 1 else VALUES[place % 19]
    return json.dumps(values).encode()


def mutated(content: bytes, cuts: list[tuple[int, int, int]]) -> bytes:
    """Change bytes: each cut is a kind of change, a place and a number, all in [0, 2**16)."""
    changed = bytearray(content)
    for kind, place, number in cuts:
        at, token = place * (len(changed) + 1) // 2**16, TOKENS[number % len(TOKENS)]
        end, put = [
            (at + 1, bytes([number % 256])), (at + 1 + number % 40, b""), (at, token),
            (at + len(token), token), (len(changed), b""),
            (at, bytes(changed[at : at + number % 200])),
            (at + 1, bytes(byte ^ 1 << number % 8 for byte in changed[at : at + 1])),
        ][kind % 7]  # fmt: skip
        changed[at:end] = put
    return bytes(changed)


@pytest.fixture(scope="module")
def targets(tmp_path_factory, data_root: Path) -> Targets:
    return Targets(tmp_path_factory.mktemp("fuzz"), data_root)


NUMBERS = st.integers(0, 2**16 - 1)


@pytest.mark.parametrize("name", [*PARTS, *IMAGES, "npz", "config", "command", "table", "lock"])
def test_damaged_input_opens_or_is_refused_in_one_sentence(targets, name):
    good, counts = targets.seed(name), {True: 0, False: 0}
    assert targets.feed(name, good), "the undamaged one must open"

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 100,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=4), st.booleans())
    def feed(cuts, as_json):
        change = mutated_json if as_json and good.startswith(b"{") else mutated
        counts[targets.feed(name, change(good, cuts))] += 1

    feed()
    assert sum(counts.values()) >= EXAMPLES
    if name != "lock" and name not in IMAGES:
        assert counts[False], "nothing that it was fed with was damaged"
