"""What the parameters of a script's entry point are when nothing is typed.

`click` and `typer` say it in decorators and defaults, `sacred` in a function that assigns, `hydra`
in YAML files, `wandb` where a run starts. None of these libraries has to be installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .syntax import Function, called_name

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def said_by_decorators(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """(parameter, default) of `@click.option("--latent-dim", default=20)`."""
    for decorator in function.decorator_list:
        if not isinstance(decorator, ast.Call):
            continue
        if called_name(decorator) not in {"option", "argument"}:
            continue
        words = [a.value for a in decorator.args if isinstance(a, ast.Constant)]
        given = {k.arg: k.value for k in decorator.keywords}
        names = [w.lstrip("-").partition("/")[0] for w in map(str, words)]
        plain = [n for n, w in zip(names, words, strict=True) if not str(w).startswith("-")]
        name = (plain or sorted(names, key=len, reverse=True) or [""])[0]
        name = name.replace("-", "_").lower()
        if "default" in given:
            yield name, given["default"]
        elif isinstance(flag := given.get("is_flag"), ast.Constant) and flag.value:
            yield name, ast.Constant(False)


def said_by_default(default: ast.expr) -> ast.expr:
    """`20` for `typer.Option(20, help=...)`; any other default as it is."""
    match default:
        case ast.Call(args=[first, *_]) if called_name(default) in {"Option", "Argument"}:
            return first
        case ast.Call(keywords=keywords) if called_name(default) in {"Option", "Argument"}:
            return next((k.value for k in keywords if k.arg == "default"), default)
    return default


def config_functions(tree: ast.Module) -> Iterator[Function]:
    """The functions whose assignments are sacred's configuration: `@ex.config`."""
    for stmt in tree.body:
        if isinstance(stmt, ast.FunctionDef) and any(
            isinstance(d, ast.Attribute) and d.attr == "config" for d in stmt.decorator_list
        ):
            yield stmt


def hydra_config(function: Function, folder: Path) -> Config | None:
    """The configuration that `@hydra.main(config_path=..., config_name=...)` reads."""
    for decorator in function.decorator_list:
        if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "hydra.main":
            continue
        given = {k.arg: getattr(k.value, "value", None) for k in decorator.keywords}
        name = given.get("config_name")
        if isinstance(name, str):
            held = _composed(folder / str(given.get("config_path") or "."), name)
            return None if held is None else Config(_resolved(held, held))
    return None


def tracked_config(node: ast.Attribute, tree: ast.Module) -> ast.expr | None:
    """What the file gives `wandb.init(config=...)`, where code reads `wandb.config` of it."""
    if node.attr != "config" or not isinstance(node.value, ast.Name):
        return None
    runs = {"wandb"}
    calls: list[ast.Call] = []
    for inner in ast.walk(tree):
        match inner:
            case ast.Assign([ast.Name(id=name)], ast.Call() as call) if _starts_run(call):
                runs.add(name)
        if isinstance(inner, ast.Call) and _starts_run(inner):
            calls.append(inner)
    given = [k.value for c in calls for k in c.keywords if k.arg == "config"]
    return given[0] if given and node.value.id in runs else None


def _starts_run(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "wandb.init"


def config_of(held: Any) -> Any:
    """A dict as the configuration that OmegaConf, ml_collections or easydict make of it."""
    return _resolved(held, held)


class Config(dict[str, Any]):
    """A configuration whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _composed(folder: Path, name: str) -> dict[str, Any] | None:
    """A YAML file with the files of its `defaults` list below their group's name."""
    own = _read(folder / f"{name.removesuffix('.yaml')}.yaml")
    if own is None:
        return None
    found: dict[str, Any] = {}
    for entry in own.pop("defaults", None) or ():
        if isinstance(entry, Mapping):
            for group, choice in entry.items():
                group = str(group).removeprefix("override ").strip("/ ")
                part = _composed(folder / group, str(choice))
                if part is not None:
                    found[group] = part
    return _merged(found, own)


def _read(file: Path) -> dict[str, Any] | None:
    if not file.is_file() or importlib.util.find_spec("yaml") is None:
        return None
    import yaml  # type: ignore[import-untyped,unused-ignore]

    try:
        held = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError):
        return None
    return held if isinstance(held, dict) else {}


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found


def _resolved(value: Any, root: Mapping[str, Any]) -> Any:
    """Nested configurations, and `${model.latent}` replaced by what it refers to."""
    if isinstance(value, dict):
        return Config({k: _resolved(v, root) for k, v in value.items()})
    if isinstance(value, list):
        return [_resolved(v, root) for v in value]
    if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
        found: Any = root
        for part in match[1].split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return value if found is None or found == value else found
    return value
