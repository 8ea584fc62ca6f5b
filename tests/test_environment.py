"""Both ways to install ask for the same, and the package asks for all that it imports."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

import budgetlab

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch"}
# What only the one way to install has to name.
CONDA_ONLY = {"pip", "python"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirement(text: str) -> tuple[str, str]:
    """Name and version of a requirement, such as ``numpy`` and ``>=2.0``."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([<>=!~].*)?", text.strip())
    assert match, f"'{text}' is no plain requirement"
    return match[1].lower().replace("_", "-"), match[2] or ""


def from_pip() -> dict[str, str]:
    wanted = dict(map(requirement, project()["dependencies"]))
    return {CONDA_NAMES.get(name, name): version for name, version in wanted.items()}


def from_conda() -> dict[str, str]:
    asked = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [one for one in asked["dependencies"] if isinstance(one, str)]
    # The package itself is installed with pip.
    assert [one for one in asked["dependencies"] if one not in plain] == [{"pip": ["-e ."]}]
    assert asked["channels"][0] == "conda-forge"
    return dict(map(requirement, plain))


def test_conda_and_pip_ask_for_the_same():
    conda = {name: version for name, version in from_conda().items() if name not in CONDA_ONLY}
    assert conda == from_pip()


def test_the_python_floor_and_the_version_are_the_same_everywhere():
    assert budgetlab.__version__ == project()["version"]
    floor = project()["requires-python"]
    assert from_conda()["python"] == floor
    asked = re.search(r"v >= \((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    assert asked, "the Makefile does not check the version of Python"
    assert f">={asked[1]}.{asked[2]}" == floor
    assert sys.version_info >= (int(asked[1]), int(asked[2]))


def test_all_that_is_imported_is_asked_for():
    wanted = set(from_pip())
    distributions = packages_distributions()
    missing = set()
    for file in (ROOT / "budgetlab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names):
                owners = {requirement(one)[0] for one in distributions.get(top, [top])}
                owners = {CONDA_NAMES.get(owner, owner) for owner in owners}
                if top != "budgetlab" and not owners & (wanted | OF_OTHERS):
                    missing.add(f"{file.name}: {top}")
    assert missing == set()


# Parts of a requirement that have a name of their own: jinja2 is made on markupsafe.
# UMAP is asked for only by who wants that map, by its package or, where it is not there, its name.
OF_OTHERS = {"markupsafe", "umap-learn", "umap"}


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
