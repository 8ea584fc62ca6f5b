"""Samples dropped, relabelled and marked from a file beside the data; copies found and dropped."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import budgetlab as bl
from budgetlab.data.copies import count_copies, perceptual_hash
from budgetlab.errors import InputError


def smooth(seed, size=48):
    """An image with shapes in it, as photographs have, not noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def top(tmp_path):
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(20):
            smooth(100 * k + number).save(tmp_path / "pets" / name / f"{number:02}.png")
    return tmp_path / "pets"


def read(top, **options):
    return bl.data.load(f"folder:{top}", root=top.parent / "root", progress=False, **options)


def test_edits_lie_beside_the_data_and_are_applied_on_loading(top, config):
    before = read(top)
    files = sorted(top.rglob("*"))
    gone, moved, odd = before.train.metadata.origin[[0, 20, 3]]
    held = before.test.metadata.origin[0]
    edits = bl.data.Edits.beside(f"folder:{top}")
    edits.drop([gone, held]).relabel({moved: "cat"}).mark([odd], note="dark")
    assert edits.save() == top.parent / "pets.edits.csv"
    assert sorted(top.rglob("*")) == files
    again = bl.data.Edits(top.parent / "pets.edits.csv")
    assert again.counts == {"drop": 2, "relabel": 1, "mark": 1}
    for given in (again, str(again.path), again.path):
        after = read(top, edits=given)
        assert after.settings["edits"] == str(again.path)
        train = after.train.metadata
        assert set(before.train.metadata.origin) - set(train.origin) == {gone}
        # The samples that are tested on stay the others, whatever is dropped.
        assert set(before.test.metadata.origin) - set(after.test.metadata.origin) == {held}
        assert after.train.y[train.index[train.origin == moved][0]] == 0
        assert train.origin[train.marked].tolist() == [odd]
        assert train.origin[train.relabelled].tolist() == [moved]
    # They reach a run by its config, and its record the edits.
    own = config.replace(dataset=f"folder:{top}", limit=0, epochs=2, batch_size=8, model="small")
    run = bl.Run(own.replace(edits=str(again.path)))
    list(run)
    assert run.config.id != own.id
    assert gone not in run.record.samples["origin"].values
    assert run.record.config["edits"] == str(again.path)
    ranked = bl.analysis.triage(run.record)
    assert bl.data.Edits(again.path).drop(ranked.head(2)).counts["drop"] >= 3
    assert read(top, edits=again.undo([gone, held, moved, odd])).fingerprint == before.fingerprint
    # Titles and actions may be written anyhow.
    again.path.write_text(f"Origin,action\n{gone}, DROP \n")
    assert len(read(top, edits=again.path).train) == len(before.train) - 1


def test_the_later_of_two_edits_wins_and_a_limit_counts_what_is_left(top):
    origin = read(top).train.metadata.origin[0]
    edits = bl.data.Edits(top.parent / "e.csv").drop([origin]).relabel({origin: "dog"})
    data = read(top, edits=edits)
    assert data.train.y[data.train.metadata.index[data.train.metadata.origin == origin][0]] == 1
    fifteen = read(top).train.metadata.origin[:15]
    few = read(top, edits=bl.data.Edits(top.parent / "f.csv").drop(fifteen), limit=17)
    assert len(few.train) == 17
    assert not set(few.train.metadata.origin) & set(fifteen)
    with pytest.raises(InputError, match="more than the 17"):
        read(top, edits=bl.data.Edits(top.parent / "f.csv").drop(fifteen), limit=18)


