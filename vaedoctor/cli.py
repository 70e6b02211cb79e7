"""The command line: thin, and without torch until a model is examined."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import __version__
from .config import ConfigError, Settings, find_rule, parse_severity, select_rules, split_words
from .finding import Report
from .output import Outputs, reporting, width, write
from .rule import Rule, all_rules

_DEBUG = "vaedoctor.debug"


class _Group(click.Group):
    """A group of commands in which a bug of ours is exit code 2 and one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except Exception as bug:
            if ctx.meta.get(_DEBUG):
                raise
            click.echo(
                f"error: vaedoctor itself failed: {type(bug).__name__}: {bug}\n\n"
                "next: please report this; `--debug` shows the traceback",
                err=True,
            )
            ctx.exit(2)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import importlib.metadata as installed

    try:
        torch = installed.version("torch")
    except installed.PackageNotFoundError:
        torch = "not installed"
    write(f"vaedoctor {__version__} · torch {torch} · Python {platform.python_version()}\n")
    ctx.exit()


def _batch_axis(value: str) -> int | None:
    """A number, or None for `none`."""
    try:
        return None if value.lower() == "none" else int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor `none`") from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the versions of vaedoctor, torch and Python.",
)
def main() -> None:
    """Examine a PyTorch variational autoencoder: what is wrong, where, and what to change.

    \b
    vaedoctor check mymodel.py:VAE     examine the class VAE of mymodel.py
    vaedoctor rules                    list what is judged
    vaedoctor explain VAE302           why it matters and how to fix it
    vaedoctor demo VAE302              see the rule find a broken model

    `check` executes the code of the file it is given: check only code that you would run.
    """  # noqa: D301


def _judging(command: Any) -> Any:
    """The options that `check` and `demo` share."""
    for option in (
        reporting,
        click.option("--debug", is_flag=True, help="Show full tracebacks, ours included."),
        click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0,
                     show_default=True, metavar="SECONDS", help="Stop the examination after."),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--fail-on", default="error", show_default=True,
                     metavar="note|warning|error", help="The weakest finding that gives exit 1."),
        click.option("--ignore", multiple=True, metavar="RULES", help="Leave these out."),
        click.option("--select", multiple=True, metavar="RULES",
                     help="Judge only these: codes, prefixes (VAE3), names or ALL, by commas."),
    ):  # fmt: skip
        command = option(command)
    return command


@main.command()
@click.argument("target")
@_judging
@click.option("--arg", "args", multiple=True, metavar="NAME=VALUE", help="Constructor argument.")
@click.option("--input", metavar="SPEC", help="The batch: `data.py:one_batch`, a shape, a file.")
@click.option("--objective", metavar="NAME", help="The loss: a function or method of the file.")
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="NAME|POSITION",
    help="A batch item that is a condition or a mask, not data.",
)
@click.option("--beta", type=float, help="The KL weight that is intended.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows of a made-up batch.")
@click.option(
    "--batch-axis",
    type=_batch_axis,
    default="0",
    show_default=True,
    metavar="N|none",
    help="The axis of the samples; `none` if rows are not samples.",
)
@click.option("--hunt", is_flag=True, help="Search for an input that makes the model fail.")
def check(target: str, **options: Any) -> None:
    """Examine TARGET: `mymodel.py:VAE`, `mymodel.py`, `package.module:make_vae`.

    This EXECUTES the code of the file. Exit codes: 0 healthy, 1 findings at or above --fail-on,
    2 could not run.
    """
    request = {
        key: options.pop(key) for key in ("input", "objective", "beta", "batch_size", "hunt")
    }
    request["batch_axis"] = options.pop("batch_axis")
    request["target"] = target
    request["args"] = dict(_argument(a) for a in options.pop("args"))
    words = split_words(options.pop("conditions"))
    request["conditions"] = [int(w) if w.lstrip("-").isdigit() else w for w in words]
    _examine(request, **options)


@main.command()
@click.argument("rule", metavar="CODE_OR_NAME")
@_judging
def demo(rule: str, **options: Any) -> None:
    """Examine the small model that breaks a rule."""
    from .demo import demo_request

    _examine(demo_request(find_rule(rule)), **options)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--markdown",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the rules' pages and their index into a folder.",
)
def rules(as_json: bool, markdown: Path | None) -> None:
    """List the rules."""
    from .report.pages import rule_to_dict, write_pages

    if markdown is not None:
        from .demo import example

        write_pages(markdown, all_rules(), example)
    elif as_json:
        _write_json([rule_to_dict(r) for r in all_rules()])
    else:
        write(_table(all_rules()))


@main.command()
@click.argument("rule", metavar="CODE_OR_NAME")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def explain(rule: str, as_json: bool) -> None:
    """Explain a rule: what it checks, why it matters, how to fix it, false alarms."""
    from .report.pages import page, rule_to_dict

    found = find_rule(rule)
    if as_json:
        _write_json(rule_to_dict(found))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=min(width(), 100), legacy_windows=False)
    with console.capture() as capture:
        console.print(Markdown(page(found), code_theme="ansi_dark"))
    write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def _examine(request: dict[str, Any], **options: Any) -> None:
    """Start the child, import what shows its report while it works, and show it."""
    from .isolate import CouldNotRun, Isolated

    context = click.get_current_context()
    context.meta[_DEBUG] = options["debug"]
    outputs = Outputs.of(options)
    request |= asdict(_settings(**options))
    with Isolated(request, timeout=options["timeout"], debug=options["debug"]) as examination:
        outputs.load()
        try:
            report = examination.report()
        except CouldNotRun as why:
            outputs.stopped(Report(request["target"], stop=why.stop))
            raise
    outputs.deliver(report)
    context.exit(outputs.exit_code(report))


def _settings(
    *, select: Sequence[str], ignore: Sequence[str], fail_on: str, seed: int, **_: Any
) -> Settings:
    """The judging options, understood or refused."""
    chosen, dropped = split_words(select) or None, split_words(ignore)
    # Without selectors there is nothing to refuse: the child starts before any rule is imported.
    if (chosen or dropped) and not select_rules(chosen, dropped):
        raise ConfigError("`--select` and `--ignore` leave no rule to judge")
    return Settings(chosen, dropped, parse_severity(fail_on), seed)


def _argument(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise click.BadParameter(f"`{text}` is not `name=value`", param_hint="--arg")
    return name.strip(), value


def _table(rules: tuple[Rule, ...]) -> str:
    """The rules by family, one line each."""
    lines: list[str] = []
    family = ""
    names = max((len(r.name) for r in rules), default=0)
    for rule in rules:
        if rule.family != family:
            family = rule.family
            lines += [*([""] if lines else []), family]
        lines.append(
            f"  {rule.code:<6}  {rule.severity!s:<7}  {rule.name:<{names}}  {rule.summary}"
        )
    return "\n".join([*lines, "", f"rules: {len(rules)}; `vaedoctor explain CODE` tells more", ""])


def _write_json(data: object) -> None:
    write(json.dumps(data, indent=2, ensure_ascii=False) + "\n", utf8=True)
