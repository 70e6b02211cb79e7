"""What is said at the place of an argument that the user has to fill in."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from vaedoctor.subject.construct.marks import documented
from vaedoctor.subject.target import TargetError, load


class Google:
    """A model.

    Args:
        tree (Tree, optional): the ontology,
            as it was read
        other: another
    """


class Numpy:
    def __init__(self, tree: object) -> None:
        """Make one.

        Parameters
        ----------
        tree : Tree
            the ontology, as it was read
        """


class Untyped(Numpy):
    """A model.

    Parameters
    ----------
    tree
        the ontology, as it was read
    other
        another
    """


class Sphinx(Numpy):
    """A model.

    :param Tree tree: the ontology, as it was read
    :param other: another
    """


@pytest.mark.parametrize("kind", [Google, Numpy, Sphinx, Untyped])
def test_what_a_docstring_says_about_a_parameter(kind: type) -> None:
    assert documented(kind, "tree").removeprefix("Tree ") == "the ontology, as it was read"
    assert documented(kind, "leaf") == documented(kind, "param") == ""


def test_a_place_to_fill_in_says_what_belongs_there_and_the_next_part_is_one(
    tmp_path: Path,
) -> None:
    """A part that is None is not called, so the one behind it has not been asked for yet."""
    path = tmp_path / "mymodel.py"
    path.write_text(
        textwrap.dedent(
            """
            from torch import nn
            class JointEncoder(nn.Module):
                def __init__(self, width, sizes, slope=0.1):
                    super().__init__()
                    self.up, self.slope = nn.Linear(width, sizes[2]), slope
            class VAE(nn.Module):
                '''A model.

                :param encoder: gives the mean and the variance
                '''
                def __init__(self, width, encoder=None, decoder=None):
                    super().__init__()
                    self.encoder, self.decoder = encoder, decoder
                    self.shift = nn.Linear(width, width)
                def forward(self, x):
                    found = self.encoder(x)["joint"]["mean"][0](x)
                    return self.decoder(found)
            """
        )
    )
    with pytest.raises(TargetError) as told:
        load(f"{path}:VAE")
    printed = told.value.next_step.partition("model = VAE(\n")[2]
    assert printed.startswith(
        textwrap.indent(
            "width=32,  # <-- made up\n"
            "# encoder: gives the mean and the variance\n"
            "# such as JointEncoder(width=32,sizes=[29,31,33]), of JointEncoder(width, sizes,\n"
            "#   slope=0.1)\n"
            "encoder=...,  # <-- called with 1 argument\n"
            "decoder=...,  # <-- called with 1 argument\n",
            " " * 8,
        )
    )