def test_right_labels_can_be_told_by_a_table_and_built_in_data_by_index(top):
    origins = read(top).train.metadata.origin
    table = pd.DataFrame({"origin": origins[:3], "action": "true", "label": ["cat", "dog", "cat"]})
    table.to_csv(top.parent / "truth.csv", index=False)
    train = read(top, edits=top.parent / "truth.csv").train
    assert torch.equal(train.y, read(top).train.y)
    assert train.metadata.is_noisy[:3].tolist() == [False, True, False]
    assert train.metadata.is_noisy[3:].isna().all()
    assert bl.data.Edits(top.parent / "e.csv").true_label({"a": "cat"}).counts == {"true": 1}
    digits = bl.data.load("digits", progress=False)
    edits = bl.data.Edits("none.csv").drop(digits.train.metadata[["index"]].head(5))
    after = bl.data.load("digits", edits=edits, progress=False)
    assert len(after.train) == len(digits.train) - 5
    assert repr(edits) == "Edits('none.csv': drop 5)"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("origin,action,label\nnone.png,drop,\n", "name 1 sample missing from the data, first"),
        ("origin,action,label\ncat/00.png,remove,\n", "row 1: unknown action 'remove': choose"),
        ("origin,action,label\ncat/00.png,relabel,cow\n", "unknown class 'cow'"),
        ("file,action\ncat/00.png,drop\n", "need the columns origin and action"),
        ("", "cannot be read as a table"),
        (
            "origin,action\n"
            + "".join(
                f"{kind}/{number:02}.png,drop\n" for kind in ("cat", "dog") for number in range(99)
            ),
            "leave no train samples",
        ),
        ("origin,action,label\ncat/00.png,true,\n", "of 'cat/00.png': unknown class ''"),
        (None, "are missing"),
    ],
)
def test_edits_that_cannot_be_are_refused(content, says, top):
    if content is not None:
        (top.parent / "e.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        read(top, edits=top.parent / "e.csv")
    assert says in str(caught.value)


def test_what_is_no_list_of_samples_or_no_place_is_refused(tmp_path):
    edits = bl.data.Edits(tmp_path / "no" / "where.csv")
    for call, says in ((lambda: edits.drop("a"), "is one text"),
                       (lambda: edits.drop(pd.DataFrame({"a": [1]})), "no column origin"),
                       (lambda: bl.data.Edits.beside("digits"), "lies in no place"),
                       (edits.save, "cannot be written")):  # fmt: skip
        with pytest.raises(InputError, match=says):
            call()


# Copies


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 60),
        lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
        lambda image: image.point(lambda value: int(0.85 * value)),
    ],
    ids=["compressed", "larger", "darker"],
)
def test_near_copies_are_found_and_strangers_are_not(change, top):
    """A leak: near copies of test images among those trained on."""
    before = read(top, size=48)
    assert before.intake.copies == {}
    held = before.test.metadata.origin.tolist()
    for number, origin in enumerate(held):
        name = origin.split("/")[0]
        change(Image.open(top / origin)).save(top / name / f"again{number}.png")
    data = read(top, size=48)
    copies = bl.data.find_copies(data)
    assert copies.groupby("group").size().tolist() == [2] * len(held)
    for _, (first, second) in copies.groupby("group")["origin"]:
        pair = sorted((first, second))
        assert held[int(pair[1].split("again")[1][:-4])] == pair[0]
    clean = read(top, size=48, drop_copies="near")
    left = bl.data.find_copies(clean)
    assert not (left.split == "train").any()
    assert (
        len(clean.train)
        == len(data.train) - (copies.query("split == 'train'").kind != "first").sum()
    )
    assert torch.equal(clean.test.x, data.test.x)


@pytest.mark.parametrize("ratio", [(1, 1), (16, 9)])
def test_copies_of_another_aspect_ratio_are_found(ratio, tmp_path):
    """All images are cut to squares: of each the middle is left, which is not the same."""
    for number in range(30):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = smooth(number, 90).crop((0, 15, 90, 75))
        image.save(folder / f"{number:02}.png")
        if number < 6:
            width = round(60 * ratio[0] / ratio[1])
            again = image.resize((width, 60), Image.Resampling.BICUBIC)
            jpeg(again, 80).save(folder / f"{number:02}-again.png")
    data = read(tmp_path / "photos")
    copies = bl.data.find_copies(data, stretched=True)
    pairs = [sorted(one[2:4] for one in origins) for _, origins in copies.groupby("group").origin]
    assert sorted(pairs) == [[f"{n:02}"] * 2 for n in range(6)]
    assert sum(data.intake.copies.values()) == 6


def test_exact_copies_within_and_across_are_counted_and_dropped(top):
    for name, times in (("cat/00.png", 3), ("cat/01.png", 1), ("dog/02.png", 2)):
        for number in range(times):
            copy = top / name.replace(".png", f"-{number}.png")
            copy.write_bytes((top / name).read_bytes())
    (top / "dog" / "as_dog.png").write_bytes((top / "cat" / "05.png").read_bytes())
    data = read(top)
    copies = bl.data.find_copies(data, near=False)
    assert len(copies) == 4 + 2 + 3 + 2
    assert sum(n for kind, n in count_copies(copies).items() if kind.startswith("exact")) == 7
    assert data.intake.copies["groups whose labels differ"] == 1
    leaks = sum(n for kind, n in count_copies(copies).items() if "of test in train" in kind)
    said = [one for one in data.intake.odd if one.startswith("copies of held-out samples")]
    assert len(said) == (leaks > 0)
    kept = read(top, drop_copies="exact")
    both = [row.tobytes() for part in (kept.train, kept.test) for row in part.x.numpy()]
    inside = {row.tobytes() for row in kept.test.x.numpy()}
    train = [row.tobytes() for row in kept.train.x.numpy()]
    assert len(train) == len(set(train))
    assert not inside & set(train)
    assert len(set(both)) == 40


def test_copies_by_an_embedding_and_hashes_of_one_colour_and_of_any_size(top):
    data = read(top)
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(len(getattr(data, name)), 8)) for name in ("train", "test")}
    vectors["train"][[4, 9]] = 2 * vectors["test"][1]
    copies = bl.data.find_copies(data, embedding=vectors, likeness=0.999)
    assert copies[["split", "sample"]].to_numpy().tolist() == [["test", 1], ["train", 4],
                                                                ["train", 9]]  # fmt: skip
    with pytest.raises(InputError, match="one vector for each sample"):
        bl.data.find_copies(data, embedding=vectors | {"test": vectors["train"]})
    flat = torch.full((3, 3, 5, 7), 9, dtype=torch.uint8)
    assert len(set(perceptual_hash(flat)[0])) == 1
    assert perceptual_hash(flat[:0]).shape == (1, 0)
    assert perceptual_hash(torch.zeros((2, 1, 200, 100), dtype=torch.uint8)).shape == (1, 2)
