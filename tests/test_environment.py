"""Both ways to install ask for the same, and the package asks for all that it imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

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


def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def from_conda() -> dict[str, str]:
    return dict(requirement(one) for one in environment()["dependencies"] if isinstance(one, str))


def test_conda_and_pip_ask_for_the_same():
    conda = {name: version for name, version in from_conda().items() if name not in CONDA_ONLY}
    assert conda == from_pip()


def test_conda_installs_the_package_itself_with_pip():
    nested = [one for one in environment()["dependencies"] if isinstance(one, dict)]
    assert nested == [{"pip": ["-e ."]}]
    assert environment()["channels"][0] == "conda-forge"


def test_the_python_floor_is_the_same_everywhere():
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


def test_the_version_is_the_one_that_is_imported():
    import budgetlab

    assert budgetlab.__version__ == project()["version"]
