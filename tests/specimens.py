"""Loads the fixtures and reads the markers that say what is to be found in them, and where."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

FIXTURES = Path(__file__).parents[1] / "fixtures"
_MARKER = re.compile(r"# expect: ((?:VAE|VQ)\d{3})\s*$")


def rule_fixtures() -> list[Path]:
    """Every file with a Broken: fixtures/<family>/<rule_name>.py."""
    return [p for p in sorted(FIXTURES.glob("*/*.py")) if p.parent.name != "healthy"]


def healthy_fixtures() -> list[Path]:
    """The zoo in which nothing is to be found."""
    return sorted((FIXTURES / "healthy").glob("*.py"))


def load(path: Path) -> ModuleType:
    """The fixture as a module, by its path."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # inspect finds a class's source through its module
    spec.loader.exec_module(module)
    return module


def broken(module: ModuleType) -> dict[str, type[nn.Module]]:
    """The module's Broken classes by name, the plain `Broken` first."""
    found = {n: c for n, c in vars(module).items() if n.startswith("Broken")}
    return dict(sorted(found.items(), key=lambda item: item[0] != "Broken"))


def markers(path: Path) -> list[tuple[int, str]]:
    """All (line, code) that the file marks with `# expect: VAE302`."""
    lines = enumerate(path.read_text().splitlines(), start=1)
    return [(n, m.group(1)) for n, line in lines if (m := _MARKER.search(line))]


def expected(path: Path, module: ModuleType, name: str = "Healthy") -> list[tuple[int, str]]:
    """The (line, code) to be found in one class.

    A Broken class owns the markers in its own body; without any, those outside every Broken class
    are its (the bug shows in a line that it inherits). In `fixtures/healthy` a marker is a note
    that a healthy model may well get; the Healthy of a rule's fixture expects nothing.
    """
    if name == "Healthy":
        return markers(path) if path.parent.name == "healthy" else []
    bodies = {n: range(*_lines(c)) for n, c in broken(module).items()}
    own = [m for m in markers(path) if m[0] in bodies[name]]
    inherited = [m for m in markers(path) if not any(m[0] in body for body in bodies.values())]
    return own or inherited


def _lines(cls: type) -> tuple[int, int]:
    source, first = inspect.getsourcelines(cls)
    return first, first + len(source)


def arguments(module: ModuleType) -> tuple[Any, ...]:
    """The fixture's batch as the arguments of forward."""
    made = module.batch()
    return made if isinstance(made, tuple) else (made,)


def loss(module: ModuleType, model: Any) -> Any:
    """One forward pass and the objective: the fixture's own, the model's, or the output's."""
    args = arguments(module)
    if not hasattr(module, "objective") and hasattr(model, "training_step"):
        return model.training_step(args if len(args) > 1 else args[0], 0)
    if type(model).forward is nn.Module.forward:  # the objective puts the parts together
        return module.objective(model, *args)
    output = model(*args)
    if not hasattr(module, "objective"):
        first = next(_flat(output))
        return dict(_named(output)).get("loss", first)
    named: dict[str, Any] = dict(
        zip(inspect.signature(model.forward).parameters, args, strict=False)
    )
    wanted = inspect.signature(module.objective).parameters
    if "out" in wanted:  # the outputs in one piece: other names are inputs
        named["out"] = output
    else:
        named |= dict(_named(output))
    named["model"] = model
    rest = iter(_flat(output))
    return module.objective(**{n: named[n] if n in named else next(rest) for n in wanted})


def _named(output: Any) -> Iterator[tuple[str, Any]]:
    """The outputs that have a name of their own: keys, fields."""
    if isinstance(output, dict):
        yield from output.items()
    elif hasattr(output, "_asdict"):
        yield from output._asdict().items()
    elif hasattr(output, "__dataclass_fields__"):
        yield from vars(output).items()


def _flat(output: Any) -> Iterator[Any]:
    """Outputs without a name, in order, nested tuples opened."""
    if isinstance(output, (tuple, list)):
        for item in output:
            yield from _flat(item)
    else:
        yield output
