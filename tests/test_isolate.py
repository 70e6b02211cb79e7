"""Whatever the user's code does to its process, the parent tells it: real child processes.

A stub stands in for loading and examining, so that no child imports torch: it executes the
target file when it loads, and calls the file's `examine()` when it examines.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vaedoctor import isolate, prints
from vaedoctor.finding import Report
from vaedoctor.isolate import CouldNotRun, Isolated, run_isolated, user_frames

STUB = """
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

target, checkup = ModuleType("vaedoctor.subject.target"), ModuleType("vaedoctor.checkup")

@contextmanager
def loaded(file, **options):
    space = {"options": options}
    exec(compile(open(file).read(), file, "exec"), space)
    subject = space.get("subject", SimpleNamespace())
    subject.space = space
    yield subject

def examine_subject(subject, **options):
    from vaedoctor.finding import Report

    space = subject.space
    notes = space["examine"]() if "examine" in space else ()
    return Report(str(options), notes=(repr(space["options"]), *map(str, notes or ())))

target.loaded, checkup.examine_subject = loaded, examine_subject
sys.modules |= {"vaedoctor.subject.target": target, "vaedoctor.checkup": checkup}
"""


@pytest.fixture
def folder(folder_of_children):
    """An empty working folder; temporary files go to another, which is empty in the end."""
    return folder_of_children(STUB)


@pytest.fixture
def run(folder):
    def run(source, *, timeout=30, **options):
        file = folder / "mymodel.py"
        file.write_text(textwrap.dedent(source))
        debug = options.pop("debug", False)
        return run_isolated({"target": str(file), **options}, timeout=timeout, debug=debug)

    return run


@pytest.fixture
def dies(run):
    """The reason why a file cannot be examined."""

    def dies(source, **options):
        with pytest.raises(CouldNotRun) as caught:
            run(source, **options)
        assert caught.value.exit_code == 2
        assert str(Path("vaedoctor") / "isolate.py") not in caught.value.traceback
        return caught.value

    return dies


def test_the_report_comes_back_with_the_options_handed_over(run):
    report = run("", seed=3, select=["VAE3"], fail_on="note", args={"d": "2"})
    assert isinstance(report, Report)
    assert report.target == "{'select': ['VAE3'], 'fail_on': 'note', 'seed': 3}"
    assert report.notes == ("{'args': {'d': '2'}, 'seed': 3}",)


def test_prints_go_to_stderr_and_stdin_is_empty(run, capfd):
    run("import sys, os; print('loud'); os.system('echo louder'); assert not sys.stdin.read()")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "loud\nlouder\n"


def test_a_line_is_printed_once_and_of_many_lines_the_first(run, capfd):
    source = "for i in range(90): print('again'); print(i, end=' of 90\\n')\nprint('held', end='')"
    run("import sys, warnings\n" + source + "; print('last', file=sys.stderr)")
    out, err = capfd.readouterr()
    assert out == ""
    *shown, told = err.splitlines()
    assert shown == ["again", *(f"{i} of 90" for i in range(prints.MOST - 1))]
    assert told == f"({182 - prints.MOST} more lines that your code printed)"


def test_what_torch_keeps_of_compilations_goes_with_the_request(run, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    run("import os; os.makedirs(os.environ['TORCHINDUCTOR_CACHE_DIR'])")


def test_the_child_works_in_the_same_folder_without_its_modules_being_taken_for_libraries(
    run, folder
):
    (folder / "json.py").write_text("raise SystemExit('not the library')")
    report = run("import os\ndef examine(): return [os.getcwd()]")
    assert report.notes[-1] == str(folder)


@pytest.mark.parametrize("phase", ["loading", "examining"])
def test_sys_exit_is_told_with_the_users_line(dies, phase):
    source = "import sys\ndef stop():\n    sys.exit(3)\n"
    error = dies(source + ("stop()" if phase == "loading" else "examine = stop"))
    assert error.message.startswith(f"the model called `sys.exit(3)` while {phase} ")
    assert 'mymodel.py", line 3, in stop' in error.traceback
    assert "__main__" in error.next_step


@pytest.mark.parametrize("code", [0, 7])
def test_os_exit_is_told_with_its_code(dies, code):
    error = dies(f"import os\nos._exit({code})")
    assert error.message.startswith(f"the process ended with exit code {code} while loading ")
    assert "os._exit" in error.next_step


def test_a_crash_of_the_interpreter_shows_the_users_frames(dies):
    error = dies(
        """
        import ctypes
        def inner():
            ctypes.string_at(0)
        def examine():
            inner()
        """
    )
    assert error.message.startswith("the process ended with signal SIGSEGV while examining ")
    lines = error.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    at = [i for i, line in enumerate(lines) if "mymodel.py" in line]
    assert [lines[i].split()[-1] for i in at] == ["examine", "inner"]
    assert lines[at[1] + 1].strip() == "ctypes.string_at(0)"


def test_a_killed_process_is_told_with_a_guess_at_memory(dies):
    error = dies("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "signal SIGKILL while loading" in error.message
    assert "memory" in error.next_step


def test_what_a_hung_child_put_aside_is_gone(dies, folder, monkeypatch):
    """The folder's fixture sees that no temporary file is left."""
    monkeypatch.setenv("TMPDIR", str(folder.parent / "temporary"))
    dies("import tempfile\ntempfile.mkdtemp()\nwhile True: pass", timeout=1)


