"""The demo, small: what a newcomer sees first."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from budgetlab import demo
from budgetlab.analysis import condition_columns, summaries
from budgetlab.records import find_records, open_record

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def small(monkeypatch):
    plan = demo.configs
    small = {"epochs": 2, "limit": 200, "batch_size": 16}
    monkeypatch.setattr(demo, "configs", lambda out: plan(out, **small))


def test_prints_each_run_then_a_table_and_writes_a_page(out, small, capsys):
    assert demo.main(out) == 0
    printed = capsys.readouterr().out
    for method, budget in demo.PLAN:
        line = rf"^ *\d+ of 12  {method} +budget {budget:g} +seed 2 +\d+\.\d%$"
        assert re.search(line, printed, re.MULTILINE)
    heading = next(line for line in printed.splitlines() if line.startswith("dataset"))
    for column in ("n", "test accuracy %", "steps", "trained", "seconds", "cost of full"):
        assert column in heading
    assert re.search(r"^shapes +random-subset .* 30% +3 ", printed, re.MULTILINE)
    assert re.search(r"^shapes +unif-SGD .* 100% +3 ", printed, re.MULTILINE)
    assert printed.count("unif-SGD") >= 8

    page = (out / "index.html").read_text()
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    images = re.findall(r"<img\b[^>]*>", page)
    assert len(images) >= 4
    for image in images:
        assert 'src="data:image/' in image
        assert re.search(r'alt="[^"]{20,}"', image)
    assert not re.search(r'(src|href)="https?:', page)
    # A seed draws the images too: three seeds are three pairs of one comparison, here as there.
    for sentence in re.findall(r"^- (.*)$", printed, re.MULTILINE):
        assert "n = 3" in sentence
        assert sentence[1:] in page
    assert "Of 2 comparisons with unif-SGD" in page
    assert "data seed" not in page
    assert "so there are no learning curves" in page
    assert "random-subset draws the same 30% of the samples" in page
    by_seed = summaries(out / "runs").query("seed == data_seed")
    assert "data_seed" not in condition_columns(by_seed)
    crossed = pd.concat([by_seed, by_seed.assign(data_seed=0)])
    assert "data_seed" in condition_columns(crossed)


def test_a_second_time_keeps_what_is_finished(out, small, capsys):
    before = find_records(out / "runs")
    assert demo.main(out) == 0
    assert capsys.readouterr().out.count("kept from before") == 12
    assert find_records(out / "runs") == before
    assert all(open_record(path).status == "finished" for path in before)


def test_an_old_python_is_refused_in_a_sentence(tmp_path):
    old = tmp_path / "python-old"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 1); '
        'exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "is 3.9" in done.stderr
    assert not (tmp_path / "venv").exists()
