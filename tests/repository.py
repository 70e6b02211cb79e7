"""A repository of target models as a team has them: healthy, broken, and some that do not run.

`python tests/repository.py 20` makes one, examines it in both ways and prints time and memory.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures"
INSTALLED = any(e.name == "vaedoctor" for e in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "vaedoctor.pytest_plugin")

MODELS = (
    "sampling/sample_not_reparameterized:Healthy",
    "sampling/sample_not_reparameterized:Broken",
    "objective/kl_sign_flipped:Broken",
    "sampling/scale_misread:Healthy",
    "structure/unregistered_layer:Broken",
    "latent/decoder_ignores_latent:Broken",
    "shapes/shape_chain_broken:Broken",
    "codebook/straight_through_missing:Healthy",
    "device/tensor_left_behind:Broken",
    "objective/kl_missing:Healthy",
    "sampling/noise_frozen:Broken",
    "gradients/gradient_not_finite:Broken",
    "numerics/exp_headroom:Healthy",
    "structure/layer_outside_forward:Broken",
    "shapes/silent_broadcast:Broken",
)
DEATHS = {
    "raises_on_import.py": "1 / 0",
    "kills_the_process.py": "__import__('os').kill(__import__('os').getpid(), 9)",
    "hangs.py": "while True: pass",
    "leaves.py": "__import__('os')._exit(0)",
    "crashes.py": "__import__('ctypes').string_at(0)",
}
DEADLY = "from torch import nn\n\n\nclass VAE(nn.Module):\n    {}\n"


def make(folder: Path, *, models: int, deaths: int, timeout: float) -> int:
    """Write the first of each kind, mixed, and the configuration; the number of targets."""
    targets = list(MODELS[:models])
    for i, (name, source) in enumerate(list(DEATHS.items())[:deaths]):
        (folder / name).write_text(DEADLY.format(source), encoding="utf-8")
        targets.insert(min(3 * i + 1, len(targets)), f"{name}:VAE")
    entries = []
    for target in targets:
        file, _, name = target.partition(":")
        if not file.endswith(".py"):
            source = (FIXTURES / f"{file}.py").read_text(encoding="utf-8")
            file = f"{Path(file).name}_{name.lower()}.py"
            (folder / file).write_text(source, encoding="utf-8")
            batch = f'batch = "{file}:batch"\n' if "def batch(" in source else ""
            loss = 'objective = "objective"\n' if "def objective(" in source else ""
            entries.append(f'[[tool.vaedoctor.targets]]\nmodel = "{file}:{name}"\n{batch}{loss}')
        else:
            entries.append(f'[[tool.vaedoctor.targets]]\nmodel = "{file}:{name}"\n')
    head = f"[tool.vaedoctor]\ntimeout = {timeout}\n\n"
    (folder / "pyproject.toml").write_text(head + "\n".join(entries), encoding="utf-8")
    return len(targets)


def examine(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], float, float]:
    """Run `python -m ...` in the repository: its result, seconds, and the most memory, in MB."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    out, err = process.communicate()
    seconds = time.perf_counter() - started
    watcher.join()
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    return done, seconds, peak[0]


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], _memory(process.pid))
        time.sleep(0.1)


def _memory(root: int) -> float:
    """The memory of a process and all below it, in MB; pages they share are counted once."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
        total += int(found[1]) if found else 0
    return total / 1024


def main(number: int) -> None:
    """Make a repository of so many targets and tell what examining it costs."""
    deaths = min(5, number // 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets = make(folder, models=number - deaths, deaths=deaths, timeout=20)
        for command in (
            ("vaedoctor", "check", "-q", "--jobs", "1"),
            ("vaedoctor", "check", "-q", "--jobs", "2"),
            ("pytest", *PLUGIN, "--vaedoctor", "-q", "-n", "2"),
        ):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done, seconds, peak = examine(folder, *command)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            last = done.stdout.strip().splitlines()[-1]
            print(f"{targets} targets: {' '.join(command)}: exit {done.returncode}, "  # noqa: T201
                  f"{seconds:.1f} s ({spent:.1f} s of a processor), {peak:.0f} MB at most\n"
                  f"    {last}")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
