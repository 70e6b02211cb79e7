"""Notebooks are Python with magics; every place in one is a cell and a line of it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebooks import notebook
from texts import VAE as MODEL

from vaedoctor.finding import Report
from vaedoctor.notebook import NotebookError, place_in, raw_line, read_notebook, source_line
from vaedoctor.subject.errors import TargetError
from vaedoctor.subject.target import load

IMPORTS = "import torch\nfrom torch import nn"
BROKEN = MODEL.replace(
    "mu + torch.randn_like(mu) * (logvar / 2).exp()", "torch.normal(mu, logvar.exp())"
)


def write(folder: Path, text: str, name: str = "notebook.ipynb") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def code(folder: Path, *cells: str) -> list[str]:
    return read_notebook(Path(write(folder, notebook(*cells)))).text.splitlines()


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("%matplotlib inline\nx = 1", "pass\nx = 1"),
        ("!pip install torch \\\n  torchvision\nx = 1", "pass\n\nx = 1"),
        ("pip install torch\nx = 1", "pass\nx = 1"),
        ("if True:\n    %time f()\n    x = 1", "if True:\n    pass\n    x = 1"),
        ("files = !ls *.png\nt = %timeit -o f()", "files = None\nt = None"),
        ("a, b = !ls", "a, b = None"),
        ("VAE?\ntorch.nn??\n?VAE", "pass\npass\npass"),
        ("%%time\nx = 1", "\nx = 1"),
        ("%%capture out\n%matplotlib inline\nx = 1", "\npass\nx = 1"),
        ("%%bash\nls\necho 'x", "\n\n"),
        ("%%html\n<b>", "\n"),
        (
            "import ast\nfrom __future__ import division",
            "import ast\nfrom __future__ import division",
        ),
        ("x = (7\n% 4)", "x = (7\n% 4)"),
        ("x = '''\n%matplotlib inline\n!ls\n'''", "x = '''\n%matplotlib inline\n!ls\n'''"),
        ("%cd ..\nx = '''\n!ls\n'''", "pass\nx = '''\n!ls\n'''"),
        ("x = 1 \\\n  + 2;", "x = 1 \\\n  + 2;"),
        ("x = await f()", "x = await f()"),
        ("print 'two'", ""),
        ("return 3", ""),
        ("x = '\\d'", "x = '\\d'"),
        ("# !pip install x", "# !pip install x"),
    ],
)
def test_a_cell_becomes_python_line_by_line(tmp_path: Path, cell: str, python: str) -> None:
    assert code(tmp_path, cell) == python.split("\n")


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ["x = 1", "%magic", "!ls", "x?", "", "y = '''", "'''", "if x:", "  z", "é"]
            ),
            max_size=6,
        ),
        max_size=5,
    )
)
def test_whatever_the_cells_no_line_is_lost_and_what_remains_is_python(
    tmp_path: Path, cells: list[list[str]]
) -> None:
    texts = ["\n".join(lines) for lines in cells]
    path = write(tmp_path, notebook(*texts))
    read = read_notebook(Path(path))
    ast.parse(read.text)
    for cell in read.cells:
        for offset, line in enumerate(cell.lines):
            place = place_in(path, cell.first + offset)
            assert place == (f"{path}:cell {cell.number}", offset + 1)
            assert source_line(*place) == line
            file, row = raw_line(*place)
            assert file == path
            raw = Path(path).read_text().splitlines()[row - 1]
            assert json.dumps(line)[1:-1] in raw


def test_a_line_is_found_in_the_file_even_when_all_of_it_is_one_line(tmp_path: Path) -> None:
    text = json.dumps(json.loads(notebook(IMPORTS, MODEL)))
    path = write(tmp_path, text)
    assert raw_line(f"{path}:cell 2", 3) == (path, 1)


def test_cells_as_strings_and_the_old_format_are_read(tmp_path: Path) -> None:
    content = json.loads(notebook(IMPORTS, MODEL))
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
    assert load(write(tmp_path, json.dumps(content))).batch.ran
    for cell in content["cells"]:
        cell["input"] = cell.pop("source").replace("\n", "\r\n")
        cell["language"] = "python"
    old = {"worksheets": [{"cells": content["cells"]}], "nbformat": 3, "metadata": {}}
    assert load(write(tmp_path, json.dumps(old), "old.ipynb")).batch.ran


@pytest.mark.parametrize(
    ("text", "message", "step"),
    [
        ("", "it is empty", "save it"),
        ("[]", "holds no cells", "save it"),
        ('{"cells": 3}', "defines no `nn.Module`", "vaedoctor check"),
        (notebook(MODEL)[:200], "(line 12), so it is not JSON", "save it"),
        ("{\n<<<<<<< HEAD\n}", "git's conflict markers", "save it"),
        ("[" * 100_000, "nested too deeply", "save it"),
        (notebook("x <- 3", language_info={"name": "R"}), "its language is 'r'", "Python kernel"),
        (notebook("# md", "x = 1"), "defines no `nn.Module`", "vaedoctor check"),
        (
            notebook(IMPORTS, MODEL.replace("(self, x)", "(self, x")),
            "cell 2 is not valid Python (line 6:",
            "vaedoctor check",
        ),
    ],
)
def test_a_notebook_that_cannot_be_read_is_one_screen(
    tmp_path: Path, text: str, message: str, step: str
) -> None:
    with pytest.raises(TargetError) as caught:
        load(write(tmp_path, text))
    assert message in caught.value.message
    assert step in caught.value.next_step
    assert len(caught.value.format_message().splitlines()) < 15


def test_bytes_that_are_no_text_are_no_notebook(tmp_path: Path) -> None:
    (tmp_path / "n.ipynb").write_bytes(b"\x80\xff")
    with pytest.raises(NotebookError, match="not text"):
        read_notebook(tmp_path / "n.ipynb")


def test_what_is_left_out_and_what_raises_is_named_by_its_cell(tmp_path: Path) -> None:
    cells = ("# md", IMPORTS + "\n!nvidia-smi\nprepare_everything()", MODEL, "print 'two'")
    notes = load(write(tmp_path, notebook(*cells))).notes
    assert notes[0] == "loaded definitions only: line 4 of cell 2 would run code on import"
    assert notes[1].startswith("cell 4 is not valid Python (line 1: Missing parentheses")
    raising = notebook(IMPORTS, MODEL.replace("super().__init__()", "super().__init__(); 1 / 0"))
    path = write(tmp_path, raising, "raising.ipynb")
    with pytest.raises(TargetError) as caught:
        load(path)
    assert f'File "{path}:cell 2", line 3, in __init__' in caught.value.traceback
    assert "super().__init__(); 1 / 0" in caught.value.traceback


def test_the_last_of_several_definitions_counts(tmp_path: Path) -> None:
    wider = MODEL.replace("d=20", "d=26")
    subject = load(write(tmp_path, notebook(IMPORTS, MODEL, wider, "vae = VAE()")))
    assert subject.batch.args[0].shape[1] == 26
    assert subject.at is not None
    assert place_in(subject.at.file, subject.at.line) == (f"{tmp_path}/notebook.ipynb:cell 3", 1)


def test_a_module_that_a_cell_writes_is_imported_from_the_cell(tmp_path: Path) -> None:
    cells = ("# md", "%%writefile model_written.py\n" + IMPORTS + MODEL, "import torch")
    use = "from model_written import VAE\nvae = VAE(24)"
    path = write(tmp_path, notebook(*cells, use))
    subject = load(path)
    assert subject.batch.args[0].shape[1] == 24
    assert str(subject.at) == f"{path}:cell 2:4:1"
    assert [p.name for p in tmp_path.iterdir()] == ["notebook.ipynb"]
    assert "model_written" not in sys.modules


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vaedoctor", "check", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)


def test_every_format_says_the_cell_or_the_line_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, notebook("# md", IMPORTS, "%time pass\n" + BROKEN.strip()))
    outputs = ("json=r.json", "github=r.txt", "sarif=r.sarif", "concise=c.txt")
    done = check(tmp_path, "notebook.ipynb", *(f"--output={o}" for o in outputs))
    assert done.returncode == 1, done.stderr
    assert "--> notebook.ipynb:cell 3:9:23" in done.stdout
    assert "9 |         return self.d(torch.normal(mu, logvar.exp())), mu, logvar" in done.stdout
    (finding,) = Report.from_json((tmp_path / "r.json").read_text()).findings[:1]
    assert finding.at is not None
    assert finding.at.file == str(tmp_path / "notebook.ipynb:cell 3")
    raw = (tmp_path / "notebook.ipynb").read_text().splitlines()
    # The cell's output quotes the line too, before it.
    line = max(i for i, text in enumerate(raw, 1) if "return self.d(torch.normal" in text)
    assert f"file=notebook.ipynb,line={line}," in (tmp_path / "r.txt").read_text()
    assert f'"startLine": {line}' in (tmp_path / "r.sarif").read_text()
    assert "notebook.ipynb:cell 3:9:23" in (tmp_path / "c.txt").read_text()


def test_a_comment_in_a_cell_silences(tmp_path: Path) -> None:
    silent = BROKEN.replace("mu, logvar\n", "mu, logvar  # vaedoctor: ignore[VAE302]\n")
    write(tmp_path, notebook(IMPORTS, silent))
    assert "1 suppressed" in check(tmp_path, "notebook.ipynb").stdout


def test_exec_runs_all_cells_and_takes_what_they_made(tmp_path: Path) -> None:
    cells = (
        IMPORTS + "\nimport asyncio\n%pylab",
        "async def width():\n    return 26\nd = await width()",
        MODEL,
        "vae = VAE(d)\nwith torch.no_grad():\n    vae.d.bias.fill_(7.0)",
    )
    path = write(tmp_path, notebook(*cells))
    subject = load(path, exec=True)
    assert subject.target.endswith(":vae")
    assert subject.model.d.bias.unique().tolist() == [7.0]
    assert subject.notes[0] == "ran the whole file (`--exec`)"
    with pytest.raises(TargetError, match="--exec"):
        load(f"{path}:vae")
