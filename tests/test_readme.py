"""What the README shows is what the tool prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def printed(directory: Path, source: str) -> str:
    (directory / "mymodel.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "vaedoctor", "check", "mymodel.py"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout


def settled(text: str) -> list[str]:
    """Lines without what differs from machine to machine."""
    text = re.sub(r"torch [\w.+]+", "torch X", text)
    return [re.sub(r" in [\d.]+ s", "", line).rstrip() for line in text.splitlines()]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_screen_is_what_is_printed(tmp_path: Path) -> None:
    (source, *_), (shown, *_) = blocks("python"), blocks("console")
    real = settled(printed(tmp_path, source))
    head, tail = (settled(part) for part in shown.partition("\n")[2].split("…\n"))
    assert real[: len(head)] == head
    assert real[-len(tail) :] == tail


def test_the_cure_it_names_cures(tmp_path: Path) -> None:
    source = blocks("python")[0].replace(".sample()", ".rsample()")
    assert "no problems found" in printed(tmp_path, source)
