"""Update the table of ``docs/methods.md`` from the registry of methods.

python docs/methods_table.py
"""

from pathlib import Path

from budgetlab import methods

PAGE = Path(__file__).with_name("methods.md")
BEGIN, END = "<!-- table: python docs/methods_table.py -->\n", "<!-- end of the table -->\n"


def with_table(text: str) -> str:
    """Return the page with the current table between its markers."""
    before, rest = text.split(BEGIN)
    return (
        before + BEGIN + "\n" + methods.markdown() + "\n" + END + "\n" + rest.split(END)[1].lstrip()
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
