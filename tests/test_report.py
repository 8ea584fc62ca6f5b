"""The page: complete, self-contained, escaped, and honest on what it left out."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest
from fake_records import write_run

from budgetlab import analysis, plots, report
from budgetlab.analysis import RecordWarning
from budgetlab.config import RunConfig
from budgetlab.errors import InputError
from budgetlab.records import Record, RecordWriter, open_records
from budgetlab.report import page as page_module
from budgetlab.report.page import command


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.metadata, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.metadata.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.metadata if tag == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        write_run(out, method="unif-SGD", budget=0.3, seed=seed)
        write_run(out, method="p-SGD", budget=0.3, seed=seed, gain=0.01 + seed / 1000)
    write_run(out, method="SGD", budget=1.0)
    return out


@pytest.fixture(scope="module")
def text(folder):
    path = report.write(folder, folder.parent / "page" / "report.html")
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside(text):
    page = Page(text)
    ids = {attributes.get("id") for _, attributes in page.metadata}
    assert {label["for"] for label in page.all("label")} <= ids
    assert {link["href"][1:] for link in page.all("a")} <= ids
    for tag, attributes in page.metadata:
        assert tag not in ("iframe", "object", "embed")
        for name in ("src", "href"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, value[:60])
        assert not [name for name in attributes if name.startswith("on")]
    # Vega names the addresses of its schemas and its home, and asks for none of them: a browser
    # test opens the page. What is ours holds no address.
    ours = re.sub(r"<script.*?</script>|data-spec='.*?'|base64,[\w+/=]+", "", text, flags=re.S)
    assert not re.search(r"url\(|@import|https?://", ours)


def test_charts_hold_their_data_and_stay_small(text):
    found = [tag["data-spec"] for tag in Page(text).all("div") if "data-spec" in tag]
    titles = [str(json.loads(chart)["title"]) for chart in found]
    assert len(found) == 3
    assert "over what training costs" in titles[0]
    assert max(map(len, found)) < 1_000_000
    assert len(text) < 6_000_000
    assert "vegaEmbed" in text or "vega" in text


def test_the_page_holds_what_was_asked_for(text, folder):
    page = Page(text)
    assert len(page.all("h1")) == 1
    images = page.all("img")
    assert len(images) >= 10
    assert all(len(image["alt"]) > 40 and re.search(r"\d", image["alt"]) for image in images)
    section = text[text.index('<section id="classes">') : text.index('<section id="samples">')]
    for said in ("p-SGD: 85.0% of the samples right, 85.0% as a mean over classes",
                 "Test accuracy of 4 of 4 groups", "circle taken for square (5)"):  # fmt: skip
        assert said in section
    lines = [line for line in page.text.splitlines() if line.startswith("budgetlab train")]
    assert lines == [command(record) for record in open_records(folder)]
    for heading in ("What was found", "Learning and cost", "How the losses spread",
                    "How unevenly each method draws", "p-SGD: images trained on most and least",
                    "Wrong labels", "All runs", "How to reproduce"):  # fmt: skip
        assert heading in page.text, heading
    for sentence in analysis.compare(folder)["sentence"]:
        if "points" in sentence:
            assert sentence[1:] in " ".join(page.text.split())


def test_runs_on_other_data_of_the_same_name_are_listed_and_not_drawn_together(tmp_path):
    for method, size in (("unif-SGD", 200), ("p-SGD", 200), ("mine", 300)):
        write_run(tmp_path, method=method, budget=0.3, size=size, fingerprint=str(size))
    with pytest.warns(RecordWarning, match="on other data"):
        page = Page(report.write(tmp_path, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "One run of each: unif-SGD; p-SGD." in page.text
    assert "--method mine" in page.text


def test_commands_quote_and_keep_every_setting_that_differs(tmp_path):
    record = write_run(
        tmp_path, dataset="folder:my pictures/$x", lr=0.05, milestones=(0.3, 0.6), budget=0.3
    )
    words = shlex.split(command(record))
    assert words[words.index("--dataset") + 1] == "folder:my pictures/$x"
    assert words[words.index("--milestones") + 1 :][:2] == ["0.3", "0.6"]
    assert words[words.index("--lr") + 1] == "0.05"
    assert not {"--momentum", "--out"} & {*words}


def test_what_cannot_be_read_or_compared_is_named_and_names_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    good = write_run(tmp_path / "runs", dataset=f"folder:{evil}", budget=0.3, status="stopped")
    about = json.loads((good.path / "record.json").read_text())
    about["hardware"]["name"] = '"><img src=x onerror=alert(1)>'
    (good.path / "record.json").write_text(json.dumps(about))
    broken = tmp_path / "runs" / "broken"
    shutil.copytree(good.path, broken)
    (broken / "record.json").write_text("{")
    shutil.rmtree(good.path / "samples.zarr" / "loss")
    with pytest.warns(RecordWarning) as caught:
        text = report.write(tmp_path / "runs", tmp_path / "r.html").read_text()
    warned = " ".join(str(one.message) for one in caught)
    assert all(said in warned for said in ("broken", "not finished"))
    page = Page(text)
    for said in ("What is not on this page", "lacks the arrays loss", str(broken),
                 "Learning and cost", "Nothing can be compared yet",
                 "no finished run to compare"):  # fmt: skip
        assert said in page.text
    assert "Who was trained on" not in page.text
    assert "claimed</span>" not in text
    assert evil not in text
    assert "onerror" not in {name for _, attributes in page.metadata for name in attributes}


def test_a_page_that_cannot_be_written_is_an_error(folder, tmp_path, monkeypatch):
    for part, nothing in (("charts", ([], [])), ("samples", ({}, [])), ("pay", None)):
        monkeypatch.setattr(page_module, f"section_{part}", lambda *given, made=nothing: made)
    writer = RecordWriter.create(
        RunConfig(out=str(tmp_path)), metadata=pd.DataFrame({"label": [0]}), data={}, hardware={}
    )
    with pytest.raises(InputError, match="holds a finished epoch"):
        report.write(Record(writer.path), tmp_path / "r.html")
    (tmp_path / "x").write_text("")
    for name, says in (("", "is a folder"), ("x/r.html", "be written")):
        with pytest.raises(InputError, match=says):
            report.write(open_records(folder)[:1], tmp_path / name)


def test_fans_have_the_colours_of_the_learning_curves(tmp_path, monkeypatch):
    for schedule in ("linear", "constant"):
        write_run(tmp_path, method="p-SGD", schedule=schedule)
    drawn, fan = {}, plots.loss_distribution

    def seen(data, *, look, ax):
        drawn[data.config["schedule"]] = look.colour
        return fan(data, look=look, ax=ax)

    monkeypatch.setattr(plots, "loss_distribution", seen)
    report.write(tmp_path, tmp_path / "report.html")
    lines = plots.learning_curves(tmp_path).lines
    assert {f"schedule {name} (n = 1)": colour for name, colour in drawn.items()} == {
        line.get_label(): line.get_color() for line in lines
    }
