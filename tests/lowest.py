"""Print the lowest version of every requirement, as constraints for pip: ``make lowest``."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]


def main() -> None:
    """Print one line a package."""
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dask"]]
    for line in lines:
        name, version = re.fullmatch(r"([\w.-]+)>=([\w.]+)", line).groups()
        # Of 2.6 the release is 2.6.0; what was mended after it is allowed too.
        print(f"{name}=={version}.*" if version.count(".") < 2 else f"{name}=={version}")


if __name__ == "__main__":
    main()
