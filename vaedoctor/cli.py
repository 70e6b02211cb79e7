"""The command line: thin, and without torch until a model is examined."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .config import ConfigError, find_rule, split_words
from .finding import Report
from .output import Outputs, progress, reporting, width, write
from .rule import Rule, all_rules, left_out

if TYPE_CHECKING:
    from .project import Project

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
    vaedoctor check                    examine what pyproject.toml lists
    vaedoctor init                     list the models in pyproject.toml
    vaedoctor anatomy mymodel.py:VAE   show its parts, latents, outputs and loss
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


def _targeting(command: Any) -> Any:
    """The options of `check` and `anatomy` that say how a target is loaded and called."""
    for option in (
        click.option("--exec", is_flag=True, help="Run the whole file, not its definitions alone."),
        click.option("--checkpoint", metavar="PATH", help="A state_dict to load into the model."),
        click.option("--batch-axis", type=_batch_axis, default="0", show_default=True,
                     metavar="N|none", help="The axis of the samples; `none` if there is none."),
        click.option("--batch-size", type=click.IntRange(min=1), help="Rows of a made-up batch."),
        click.option("--beta", type=float, help="The KL weight that is intended."),
        click.option("--condition", "conditions", multiple=True, metavar="NAME|POSITION",
                     help="A batch item that is a condition or a mask, not data."),
        click.option("--objective", metavar="NAME",
                     help="The loss: a function or method of the file."),
        click.option("--input", metavar="SPEC",
                     help="The batch: `data.py:one_batch`, a shape, a file."),
        click.option("--call", multiple=True, metavar="NAME=VALUE",
                     help="Argument of every call of forward."),
        click.option("--arg", "args", multiple=True, metavar="NAME=VALUE",
                     help="Constructor argument."),
    ):  # fmt: skip
        command = option(command)
    return command


@main.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@_judging
@_targeting
@click.option("--hunt", is_flag=True, help="Search for an input that makes the model fail.")
@click.option(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A report as JSON: only findings that it lacks count.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Models examined at the same time.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Take `[tool.vaedoctor]` from this file.",
)
@click.option("--isolated", is_flag=True, help="Ignore every pyproject.toml.")
def check(targets: tuple[str, ...], **options: Any) -> None:
    """Examine TARGET: `mymodel.py:VAE`, `notebook.ipynb`, `package.module:make_vae`.

    Without TARGET, examine all that `[tool.vaedoctor]` in pyproject.toml lists.

    This EXECUTES the file's definitions; all of the file with --exec.
    Exit codes: 0 healthy, 1 findings at or above --fail-on, 2 could not run.
    """
    from .project import Project, find_project

    isolated, config = options.pop("isolated"), options.pop("config")
    project = Project() if isolated else find_project(Path.cwd(), config=config)
    _examine(targets, project, _understood(options))


def _understood(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `_targeting`, taken apart."""
    options["args"] = dict(_argument(a) for a in options["args"])
    options["call"] = dict(_argument(c, "--call") for c in options["call"])
    words = split_words(options["conditions"])
    options["conditions"] = [int(w) if w.lstrip("-").isdigit() else w for w in words]
    return options


@main.command()
@click.argument("target")
@_targeting
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop the examination after.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--debug", is_flag=True, help="Show full tracebacks, ours included.")
def anatomy(target: str, as_json: bool, **options: Any) -> None:
    """Show what TARGET is: family, latents, where the sample is made, outputs, loss terms.

    A target that [tool.vaedoctor] lists takes its settings. Nothing is judged. This EXECUTES the
    file's definitions; all of the file with --exec.
    Exit codes: 0 shown, 2 could not run.
    """
    from .agenda import requests
    from .anatomy import examine_anatomy
    from .project import find_project

    context = click.get_current_context()
    context.meta[_DEBUG] = options["debug"]
    options = _understood(options)
    given = {k: v for k, v in options.items() if _typed(context, k)}
    asked, *others = requests((target,), find_project(Path.cwd()), given)
    if others:
        raise ConfigError(f"`{target}` means {1 + len(others)} listed targets; name one of them")
    shown, code = examine_anatomy(asked["target"], {**options, **asked}, as_json=as_json)
    write(shown, utf8=as_json)
    context.exit(code)


@main.command()
@click.argument("rule", metavar="CODE_OR_NAME")
@_judging
def demo(rule: str, **options: Any) -> None:
    """Examine the small model that breaks a rule."""
    from .demo import demo_target
    from .project import Project

    target = demo_target(find_rule(rule))
    _examine((target.model,), Project(targets=(target,)), options)


@main.command()
@click.option("--dry-run", is_flag=True, help="Print the section, write nothing.")
def init(dry_run: bool) -> None:
    """Write a section [tool.vaedoctor] that lists the models below this folder.

    Files are read, not executed. An existing section is left as it is: what it does not list is
    printed.
    """
    from .init import append, section, told

    made = section(Path.cwd())
    if made.whole and not dry_run:
        append(made)
    else:
        write(made.text, utf8=True)
    for line in told(made, dry_run=dry_run):
        click.echo(line, err=True)


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

    _tell_left_out()
    if markdown is not None:
        from .demo import example

        write_pages(markdown, tuple(r for r in all_rules() if r.own), example)
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

    _tell_left_out()
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


def _tell_left_out() -> None:
    for note in left_out():
        click.echo(f"note: {note}", err=True)


def _examine(targets: tuple[str, ...], project: Project, options: dict[str, Any]) -> None:
    """Examine what was typed or is listed, show it, and end with its exit code."""
    from .agenda import baseline, requests, settings, timeout

    context = click.get_current_context()
    context.meta[_DEBUG] = options["debug"]
    outputs = Outputs.of(options)
    given = {k: v for k, v in options.items() if _typed(context, k)}
    judged = asdict(settings(project, given))
    known = baseline(project, given)
    asked = [{**request, **judged} for request in requests(targets, project, given)]
    limits = {"timeout": timeout(project, given), "debug": options["debug"]}
    if targets and len(asked) == 1:
        _examine_one(asked[0], outputs, known, **limits)
    else:
        _examine_several(asked, outputs, known, jobs=options["jobs"], **limits)


def _typed(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def _examine_one(
    request: dict[str, Any], outputs: Outputs, known: Collection[str], **limits: Any
) -> None:
    """Start the child, import what shows its report while it works, and show it."""
    from .baseline import without_known
    from .isolate import CouldNotRun, Isolated

    with Isolated(request, **limits) as examination:
        outputs.load()
        try:
            report = examination.report()
        except CouldNotRun as why:
            outputs.stopped(Report(request["target"], stop=why.stop))
            raise
    report = without_known(report, known)
    outputs.deliver(report)
    click.get_current_context().exit(outputs.exit_code(report))


def _examine_several(
    requests: list[dict[str, Any]],
    outputs: Outputs,
    known: Collection[str],
    *,
    jobs: int | None,
    **limits: Any,
) -> None:
    """Examine all, a few at a time; one that cannot be examined does not stop the others."""
    from .baseline import without_known
    from .jobs import default_jobs, examine_all

    outputs.load()
    reports: list[Report] = []
    for report in examine_all(requests, jobs=jobs or default_jobs(), **limits):
        reports.append(without_known(report, known))
        progress(f"{len(reports)}/{len(requests)} {report.target}")
    progress("")
    outputs.deliver(reports)
    click.get_current_context().exit(outputs.exit_code(reports))


def _argument(text: str, option: str = "--arg") -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise click.BadParameter(f"`{text}` is not `name=value`", param_hint=option)
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