def test_a_hang_is_stopped_and_shown_where_it_is(dies):
    start = time.monotonic()
    error = dies("def wait():\n    while True: pass\nwait()", timeout=1)
    assert time.monotonic() - start < 10
    assert error.message.startswith("no result after 1 s: stopped while loading ")
    assert 'mymodel.py", line 2, in wait' in error.traceback
    assert error.traceback.splitlines()[-1].strip() == "while True: pass"


def test_where_an_examination_takes_too_long_its_size_is_told(dies):
    source = """
    from types import SimpleNamespace

    weight = SimpleNamespace(numel=lambda: 2_000_000)
    model = SimpleNamespace(parameters=lambda: [weight])
    batch = SimpleNamespace(args=(SimpleNamespace(shape=(8, 3, 64, 64)),), kwargs={})
    subject = SimpleNamespace(model=model, batch=batch)

    def examine():
        while True:
            pass
    """
    error = dies(source, timeout=1)
    assert error.message.startswith("no result after 1 s: stopped while examining ")
    assert error.message.endswith("(2,000,000 parameters, batch 8×3×64×64)")
    assert "--arg" in error.next_step


def test_a_hang_that_stops_the_watchdog_is_killed_from_outside(dies, monkeypatch):
    monkeypatch.setattr("vaedoctor.isolate.GRACE", 0.5)
    source = "import faulthandler\nfaulthandler.cancel_dump_traceback_later()\nwhile True: pass"
    assert dies(source, timeout=1).message.startswith("no result after 1 s")


def test_what_the_child_started_ends_with_it(run, folder):
    run(
        """
        import subprocess, sys
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open("pid", "w").write(str(sleeper.pid))
        """
    )
    assert _ends(int((folder / "pid").read_text()))


def test_a_thread_that_never_ends_keeps_nobody_waiting(run):
    run("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()")


def test_an_interrupt_ends_the_child_and_removes_its_files(folder):
    file = folder / "mymodel.py"
    file.write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")

    def interrupted():
        with Isolated({"target": str(file)}, timeout=60):
            _appears(folder / "pid")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _ends(int((folder / "pid").read_text()))


def test_sigterm_ends_the_child_and_removes_its_files(folder):
    file = folder / "mymodel.py"
    file.write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    temporary = folder.parent / "temporary"
    code = f"from vaedoctor.isolate import *; run_isolated({{'target': {str(file)!r}}}, timeout=60)"
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[1])])
    env = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as parent:
        try:
            _appears(folder / "pid")
        finally:
            parent.terminate()
        assert parent.wait(10) == 128 + signal.SIGTERM
    assert _ends(int((folder / "pid").read_text()))
    assert not list(temporary.iterdir())


def test_an_error_of_the_target_keeps_its_words(dies):
    error = dies(
        """
        from vaedoctor.subject.errors import TargetError
        raise TargetError("no such class", traceback="theirs", next_step="look again")
        """
    )
    assert (error.message, error.traceback, error.next_step) == (
        "no such class",
        "theirs",
        "look again",
    )


def test_a_bug_of_ours_is_called_ours(dies):
    error = dies("def examine(): raise KeyError('z')")
    assert error.message == "vaedoctor itself failed: KeyError: 'z'"
    assert error.traceback == ""
    assert "--debug" in error.next_step


def test_a_bug_of_ours_shows_everything_when_debugging(run):
    with pytest.raises(CouldNotRun) as caught:
        run("def examine(): raise KeyError('z')", debug=True)
    assert "in _examine" in caught.value.traceback
    assert "KeyError: 'z'" in caught.value.traceback


def test_any_other_exit_is_told(dies):
    assert "raised `KeyboardInterrupt` while loading" in dies("raise KeyboardInterrupt").message
    assert dies("raise MemoryError").message.startswith("out of memory while loading ")


def test_the_error_is_shown_without_control_characters():
    error = CouldNotRun("bad \x1b[2J", traceback="line\n\x1b]0;x\x07", next_step="a\nb")
    assert error.format_message() == (
        "error: bad \\x1b[2J\n\nline\n\\x1b]0;x\\x07\n\nnext: a\n      b"
    )


def test_the_calls_between_two_frames_of_the_user_are_left_out():
    dump = (
        "Current thread 0x01 (most recent call first):\n"
        '  File "/their/file.py", line 9 in forward\n'
        '  File "/lib/torch/nn/modules/module.py", line 1832 in inner\n'
        '  File "/lib/torch/nn/modules/module.py", line 1773 in _call_impl\n'
        '  File "/their/file.py", line 4 in step\n'
        f'  File "{isolate.__file__}", line 1 in child\n'
        '  File "<string>", line 1 in <module>\n'
    )
    assert user_frames(dump) == (
        "Traceback (most recent call last):\n"
        '  File "/their/file.py", line 4, in step\n'
        '  File "/their/file.py", line 9, in forward\n'
    )


def test_frames_of_another_thread_serve_when_the_first_has_none():
    dump = (
        "Timeout (0:00:01)!\n"
        "Thread 0x01 (most recent call first):\n"
        '  File "/their/file.py", line 4 in work\n'
        "Thread 0x02 (most recent call first):\n"
        '  File "<frozen runpy>", line 88 in _run_code\n'
    )
    assert user_frames(dump) == (
        'Traceback (most recent call last):\n  File "/their/file.py", line 4, in work\n'
    )
    assert user_frames("") == ""


def _appears(file):
    for _ in range(1000):
        if file.exists() and file.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{file.name} was never written")


def _ends(pid):
    """Whether a process is gone, or a zombie that nobody has waited for, within seconds."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
