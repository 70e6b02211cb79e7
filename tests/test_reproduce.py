"""The command in a report asks for the same examination again."""

import shlex

import pytest
from click.testing import CliRunner

from vaedoctor import cli
from vaedoctor.reproduce import command


@pytest.mark.parametrize(
    "words",
    [
        "check m.py:VAE",
        "check 'my model.py:VAE' --seed 7 --select VAE3,VQ1 --ignore VAE302",
        "check m.py --arg d=16 --arg 'name=it'\"'\"'s; rm' --call train=False --input 2x3",
        "check m.py --objective loss --beta 0.5 --batch-size 4 --checkpoint last.pt",
        "check m.py --condition mask --condition 2 --batch-axis none --exec --hunt",
        "check m.py --batch-axis 1",
    ],
)
def test_the_command_asks_for_the_same_again(child, words):
    CliRunner().invoke(cli.main, shlex.split(words))
    first = child.request
    again = command(first)
    assert again.startswith("vaedoctor check ")
    CliRunner().invoke(cli.main, shlex.split(again)[1:])
    assert child.request == first


def test_defaults_are_not_spelled_out(child):
    CliRunner().invoke(cli.main, ["check", "m.py:VAE"])
    assert command(child.request) == "vaedoctor check m.py:VAE --seed 0"
