"""The command in a report asks for the same examination again."""

import shlex
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from vaedoctor import cli, isolate
from vaedoctor.finding import Report
from vaedoctor.reproduce import command


@pytest.fixture
def asked(monkeypatch):
    """What the child process would be asked."""
    state = SimpleNamespace(request=None)

    class Stub:
        def __init__(self, request, **options):
            state.request = request

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def report(self):
            return Report("m.py:VAE")

    monkeypatch.setattr(isolate, "Isolated", Stub)
    return state


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
def test_the_command_asks_for_the_same_again(asked, words):
    CliRunner().invoke(cli.main, shlex.split(words))
    first = asked.request
    again = command(first)
    assert again.startswith("vaedoctor check ")
    CliRunner().invoke(cli.main, shlex.split(again)[1:])
    assert asked.request == first


def test_defaults_are_not_spelled_out(asked):
    CliRunner().invoke(cli.main, ["check", "m.py:VAE"])
    assert command(asked.request) == "vaedoctor check m.py:VAE --seed 0"
