"""Search for an input that makes the model raise or yield numbers that are not finite.

Hypothesis varies the number of rows, the kind of values and their scale, and shrinks what it finds
to the smallest. Several rows run in train mode, a single one in eval mode (batch normalisation
rightly refuses one row while training).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from hypothesis import HealthCheck, find, settings
from hypothesis.errors import NoSuchExample
from torch import Tensor

from ...finding import Hunt
from ...strategies import Recipe, recipes
from ...subject.subject import Batch, Subject
from ...subject.total import total
from ...subject.trials.switches import seed_everything, set_mode
from ..runs.outputs import named_tensors

EXAMPLES = 200
MOST_ROWS = 8


def hunt(subject: Subject, seed: int, rewind: Callable[[], None]) -> Hunt:
    """Look for the smallest failing input; `code` is empty where none was found."""
    position = _data(subject.batch)
    if position is None:
        return Hunt(0, "", "the batch is not one tensor with other arguments left as they are", "")
    example = subject.batch.args[position]
    limit = None if example.is_floating_point() else int(example.max()) + 1
    tried = 0
    said: dict[Recipe, str] = {}

    def fails(recipe: Recipe) -> bool:
        nonlocal tried
        tried += 1
        advance()
        said[recipe] = _outcome(subject, position, recipe, seed)
        rewind()
        return bool(said[recipe])

    with _progress() as advance:
        try:
            found = find(
                recipes(*example.shape[1:], max_rows=MOST_ROWS, limit=limit),
                fails,
                settings=settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except NoSuchExample:
            return Hunt(tried, "", "no input found that makes the model raise or overflow", "")
    return Hunt(tried, found.code, said[found], _reproducer(subject, found, position, seed))


def _data(batch: Batch) -> int | None:
    """The position of the tensor to vary: the only one with rows."""
    if batch.kwargs:
        return None
    tensors = [i for i, a in enumerate(batch.args) if isinstance(a, Tensor) and a.dim() > 0]
    return tensors[0] if len(tensors) == 1 else None


def _outcome(subject: Subject, position: int, recipe: Recipe, seed: int) -> str:
    """What goes wrong with one input, in a few words; empty when nothing does."""
    args = list(subject.batch.args)
    args[position] = recipe.make().to(args[position])
    batch = replace(subject.batch, args=tuple(args))
    set_mode(subject.model, recipe.shape[0] > 1)
    seed_everything(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            output = batch.run(subject.model)
            loss = None
            if subject.objective is not None:
                seed_everything(seed)
                loss = total(subject.objective.run(subject.model, batch))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's model may raise anything, SystemExit too
            return (
                f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
    for name, tensor in named_tensors(output):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all()):
            return f"output `{name}` is not finite"
    if loss is not None and not bool(torch.isfinite(loss.detach()).all()):
        return f"the loss is {float(loss.detach()):g}"
    return ""


def _reproducer(subject: Subject, recipe: Recipe, position: int, seed: int) -> str:
    """Lines to paste: make the model, make the input, run it."""
    mode = "train" if recipe.shape[0] > 1 else "eval"
    if ":" in subject.target:
        made = f"load({subject.target!r}).model.{mode}()"
        first = ["import torch", "from vaedoctor.subject.target import load", f"model = {made}"]
    else:
        first = ["import torch", f"model = {type(subject.model).__name__}(...).{mode}()  # yours"]
    others = [f"arg{i}" if i != position else "x" for i in range(len(subject.batch.args))]
    return "\n".join(
        [
            *first,
            f"torch.manual_seed({recipe.seed})",
            f"x = {recipe.code}",
            f"torch.manual_seed({seed})",
            f"print(model({', '.join(others)}))",
        ]
    )


@contextmanager
def _progress() -> Iterator[Callable[[], None]]:
    """A transient progress bar on stderr where someone is looking."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_interactive) as bar:
        task = bar.add_task("hunting", total=EXAMPLES)
        yield lambda: bar.advance(task)
