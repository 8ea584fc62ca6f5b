"""Train, stop, resume, sweep, compare and report with nothing that Windows lacks.

Run by ``test_windows.py`` in a process of its own. What the package imports is shown to it as
Windows has it; other packages have branches of their own for Windows and see the system as it is.
"""

import builtins
import io
import json
import os
import signal
import sys
import types
import warnings

MISSING = {"fcntl", "resource", "pwd", "grp", "termios", "pty"}
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
OF_POSIX = {
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchmod", "fork", "geteuid",
    "getgid", "getloadavg", "getpgid", "getuid", "killpg", "mkfifo", "nice", "pread", "pwrite",
    "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname", "wait", "waitpid",
}  # fmt: skip

asked: set[str] = set()


def without(module: types.ModuleType, names: set[str]) -> types.ModuleType:
    """The same module less some names; what asks for one of them is noted."""
    shown = types.ModuleType(module.__name__)
    shown.__dict__.update({k: v for k, v in vars(module).items() if k not in names})

    def lacking(name: str) -> object:
        asked.add(f"{module.__name__}.{name}")
        raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

    shown.__getattr__ = lacking
    return shown


posix_signals = {name for name in dir(signal) if name.startswith("SIG")} - SIGNALS
more = {"alarm", "pause", "pthread_kill", "setitimer", "sigwait", "set_wakeup_fd"}
SHOWN = {
    "os": without(os, OF_POSIX),
    "signal": without(signal, (posix_signals - {"SIG_IGN", "SIG_DFL"}) | more),
}
real_import, real_open = builtins.__import__, io.open


def importing(name, globals=None, locals=None, fromlist=(), level=0):
    by = (globals or {}).get("__name__", "")
    if by.partition(".")[0] == "budgetlab":
        if name in MISSING:
            asked.add(name)
            raise ModuleNotFoundError(f"No module named '{name}'")
        if name in SHOWN:
            return SHOWN[name]
    return real_import(name, globals, locals, fromlist, level)


def opening(file, mode="r", buffering=-1, encoding=None, *more, **options):
    frame = sys._getframe(1)
    while frame.f_globals["__name__"] == "pathlib":
        frame = frame.f_back
    by = frame.f_globals["__name__"]
    if by.partition(".")[0] == "budgetlab":
        if str(file).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", str(file))
        if encoding is None and "b" not in mode:
            raise EncodingWarning(f"{by} opens '{file}' as text of no named encoding")
    return real_open(file, mode, buffering, encoding, *more, **options)


builtins.__import__, builtins.open, io.open = importing, opening, opening
# Text without a named encoding is cp1252 there: here a warning, and so an error.
warnings.filterwarnings("error", category=EncodingWarning, module=r"budgetlab(\..*)?")

import budgetlab as bl  # noqa: E402
from budgetlab.cli import main  # noqa: E402
from budgetlab.training import Run  # noqa: E402


def go(out: str, folder: str) -> dict[str, object]:
    settings = {"dataset": f"folder:{folder}", "epochs": 3, "batch_size": 8, "model": "tiny",
                "budget": 0.5, "precision": "float32", "out": out,
                "data_root": f"{out}-data"}  # fmt: skip
    run = Run(bl.RunConfig(method="p-SGD", **settings))
    next(iter(run))
    resumed = Run.resume(run.writer.path)
    for _ in resumed:
        pass
    sweep = bl.sweep(method=["p-SGD", "unif-SGD"], progress=False, **settings)
    how = {row["method"]: row["how"] for row in sweep}
    frame = bl.compare(sweep.records)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    codes = [
        main(["train", "--method=c-SGD", *flags]),
        main(["compare", out]),
        main(["report", str(sweep.records[0]), "--out", f"{out}-page"]),
        main(["inspect", settings["dataset"]]),
    ]
    return {"status": resumed.record.status, "dataset": resumed.config.dataset_name, "how": how,
            "rows": len(frame), "codes": codes}  # fmt: skip


LACKING = (
    "import fcntl", "import os; os.fork()", "import signal; signal.SIGKILL",
    "open('/proc/cpuinfo')", "open('x', 'w')",
)  # fmt: skip


def hidden() -> int:
    """How many things that Windows lacks are lacking here too."""
    count = 0
    for text in LACKING:
        try:
            exec(text, {"__name__": "budgetlab.any"})
        except (ImportError, AttributeError, OSError, EncodingWarning):
            count += 1
    return count


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        told = go(*sys.argv[1:])
    told |= {"asked": sorted(asked), "hidden": hidden()}
    print("TOLD", json.dumps(told))
