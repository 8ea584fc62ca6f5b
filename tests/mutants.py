"""Try the mutants that mutmut has made, in one pytest session: a fork for each.

mutmut starts pytest anew for every mutant, which takes longer than most tests do. Here the
tests are collected once, and for each mutant a fork runs those that reach its function,
quick ones first, until one fails. mutmut has made the mutants and found out who reaches
whom before (``mutmut run`` with one mutant will do); results are written where
``mutmut results`` and ``mutmut show`` look for them. ``make mutants`` does both, in a copy.

    python tests/mutants.py [--sample 60] [--seconds 5] [--again] [history samplers/scores ...]
"""

import argparse
import gc
import json
import os
import random
import sys
import time
import tomllib
from pathlib import Path

import pytest

KILLED, SURVIVED, NOT_REACHED, TIMED_OUT = 1, 0, 33, 36
PACKAGE = Path("budgetlab")


class Metas:
    """What mutmut knows of the mutants of one module."""

    def __init__(self, module: str):
        self.module = module
        self.path = (PACKAGE / f"{module}.py.meta").absolute()
        self.about = json.loads(self.path.read_text())
        self.codes: dict[str, int | None] = self.about["exit_code_by_key"]

    def chosen(self, sample: int, again: bool) -> list[str]:
        """Mutants to try; always the same ones in a sample of the same size."""
        names = sorted(self.codes)
        random.Random(f"mutants {self.module}").shuffle(names)
        left = (None, SURVIVED) if again else (None,)
        return [name for name in names[:sample] if self.codes[name] in left]

    def note(self, name: str, code: int) -> None:
        """Write a result down."""
        self.codes[name] = code
        self.path.write_text(json.dumps(self.about, indent=4))


class Trial:
    """Plugin of pytest: in place of running the tests, runs some of them for each mutant."""

    def __init__(self, options: argparse.Namespace):
        self.options = options

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try all mutants of all modules."""
        import hypothesis  # not earlier, for pytest wants to be the first

        # A shorter search, and nothing learned from one mutant for the next.
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile("mutants", deadline=None, database=None, phases=phases)
        hypothesis.settings.load_profile("mutants")
        stats = json.loads(Path("mutmut-stats.json").read_text())
        self.durations: dict[str, float] = stats["duration_by_test"]
        self.reaching: dict[str, list[str]] = stats["tests_by_mangled_function_name"]
        self.items = {item.nodeid: item for item in session.items}
        for module in self.options.modules or all_modules():
            metas, started = Metas(module), time.monotonic()
            for name in metas.chosen(self.options.sample, self.options.again):
                metas.note(name, self.code_of(name, session))
            codes = [code for code in metas.codes.values() if code is not None]
            counts = [sum(code == kind for code in codes)
                      for kind in (KILLED, TIMED_OUT, SURVIVED, NOT_REACHED)]  # fmt: skip
            print(
                f"{module}: {len(codes)} of {len(metas.codes)} tried, {counts[0]} killed, "
                f"{counts[1]} timed out, {counts[2]} survived, {counts[3]} not reached "
                f"({time.monotonic() - started:.0f} s)",
                flush=True,
            )
        return True

    def code_of(self, name: str, session: pytest.Session) -> int:
        """Run the tests that reach a mutant, quick ones first."""
        reaching = self.reaching.get(name.partition("__mutmut_")[0], [])
        tests = sorted((t for t in reaching if t in self.items), key=self.durations.__getitem__)
        if not tests:
            return NOT_REACHED
        chosen, seconds = [], 0.0
        for test in tests:
            seconds += self.durations[test]
            if chosen and seconds > self.options.seconds:
                break
            chosen.append(self.items[test])
        gc.freeze()  # what is there stays there, or every fork would copy it
        child = os.fork()
        if not child:
            self.run(name, chosen, session)
        # Waits longer than any load of the machine explains, then it is a loop without end.
        deadline = time.monotonic() + 20 + 5 * min(seconds, self.options.seconds)
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return SURVIVED if os.waitstatus_to_exitcode(status) == 0 else KILLED
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return TIMED_OUT
            time.sleep(0.005)

    def run(self, name: str, items: list[pytest.Item], session: pytest.Session) -> None:
        """In the fork: run until one fails, and end."""
        from mutmut.mutation.trampoline import set_mutant_under_test

        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        set_mutant_under_test(name)
        try:
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    os._exit(1)
        except BaseException:
            os._exit(1)
        os._exit(0)


def all_modules() -> list[str]:
    """Modules of which there are mutants."""
    found = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.meta"))
    names = [str(path).removesuffix(".py.meta") for path in found]
    return [name for name in names if Metas(name).codes]


def main() -> int:
    """Read what is asked for, and go where mutmut put the mutants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="such as history or samplers/scores")
    parser.add_argument("--sample", type=int, default=10**9, help="at most so many of a module")
    parser.add_argument("--seconds", type=float, default=1e9, help="of tests for each mutant")
    parser.add_argument("--again", action="store_true", help="also those that survived before")
    options = parser.parse_args()
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]
    os.chdir("mutants")
    sys.path.insert(0, os.getcwd())
    os.environ["PYTHONPATH"] = os.getcwd()
    os.environ["MUTANT_UNDER_TEST"] = ""
    tests = settings["pytest_add_cli_args_test_selection"]
    return int(
        pytest.main(["-q", "-s", "-p", "no:cacheprovider", *tests], plugins=[Trial(options)])
    )


if __name__ == "__main__":
    sys.exit(main())
