"""The lab server: for this machine, for whoever has the token, and without news from outside."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import ROOT, python

MAKEFILE = (ROOT / "Makefile").read_text()
RUNTIME = "JUPYTER_RUNTIME_DIR"
TARGETS = [name for name in ("lab", "app") if re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)]


def command(target: str) -> list[str]:
    """What ``make`` would run, with the interpreter of these tests."""
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.installed", target],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
    )  # fmt: skip
    lines = done.stdout.replace("\\\n", " ").splitlines()
    # The last one: those before install.
    line = [line for line in lines if "/python -m " in line][-1]
    words = line.split()
    return [sys.executable, *words[words.index("-m") :]]


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def takes_connections(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=10):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The lab as ``make lab`` starts it, but without a browser: its address and token."""
    places = {RUNTIME: "runtime", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data"}
    for place in places.values():
        (tmp_path / place).mkdir()
    environment = os.environ | {name: str(tmp_path / place) for name, place in places.items()}
    more = ["--no-browser", "--port=0"] + (["--allow-root"] if os.geteuid() == 0 else [])
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [*command("lab"), *more], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    try:
        end = time.monotonic() + 240
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            for file in (tmp_path / "runtime").glob("jpserver-*.json"):
                about = json.loads(file.read_text() or "{}")
                if about.get("port"):
                    # Port 0 is written down as it was asked for: the log has the real one.
                    port = re.search(r"http://127\.0\.0\.1:(\d+)/", (tmp_path / "log").read_text())
                    # The log names it some moments before the server listens.
                    if port and takes_connections("127.0.0.1", int(port[1])):
                        yield f"http://127.0.0.1:{port[1]}", about["token"]
                        return
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        log.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 has to be set up first")
def test_nobody_comes_in_without_the_token(server):
    address, token = server
    assert len(token) >= 32
    # 127.0.0.1, and nothing else: 127.0.0.2 is this machine too, and hears all that listens
    # at every address.
    port = int(address.rpartition(":")[2])
    assert takes_connections("127.0.0.1", port)
    assert not takes_connections("127.0.0.2", port)
    for page in ("/api/contents", "/api/sessions", "/api/kernels", "/api/terminals"):
        assert status(address + page) == 403, page
        assert status(f"{address}{page}?token=guess") == 403, page
        assert status(f"{address}{page}?token={token}") == 200, page
    # A page of somebody else's, whose name was made to point at this machine.
    assert status(f"{address}/api/contents?token={token}", Host="evil.example") == 403
    # No question to anybody whether there is a newer version, and no news.
    with urllib.request.urlopen(f"{address}/lab/api/news?token={token}") as answer:
        assert json.load(answer)["news"] == []
    with urllib.request.urlopen(f"{address}/lab/api/update?token={token}") as answer:
        assert json.load(answer)["notification"] is None


@pytest.mark.parametrize("target", TARGETS)
def test_what_make_starts_is_for_this_machine_and_has_a_token(target):
    words = command(target)
    assert any(re.fullmatch(r"--(\w+\.)?ip=127\.0\.0\.1", word) for word in words)
    line = " ".join(words).lower()
    for way in ("token=''", 'token=""', "token= ", "token=none", "disable_check_xsrf=true",
                "allow_remote_access=true", "allow_origin=*", "password="):  # fmt: skip
        assert way not in line + " "
    assert not re.search(r"token=$", line)


LISTEN = """
import sys
talk = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"):
        address = arguments[-1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        # Threads of one process talk by sockets without a name.
        if not isinstance(address, (str, bytes)) or event == "socket.getaddrinfo":
            talk.append((event, str(arguments)))
sys.addaudithook(hook)
"""

WORK = """
import os
import budgetlab as bl
from budgetlab import cli, report, widgets
from budgetlab.records import find_records
out, root = sys.argv[1:]
record = bl.train(dataset="points", limit=64, epochs=2, batch_size=16, budget=0.5, out=out,
                  data_root=root, device="cpu", progress=False)
record.samples.load()
bl.compare([out], baseline="SGD")
report.write([out], os.path.join(out, "page.html"))
assert cli.main(["list", "methods"]) == 0
print("talked", talk)
"""


PHONE = """
import socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
print(len(talk) >= 2)
"""


def run(program: str, *arguments: object) -> str:
    done = python("-W", "ignore", "-c", program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_phones_home(tmp_path, data_root):
    """Importing, training, comparing, reporting: no connection is opened, no name looked up."""
    assert run(LISTEN + WORK, tmp_path, data_root).endswith("talked []\n")
    # Somebody who does is heard.
    assert run(LISTEN + PHONE) == "True\n"
    page = (tmp_path / "page.html").read_text()
    # Nor does the page load anything when it is opened.
    loads = re.findall(
        r"""(?:src|href|url|action)\s*[=(]\s*["']?\s*(?:https?:)?//[^"')\s]+""", page
    )
    assert [one for one in loads if not one.startswith("href")] == []
    assert "@import" not in page
