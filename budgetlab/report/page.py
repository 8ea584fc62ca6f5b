"""Read records, draw the report's figures, and write the page."""

import dataclasses
import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from budgetlab import analysis, methods
from budgetlab.analysis.conditions import method_order, sorted_by_method
from budgetlab.analysis.tables import COST_FORMATS, is_numeric
from budgetlab.config import RunConfig
from budgetlab.errors import InputError, counted
from budgetlab.explore.chart import STYLE, script
from budgetlab.plots.style import capitalise, run_names
from budgetlab.records import Record, Records, open_records, write_file
from budgetlab.report.figures import (
    MIXING,
    section_charts,
    section_classes,
    section_over_runs,
    section_pay,
    section_samples,
)

SHOWN_RUNS = 6
SHOWN_FINDINGS = 5
FORMATS = {"test_accuracy": ".2%", "steps": ",.0f", "trained_samples": ",.0f",
           "looked_samples": ",.0f", "flops": ".3g", "seconds": ",.1f"}  # fmt: skip


def write(records: Records, out: Path | str = "report.html") -> Path:
    """Write a self-contained HTML report: runs, results, samples picked, and how to reproduce them.

    The page needs no network and no other file. Its charts are interactive where scripts may run,
    and images elsewhere. Raises InputError if no record can be opened, none holds an epoch, or the
    file cannot be written.

    - ``records``: as for :func:`budgetlab.open_records`. Unusable records are listed on the page,
      each with a warning, and left out.
    - ``out``: file to write; missing folders are created.

    Returns the file.
    """
    out = Path(os.path.expanduser(out))
    if out.is_dir():
        raise InputError(f"out '{out}' is a folder: give a file such as {out / 'report.html'}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        content = _content(records)
    problems = [str(w.message) for w in caught if issubclass(w.category, analysis.RecordWarning)]
    for problem in dict.fromkeys(problems):
        warnings.warn(problem, analysis.RecordWarning, stacklevel=2)
    content["problems"] = list(dict.fromkeys([*problems, *content["problems"]]))
    # The only unescaped text: it is our own, and escaping would break a style sheet.
    style = Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8") + STYLE)
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    ).get_template("page.html")  # fmt: skip
    return write_file(out, template.render(content, css=style).encode(), folders=True)


def _content(records: Records) -> dict[str, Any]:
    runs = open_records(records)
    frame = analysis.summaries(runs)
    compared, table, why_not, findings = None, None, "", []
    try:
        compared = analysis.compare(frame)
        findings = _findings(compared)
        table = _cells(compared.drop(columns=_constant_columns(compared)))
    except InputError as error:
        why_not = str(error)
    curves = analysis.epochs(runs)
    chosen = _representatives(runs, frame)
    samples, problems = section_samples(chosen, _reference(runs, chosen))
    charts, missing = section_charts(curves, chosen)
    return {
        "title": f"{_join(frame['dataset'].unique())} on a budget",
        "overview": _overview(frame),
        "facts": _facts(runs, frame),
        "methods": _methods(frame),
        "table_cells": table,
        "verdict": _verdict(compared),
        "findings": findings[:SHOWN_FINDINGS],
        "more_findings": findings[SHOWN_FINDINGS:],
        "why_not": why_not,
        "over_runs": section_over_runs(curves, frame, compared),
        "classes": section_classes(chosen),
        "samples": samples,
        "pay": section_pay(runs),
        "chosen": {name: str(record.path) for name, record in chosen.items()},
        "runs": _run_table(frame),
        "commands": [command(record) for record in runs],
        "versions": _versions(runs),
        "charts": charts,
        "script": Markup(script()) if charts else "",
        "problems": [*problems, *missing],
    }


def _overview(frame: pd.DataFrame) -> str:
    methods = method_order(frame["method"])
    budgets = _join(f"{100 * b:g}%" for b in sorted(frame["budget"].unique()))
    return (
        f"{counted(len(frame), 'training run')} of {counted(len(methods), 'method')} "
        f"({_join(methods)}) at {budgets} of the cost of full training, "
        f"with {counted(frame['seed'].nunique(), 'seed')}."
    )


def _facts(runs: Sequence[Record], frame: pd.DataFrame) -> dict[str, str]:
    """Return the key facts about the runs, in a few words each."""
    sizes = {name: _join(f"{int(n):,}" for n in group["train_size"].dropna().unique())
             for name, group in frame.groupby("dataset", sort=False)}  # fmt: skip
    units = _join(frame["budget_unit"].unique())
    noise = sorted(frame["label_noise"].unique())
    classes = dict.fromkeys(len(run.about["data"].get("classes", [])) for run in runs)
    units_said = {"iterations": "optimiser steps", "samples": "samples", "flops": "operations"}
    facts = {
        "Data": _join(f"{name} ({f'{n} training samples' if n else 'size unknown'})"
                      for name, n in sizes.items()),
        "Classes": _join(classes) if len(sizes) == 1 else "",
        "Network": _join(frame["model"].dropna().unique()),
        "Augmentation": _join(frame["augmentation"].unique()),
        "Wrong labels added": _join(f"{100 * share:g}%" for share in noise) if any(noise) else "",
        "Full run": _join(counted(epochs, "epoch") for epochs in frame["epochs"].unique()),
        "Budget counted in": units_said.get(units, units),
        "Trained on": _join(frame["hardware"].dropna().unique()),
    }  # fmt: skip
    return {name: text for name, text in facts.items() if text}


def _methods(frame: pd.DataFrame) -> dict[str, Markup]:
    """Describe each method; symbols are between asterisks in the table of methods."""
    known = {name: methods.known(name) for name in method_order(frame["method"])}
    return {name: Markup(re.sub(r"\*(.+?)\*", r"<em>\1</em>", str(escape(method.about))))
            for name, method in known.items() if method}  # fmt: skip


