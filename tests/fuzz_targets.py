"""What is fed with damaged input: each call either opens it or refuses it in one sentence."""

import json
import shlex
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from budgetlab import analysis, cli, data
from budgetlab.config import RunConfig
from budgetlab.data.images import read_images
from budgetlab.errors import InputError
from budgetlab.records import open_record
from budgetlab.records.writer import holder
from budgetlab.training import Run, resume

# What all mutations begin with: numbers and words that programs stumble over.
TOKENS = (b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"-1", b"1e999", b"NaN", b"null",
          b"[]", b"{}", b'""', b"true", b"9" * 30, b"'", b'"', b"\\", b",", b"\n", b"../../etc",
          b"<b>", b"\xc3\x28", b"\xed\xa0\x80", struct.pack("<q", 2**62))  # fmt: skip


class Targets:
    """Good input in a folder of its own, and what reads it once it was changed.

    Attributes
    ----------
    seeds
        Good bytes by the name of the target.
    """

    def __init__(self, folder: Path, data_root: Path):
        self.folder = folder
        self.run = Run(self._config(folder, data_root))
        for row in self.run:
            if row["epoch"] == 2:
                break
        self.run.writer.save_predictions(pd.DataFrame({"label": [0, 1], "predicted": [1, 1]}))
        self.run.writer.save_thumbnails(np.array([1, 2]), np.zeros((2, 8, 8, 1), np.uint8))
        self.good = self.run.writer.path
        self.npz = folder / "mine.npz"
        rng = np.random.default_rng(0)
        np.savez(self.npz, x=rng.integers(0, 255, (20, 8, 8, 3), dtype=np.uint8),
                 y=np.arange(20) % 2, classes=np.array(["a", "b"]))  # fmt: skip
        self.images = folder / "images"
        self.images.mkdir()
        self.image_seeds = self._draw()
        chunk = next(one for one in (self.good / "samples.zarr/loss/c").rglob("*") if one.is_file())
        self.chunk = chunk.relative_to(self.good)
        self.seeds = {
            **{name: (self.good / name).read_bytes() for name in self._parts()},
            "npz": self.npz.read_bytes(),
            "config": json.dumps(self.run.config.to_dict()).encode(),
            "command": b"train --method p-SGD --budget 0.3 --milestones 0.5 0.75 --seed 1",
            "table": b"filename,label\nn01.jpg,n01\nn02.jpg,n02\n",
            "lock": json.dumps({"process": 1, "host": "a", "since": "b"}).encode(),
            **{f"image {kind}": content for kind, content in self.image_seeds.items()},
        }

    def _parts(self) -> tuple[str, ...]:
        return ("record.json", "epochs.csv", "thumbnails.npz", "predictions.npz", "state.pt",
                str(self.chunk), "samples.zarr/zarr.json",
                "samples.zarr/loss/zarr.json")  # fmt: skip

    @staticmethod
    def _config(folder: Path, data_root: Path) -> RunConfig:
        return RunConfig(dataset="digits", limit=64, epochs=3, batch_size=16, budget=0.5,
                         model="small", method="p-SGD", precision="float32", device="cpu",
                         out=str(folder / "good"), data_root=str(data_root))  # fmt: skip

    def _draw(self) -> dict[str, bytes]:
        pixels = np.random.default_rng(1).integers(0, 255, (12, 12, 3), dtype=np.uint8)
        found = {}
        for kind in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm", "tga"):
            file = self.images / f"good.{kind}"
            Image.fromarray(pixels).save(file)
            found[kind] = file.read_bytes()
        return found

    def feed(self, name: str, content: bytes) -> bool:
        """Give one input to its target; True where it opened, False where it was refused.

        Raises
        ------
        AssertionError
            If it was refused in anything but one sentence.
        Exception
            Anything that a user would see as a traceback.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._reader(name)(content)
        except InputError as error:
            message = str(error)
            assert message
            assert "\n" not in message, message
            assert len(message) < 2_000, message
            return False
        return True

    def _reader(self, name: str) -> Callable[[bytes], object]:
        if name in self._parts():
            return lambda content: self._read_record(name, content)
        kind, _, ending = name.partition(" ")
        if kind == "image":
            return lambda content: self._read_image(ending, content)
        return {"npz": self._read_npz, "config": self._read_config, "command": self._read_command,
                "table": self._read_table, "lock": self._read_lock}[name]  # fmt: skip

    def _read_record(self, name: str, content: bytes) -> None:
        path = self.folder / "record"
        if not path.exists():
            shutil.copytree(self.good, path)
        before = (path / name).read_bytes()
        (path / name).write_bytes(content)
        try:
            if name == "state.pt":
                resume.load_state(self.run.loop, path / name)
                return
            record = open_record(path)
            _ = repr(record), record.classes, record.fingerprint, record.probability_kind
            _ = (
                record.config,
                record.summary,
                record.status,
                record.epochs,
                record.thumbnails,
                record.predictions,
            )
            record.samples.load()
            frame = analysis.summaries([path])
            analysis.table(analysis.results(frame))
            analysis.condition_columns(analysis.epochs([path]))
            RunConfig.from_dict(record.config)
        finally:
            (path / name).write_bytes(before)

    def _read_image(self, ending: str, content: bytes) -> None:
        # Beside a good one: it alone must be left out, and the others come through.
        (self.images / f"bad.{ending}").write_bytes(content)
        decoded = read_images(
            self.images, [f"bad.{ending}", "good.png"], np.arange(2), stamp="", size=8,
            root=self.images, keep=False, progress=False,
        )  # fmt: skip
        assert 1 in decoded.kept
        assert len(decoded.x) + len(decoded.skipped) == 2

    def _read_npz(self, content: bytes) -> None:
        self.npz.write_bytes(content)
        data.load(f"npz:{self.npz}", root=self.folder, progress=False)

    def _read_config(self, content: bytes) -> None:
        # Not JSON is the business of the record; any JSON object is that of the config.
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            return
        if isinstance(values, dict):
            config = RunConfig.from_dict(values)
            assert len(config.id) == 10
            assert "/" not in config.folder_name

    def _read_command(self, content: bytes) -> None:
        text = content.decode(errors="replace").replace("\0", " ")
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        if not {"-h", "--help"} & set(words):
            cli._parse(words)

    def _read_table(self, content: bytes) -> None:
        top = self.folder / "data" / "mini-imagenet"
        if not top.exists():
            (top / "images").mkdir(parents=True)
            for name in ("n01.jpg", "n02.jpg"):
                (top / "images" / name).write_bytes(self.image_seeds["jpg"])
        for part in ("train", "val", "test"):
            (top / f"{part}.csv").write_bytes(content)
        data.load("mini-imagenet", root=self.folder / "data", progress=False)

    def _read_lock(self, content: bytes) -> None:
        file = self.folder / "a.lock"
        file.write_bytes(content)
        assert isinstance(holder(file), dict)


VALUES = (None, True, -1, 0, 1, 2**70, 1e308, "", "auto", "NaN", "../..", "\ud800", [], {}, [[]],
          [1, 2], {"a": 1}, 0.5, "x" * 300)  # fmt: skip


def mutated_json(content: bytes, cuts: list[tuple[int, int, int]]) -> bytes:
    """Change values of a JSON object: remove, rename or replace one by something else."""
    values = json.loads(content)
    for kind, place, number in cuts:
        inside = [values]
        for one in inside:
            inside += [part for part in one.values() if isinstance(part, dict) and part]
        one = inside[place % len(inside)]
        if not one:
            continue
        key = list(one)[number % len(one)]
        match kind % 4:
            case 0:
                del one[key]
            case 1:
                one[key + "x"] = one.pop(key)
            case _:
                one[key] = VALUES[place % len(VALUES)]
    return json.dumps(values).encode()


def mutated(content: bytes, cuts: list[tuple[int, int, int]]) -> bytes:
    """Change bytes: each cut is a kind of change, a place and a number, all in [0, 2**16)."""
    changed = bytearray(content)
    for kind, place, number in cuts:
        at = place * (len(changed) + 1) // 2**16
        token = TOKENS[number % len(TOKENS)]
        match kind % 7:
            case 0:
                changed[at : at + 1] = bytes([number % 256])
            case 1:
                del changed[at : at + 1 + number % 40]
            case 2:
                changed[at:at] = token
            case 3:
                changed[at : at + len(token)] = token
            case 4:
                del changed[at:]
            case 5:
                changed[at:at] = changed[at : at + number % 200]
            case 6 if at < len(changed):
                changed[at] ^= 1 << number % 8
    return bytes(changed)


torch.set_num_threads(1)
