"""Scripts as people write them are examined without an option, and do nothing while they load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from texts import VAE as MODEL

from vaedoctor.checkup import examine_subject
from vaedoctor.subject.target import TargetError, load

TARGETS = Path(__file__).parent / "targets"
SCRIPTS = sorted(p.name for p in TARGETS.iterdir() if p.suffix in (".py", ".ipynb"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scripts, as the working folder."""
    shutil.copytree(TARGETS, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def everything(folder: Path) -> dict[str, float]:
    return {str(p.relative_to(folder)): p.stat().st_mtime for p in folder.rglob("*")}


def state(folder: Path) -> tuple[object, ...]:
    files = {n: str(getattr(m, "__file__", "")) for n, m in sys.modules.items()}
    return (
        [n for n, f in files.items() if f.startswith(str(folder)) and "__vaedoctor" not in n],
        os.getcwd(),
        dict(os.environ),
        list(sys.argv),
        list(sys.path),
        list(sys.meta_path),
        sys.dont_write_bytecode,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_examined_with_no_option_and_leaves_nothing(folder: Path, script: str) -> None:
    before, process = everything(folder), state(folder)
    subject = load(script)
    assert subject.batch.ran
    assert everything(folder) == before
    assert state(folder) == process
    assert not {"torchvision", "wandb", "sacred", "hydra"} & set(sys.modules)


IMPORTS = "import sys\nimport torch\nfrom torch import nn\n"


def written(folder: Path, text: str) -> str:
    (folder / "model_of_mine.py").write_text(text)
    return str(folder / "model_of_mine.py")


@pytest.mark.parametrize(
    ("before", "message", "step"),
    [
        ("X = fetch_data()\nD = X.size\n", "`X` is made in line 4 of", ":VAE --exec"),
        ("D = int(input())\n", "`D` is made in line 4 of", ":VAE --exec"),
        ("def f():\n    global D\n    D = 3\nf()\n", "line 7 and what follows", ":VAE --exec"),
        ("print(3)\n", "name 'D' is not defined while", "correct `VAE.__init__`"),
        ("D = 1 / 0\n", "raised ZeroDivisionError", "correct line 4 of model_of_mine.py"),
        ("D = int(sys.argv[1])\n", "raised IndexError", "correct line 4 of model_of_mine.py"),
    ],
)
def test_what_the_model_lacks_is_traced_to_its_line(
    tmp_path: Path, before: str, message: str, step: str
) -> None:
    with pytest.raises(TargetError) as caught:
        load(written(tmp_path, IMPORTS + before + MODEL.replace("2 * z)", "2 * z + 0 * D)")))
    assert message in caught.value.message
    assert step in caught.value.next_step


class TestExec:
    TRAINED = (
        IMPORTS
        + MODEL
        + """
vae = VAE(d=next(i for i in range(26, 30)))
optimizer = torch.optim.SGD(vae.parameters(), lr=0.5)
with torch.no_grad():
    vae.d.bias.fill_(7.0)
if __name__ == "__main__":
    vae = None
"""
    )

    def test_the_whole_file_runs_and_its_instance_is_taken(self, tmp_path: Path) -> None:
        subject = load(written(tmp_path, self.TRAINED), exec=True)
        assert subject.target.endswith(":vae")
        assert subject.model.d.bias.unique().tolist() == [7.0]
        assert subject.notes[0].startswith("ran the whole file (`--exec`) except what stands under")
        (optimizer,) = subject.optimizers
        assert optimizer.param_groups[0]["params"][0] is subject.model.e.weight

    def test_a_class_is_built_afresh(self, tmp_path: Path) -> None:
        target = written(tmp_path, self.TRAINED)
        assert load(f"{target}:VAE", exec=True).model.d.bias.unique().numel() > 1

    def test_siblings_run_whole_too(self, tmp_path: Path) -> None:
        (tmp_path / "sizes_of_mine.py").write_text("import os\nos.makedirs('made')\nSIZE = 21\n")
        text = "from sizes_of_mine import SIZE\n" + IMPORTS + MODEL.replace("d=20", "d=SIZE")
        target = written(tmp_path, text)
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            load(target)
            assert not (tmp_path / "made").exists()
            load(target, exec=True)
            assert (tmp_path / "made").exists()
        finally:
            os.chdir(here)

    @pytest.mark.parametrize("end", ["sys.exit()", "sys.exit(0)"])
    def test_a_program_that_ends_well_has_run(self, tmp_path: Path, end: str) -> None:
        assert load(written(tmp_path, IMPORTS + MODEL + end), exec=True).batch.ran

    @pytest.mark.parametrize("end", ["sys.exit('no data')", "raise ValueError('no data')"])
    def test_a_program_that_fails_is_shown(self, tmp_path: Path, end: str) -> None:
        with pytest.raises(TargetError, match="no data") as caught:
            load(written(tmp_path, IMPORTS + MODEL + end), exec=True)
        assert "line 13" in caught.value.traceback


@pytest.mark.parametrize("gpu", [True, False])
def test_cuda_means_cpu_except_in_forward_whatever_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    text = IMPORTS + "where = 'cuda:0'\nHERE = torch.cuda.is_available()\n" + MODEL
    text = text.replace("z=4", "z=4, device='cuda'")
    text = text.replace("super().__init__()", "super().__init__(); self.device = device")
    text = text.replace("nn.Linear(d, 2 * z)", "nn.Linear(d, 2 * z).cuda()")
    held = text.replace("torch.randn_like(mu)", "torch.randn(mu.shape, device=self.device)")
    subject = load(written(tmp_path, held))
    subject.batch.run(subject.model)
    assert subject.model.device == "cpu"
    said = "the device in line 4 and 1 more is read as `cpu`: the check runs on the CPU"
    assert said in subject.notes
    assert torch.cuda.is_available() is gpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the examination's own
    spelled = text.replace("torch.randn_like(mu)", "torch.randn(mu.shape, device='cuda')")
    (tmp_path / "other.py").write_text(spelled)
    report = examine_subject(load(str(tmp_path / "other.py")), select=["VAE203"])
    assert [f.code for f in report.findings] == ["VAE203"]


@pytest.mark.parametrize("target", ["argparse_mnist.py", "tutorial.ipynb", "cuda_everywhere.py"])
def test_a_tutorial_is_found_healthy_from_the_command_line(folder: Path, target: str) -> None:
    before = everything(folder)
    path = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "vaedoctor", "check", target, "-q"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert everything(folder) == before


def test_a_file_of_a_logger_that_another_module_owns_is_not_opened(folder: Path) -> None:
    (folder / "journal.py").write_text(
        "class Journal:\n"
        "    def add(self, name): open(name, 'w').close()\n"
        "    def info(self, text): pass\n"
        "logger = Journal()\n"
    )
    model = MODEL.replace("super().__init__()", "super().__init__(); logger.info('made')", 1)
    (folder / "m.py").write_text(
        f"{IMPORTS}from journal import logger\nlogger.add('run.log')\n{model}"
    )
    assert load("m.py").batch.ran
    assert not (folder / "run.log").exists()