def _findings(compared: pd.DataFrame) -> list[dict[str, str]]:
    """Return sentences on differences, those with a verdict first."""
    rows = compared[compared["pairs"] > 0]
    found = [{"kind": "open" if verdict == "undecided" else "claimed", "text": capitalise(text)}
             for verdict, text in zip(rows["verdict"], rows["sentence"], strict=True)]  # fmt: skip
    return sorted(found, key=lambda finding: finding["kind"])


def _verdict(compared: pd.DataFrame | None) -> str:
    """Summarise the comparisons in one sentence."""
    counts = Counter([] if compared is None else filter(None, compared["verdict"]))
    if not counts:
        return (
            "Nothing can be compared yet: no other method was run with the same settings and "
            f"seed. Train {analysis.BASELINE} as a baseline."
        )
    found = _join(f"{counts[n]} {n}" for n in analysis.COMPARISON_VERDICTS if counts[n])
    return f"{counted(counts.total(), 'comparison')} with {analysis.BASELINE}: {found}."


def _representatives(runs: Sequence[Record], frame: pd.DataFrame) -> dict[str, Record]:
    """Choose one run per method (or other setting), on equal data, augmentation, budget, seed."""
    # The same name may stand for other data: fewer samples, or other labels.
    cell = ["dataset", "fingerprint", "augmentation", "budget", "seed"]
    frame = frame.fillna({"fingerprint": ""})
    finished = frame["status"] == "finished"
    usable = frame[finished] if finished.any() else frame
    settings = [name for name in analysis.condition_columns(frame) if name not in cell]
    differing = usable.drop_duplicates([*cell, *settings])
    best = differing.groupby(cell, sort=True).size().idxmax()
    same = differing[(differing[cell] == pd.Series(dict(zip(cell, best, strict=True)))).all(axis=1)]
    records = [runs[place] for place in sorted_by_method(same).index[:SHOWN_RUNS]]
    return dict(zip(run_names(records), records, strict=True))


def _reference(runs: Sequence[Record], chosen: dict[str, Record]) -> Record | None:
    """Find a run without mixing on the same data, with a per-sample history."""
    data = {record.fingerprint for record in chosen.values()}
    for run in runs:
        plain = run.config.get("augmentation") not in MIXING
        if plain and data == {run.fingerprint} and (run.path / "samples.zarr").is_dir():
            return run
    return None


def _constant_columns(frame: pd.DataFrame) -> list[str]:
    """Return constant columns, whose value is among the facts above the tables."""
    return [name for name in ("dataset", "augmentation") if frame[name].nunique() == 1]


def _run_table(frame: pd.DataFrame) -> dict[str, Any]:
    left_out = ["budget_unit", *_constant_columns(frame)]
    settings = [name for name in analysis.condition_columns(frame) if name not in left_out]
    table = frame[[*settings, "seed", "status", *FORMATS]].copy()
    for name, form in FORMATS.items():
        table[name] = [f"{v:{form}}" if v == v else "" for v in frame[name]]
    table["budget"] = [f"{100 * budget:g}%" for budget in frame["budget"]]
    headings = {name: heading for name, (heading, _) in COST_FORMATS.items()}
    return _cells(table.rename(columns=lambda n: headings.get(n, n.replace("_", " "))))


def _cells(frame: pd.DataFrame) -> dict[str, Any]:
    table = analysis.readable(frame)
    numeric = [is_numeric(table[name].tolist()) for name in table]
    rows = table.to_numpy().tolist()
    return {"heading": list(zip(map(str, table.columns), numeric, strict=True)),
            "rows": [list(zip(row, numeric, strict=True)) for row in rows]}  # fmt: skip


def _versions(runs: Sequence[Record]) -> dict[str, str]:
    given = [run.about.get("versions", {}) for run in runs]
    names = dict.fromkeys(name for one in given for name in one)
    return {name: _join(dict.fromkeys(str(one.get(name, "")) for one in given)) for name in names}


def _join(parts: Iterable[Any]) -> str:
    *most, last = [str(part) for part in parts] or [""]
    return f"{', '.join(most)} and {last}" if most else last


# Always part of the command, even at the default: they define the run.
ALWAYS = ("dataset", "method", "augmentation", "budget", "epochs", "seed")
# Storage locations do not matter for a repetition.
LEFT_OUT = ("out", "data_root")
# Prefix of custom networks in records.
OWN_MODEL = "own:"


def command(record: Record) -> str:
    """Return a command line that repeats a run, with every non-default setting.

    For a custom network, which the command line cannot build, return a Python call.
    Settings unknown to this version are left out.
    """
    settings = {}
    for field in dataclasses.fields(RunConfig):
        value = record.config.get(field.name, field.default)
        value = tuple(value) if isinstance(value, list) else value
        if field.name not in LEFT_OUT and (field.name in ALWAYS or value != field.default):
            settings[field.name] = value
    model = str(settings.get("model", ""))
    if model.startswith(OWN_MODEL):
        del settings["model"]
        given = "".join(f", {name}={value!r}" for name, value in settings.items())
        return f"bl.train(model=your_network{given})  # it was {model}"
    first, *longer = [*str(settings.pop("extended", "")).split("+"), str(settings["epochs"])]
    if longer:
        settings["epochs"] = first or settings["epochs"]
    words = ["budgetlab", "train"]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}"]
        words += map(str, value if isinstance(value, tuple) else [value])
    # The run was extended: train the first length, then resume to each longer one.
    then = "".join(f"; budgetlab resume RECORD --epochs {n}" for n in longer if first)
    return shlex.join(words) + then
