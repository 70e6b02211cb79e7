"""Many targets: each in a process of its own, a few at a time, in the order they were asked for.

As in test_isolate, a stub stands in for loading and examining, so that no child imports torch.
"""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from test_isolate import STUB

from vaedoctor.jobs import default_jobs, examine_all

ROOT = Path(__file__).parents[1]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write files, and get their requests."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "sitecustomize.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)

    def files(*sources):
        for i, source in enumerate(sources):
            (tmp_path / f"m{i}.py").write_text(textwrap.dedent(source))
        return [{"target": str(tmp_path / f"m{i}.py")} for i in range(len(sources))]

    yield files
    assert not list((tmp_path / "temporary").iterdir())


def test_one_broken_target_does_not_stop_the_others(files):
    requests = files(
        "def examine(): return ['first']",
        "raise SystemExit(3)",
        "import os; os._exit(4)",
        "while True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "def examine(): return ['last']",
    )
    reports = list(examine_all(requests, jobs=3, timeout=2))
    assert [r.notes[-1] if r.stop is None else r.stop.message[:34] for r in reports] == [
        "first",
        "the model called `sys.exit(3)` whi",
        "the process ended with exit code 4",
        "no result after 2 s: stopped while",
        "the process ended with signal SIGK",
        "last",
    ]
    assert [r.exit_code for r in reports] == [0, 2, 2, 2, 2, 0]
    assert reports[1].target == requests[1]["target"]


def test_no_more_children_at_once_than_asked_for(files):
    source = """
        import os, time
        def examine():
            open(f"running-{os.getpid()}", "x").close()
            time.sleep(0.3)
            seen = len([n for n in os.listdir() if n.startswith("running-")])
            os.remove(f"running-{os.getpid()}")
            return [seen]
        """
    seen = [int(r.notes[-1]) for r in examine_all(files(*[source] * 5), jobs=2, timeout=30)]
    assert max(seen) <= 2


def test_a_target_is_examined_in_the_folder_that_lists_it(files, tmp_path):
    (tmp_path / "inner").mkdir()
    (request,) = files("import os\ndef examine(): return [os.getcwd()]")
    request["folder"] = str(tmp_path / "inner")
    (report,) = examine_all([request], jobs=1, timeout=30)
    assert report.notes[-1] == str(tmp_path / "inner")


def test_leaving_early_ends_the_children(files, tmp_path):
    waits = "import os, time; open(f'pid-{os.getpid()}', 'x').close(); time.sleep(60)"
    running = examine_all(files("", waits, waits, waits), jobs=3, timeout=60)
    assert next(running).stop is None
    while len(list(tmp_path.glob("pid-*"))) < 2:
        time.sleep(0.01)
    running.close()
    pids = [int(p.name[4:]) for p in tmp_path.glob("pid-*")]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_sigterm_ends_the_children(files, tmp_path):
    waits = "import os, time; open(f'pid-{os.getpid()}', 'x').close(); time.sleep(60)"
    requests = files(waits, waits)
    code = f"from vaedoctor.jobs import *; list(examine_all({requests}, jobs=2, timeout=60))"
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as parent:
        while len(list(tmp_path.glob("pid-*"))) < 2:
            time.sleep(0.01)
        parent.terminate()
        assert parent.wait(10) == 128 + 15


def test_there_is_at_least_one_job():
    assert 1 <= default_jobs() <= 4
