"""Children of a nursery end as those that were started alone, and with it.

As in test_isolate, a stub stands in for loading and examining.
"""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from test_isolate import STUB, _appears, _ends

from vaedoctor.isolate import CouldNotRun, Isolated, run_isolated
from vaedoctor.nursery import Nursery

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")


@pytest.fixture
def folder(folder_of_children):
    """An empty working folder; temporary files go to another, which is empty in the end."""
    return folder_of_children(STUB)


@pytest.fixture
def nursery(folder):
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def run(folder, nursery):
    def run(source, *, timeout=30, **options):
        file = folder / "mymodel.py"
        file.write_text(textwrap.dedent(source))
        request = {"target": str(file), **options}
        return run_isolated(request, timeout=timeout, start=nursery.start)

    return run


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise SystemExit(3)", "the model called `sys.exit(3)` while loading"),
        ("import os; os._exit(7)", "the process ended with exit code 7 while loading"),
        ("import ctypes; ctypes.string_at(0)", "signal SIGSEGV while loading"),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL while loading"),
        ("while True: pass", "no result after 1 s: stopped while loading"),
    ],
)
def test_a_child_dies_alone(run, source, said):
    with pytest.raises(CouldNotRun) as caught:
        run(source, timeout=1)
    assert said in caught.value.message
    assert run("def examine(): return ['well']").notes[-1] == "well"


def test_a_hang_that_stops_the_watchdog_is_killed_from_outside(run, monkeypatch):
    monkeypatch.setattr("vaedoctor.isolate.GRACE", 0.5)
    with pytest.raises(CouldNotRun, match="no result after 1 s"):
        run(
            "import faulthandler\nfaulthandler.cancel_dump_traceback_later()\nwhile True: pass",
            timeout=1,
        )


def test_a_child_knows_nothing_of_those_before_it(run):
    run("import json, os, random\njson.mine = 1\nos.environ['MINE'] = '1'\nos.chdir('/')")
    report = run(
        """
        import json, os, sys
        def examine(): return [hasattr(json, "mine"), "MINE" in os.environ, os.getcwd(), sys.argv]
        """
    )
    assert report.notes[-4:-1] == ("False", "False", os.getcwd())


@pytest.mark.parametrize(
    ("beside", "said", "threads"), [(1, None, None), (1000, None, "1"), (1000, "7", "7")]
)
def test_children_share_the_processors(folder, monkeypatch, beside, said, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    (folder / "m.py").write_text(
        "import os\ndef examine(): return [os.environ.get('OMP_NUM_THREADS')]"
    )
    with Nursery(beside) as nursery:
        report = run_isolated({"target": "m.py"}, timeout=30, start=nursery.start)
    assert report.notes[-1] == str(threads)


def test_stdin_is_empty_and_prints_go_to_stderr(run, capfd):
    run("import sys, os; print('loud'); os.system('echo louder'); assert not sys.stdin.read()")
    assert capfd.readouterr() == ("", "loud\nlouder\n")


def test_what_a_child_started_ends_with_it(run, folder):
    run(
        """
        import subprocess, sys
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open("pid", "w").write(str(sleeper.pid))
        """
    )
    assert _ends(int((folder / "pid").read_text()))


def test_children_end_with_their_nursery_when_the_parent_is_killed(folder):
    (folder / "m.py").write_text(
        "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    code = (
        "from vaedoctor.jobs import *;list(examine_all([{'target': 'm.py'}], jobs=1, timeout=60))"
    )
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as parent:
        _appears(folder / "pid")
        parent.send_signal(signal.SIGKILL)
    assert _ends(int((folder / "pid").read_text()))


def test_a_nursery_that_died_is_replaced(run, nursery):
    run("")
    nursery._process.kill()
    nursery._process.wait()
    assert run("def examine(): return ['well']").notes[-1] == "well"


def test_leaving_before_the_birth_leaves_nothing(folder, nursery):
    (folder / "m.py").write_text("import os, time; open('pid', 'w').close(); time.sleep(60)")
    with Isolated({"target": "m.py"}, timeout=60, start=nursery.start):
        pass
    time.sleep(1)
    assert not (folder / "pid").exists()


def test_the_report_is_that_of_a_process_of_its_own(tmp_path):
    """With torch, and the same bytes."""
    fixture = ROOT / "fixtures" / "sampling" / "scale_misread.py"
    request = {"target": f"{fixture}:Broken", "seed": 3}
    alone = run_isolated(request, timeout=100).to_json()
    with Nursery() as nursery:
        both = [run_isolated(request, timeout=100, start=nursery.start).to_json() for _ in "ab"]
    texts = [re.sub(r'"seconds": [\d.]+', "", text) for text in (alone, *both)]
    assert json.loads(alone)["exit_code"] == 1
    assert texts[0] == texts[1] == texts[2]
