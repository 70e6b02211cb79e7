"""Where the file goes backward from a loss, and the statements above that the loss needs."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from ..code.source import Source
from ..code.syntax import Function, blocks, called_name, root_name
from .holders import Holders, callees, class_around
from .names import _calls_any, fills, names_in, one_by_one, reads, writes

Chain = tuple[tuple[list[ast.stmt], int], ...]
_NEVER = {"backward", "save", "open", "zero_grad", "add_scalar", "savefig", "save_image"}
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One place where a loss is minimised: the statements it needs, and the call of the model.

    `targets` are the names of the loop's own variables; `whole` is False where the gradients of
    another loss are added to those of this; `above` are all statements above the call.
    """

    statements: tuple[ast.stmt, ...]
    loss: ast.expr
    entry: ast.Call
    targets: tuple[tuple[str, ...], ...]
    function: Function | None
    owner: ast.ClassDef | None
    line: int
    direct: bool = True
    above: tuple[ast.stmt, ...] = ()


def steps(source: Source, holders: Holders) -> Iterator[tuple[Step, frozenset[str]]]:
    """Every place of the file that minimises what a call of the model gives.

    Each with the names that hold the model there, the surest reading first.
    """
    for chain, function, owner in _backwards(source.tree.body, (), None, None):
        statement = chain[-1][0][chain[-1][1]]
        loss = _backward_of(statement)
        if loss is None or not _whole(*chain[-1]):
            continue
        seen: set[tuple[int, int]] = set()
        for names in holders.levels(function, owner):
            reader = Reader(source, holders, names, function, owner)
            step = _needed(chain, loss, reader)
            if step is None or (at := (step.entry.lineno, step.entry.col_offset)) in seen:
                continue
            seen.add(at)
            yield step, names
    yield from _framework_steps(source, holders)


def is_of_own(step: Step, holders: Holders) -> bool:
    """Whether the model of a step is known to be one that the file builds, not only called so."""
    entry = step.entry
    given = [entry.func, *entry.args, *(k.value for k in entry.keywords)]
    texts = [ast.unparse(e) for e in (given[:1] if step.direct else given)]
    if not step.direct and any(t.startswith("self.") for t in texts):
        return True  # a method of a trainer that holds it
    known = holders.known(step.function, step.owner)
    return any(t == n or t.startswith(f"{n}.") for t in texts for n in known)


def _framework_steps(source: Source, holders: Holders) -> Iterator[tuple[Step, frozenset[str]]]:
    """The `training_step` of a class around the model, which its framework calls."""
    for place in source.places:
        stmt, owner = place.stmt, class_around(place)
        if not isinstance(stmt, ast.FunctionDef) or stmt.name != "training_step":
            continue
        if owner is None or owner.name in holders.kinds or len(stmt.args.args) < 2:
            continue
        if any(_backward_of(s) is not None for s in ast.walk(stmt) if isinstance(s, ast.stmt)):
            continue
        more = ", 0" if len(stmt.args.args) > 2 else ""
        call = ast.parse(f"self.{stmt.name}(batch{more})", mode="eval").body
        assert isinstance(call, ast.Call)
        for node in ast.walk(call):
            ast.copy_location(node, stmt)
        names = next(holders.levels(None, owner))
        if any(n.startswith("self.") for n in names):
            yield (
                Step((), call, call, (("batch",),), None, owner, stmt.lineno, direct=False),
                names,
            )


@dataclass(frozen=True, slots=True)
class Reader:
    """Tells which calls run the model, where it is held by these names."""

    source: Source
    holders: Holders
    names: frozenset[str]
    function: Function | None
    owner: ast.ClassDef | None

    def entry(self, node: ast.AST) -> tuple[ast.Call, bool] | None:
        """The first call that runs the model in a piece of code, and whether it does so itself."""
        calls = sorted(
            (n for n in ast.walk(node) if isinstance(n, ast.Call)),
            key=lambda c: (c.end_lineno or 0, c.end_col_offset or 0),
        )
        for call in calls:
            if self.runs(call):
                return call, True
        return next(((c, False) for c in calls if self._runs_inside(c, 0)), None)

    def runs(self, call: ast.Call) -> bool:
        """Whether a call is of the model or of a method or part of it, and is given something."""
        text = ast.unparse(call.func)
        if not (call.args or call.keywords):
            return False
        if text in self.names:
            return True
        attr = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if hasattr(nn.Module, attr) and attr not in {"forward", "__call__"}:
            return False
        return any(text.startswith(f"{n}.") for n in self.names)

    def _runs_inside(self, call: ast.Call, depth: int) -> bool:
        """Whether a call hands the model to a function, or runs one that calls it."""
        func = call.func
        name = called_name(call)
        given = [ast.unparse(a) for a in (*call.args, *(k.value for k in call.keywords))]
        library = isinstance(func, ast.Name) and hasattr(builtins, func.id)
        if library or name in {"parameters", "clip_grad_norm_", "clip_grad_value_"}:
            return False
        if any(g in self.names for g in given):
            return True
        if depth >= _DEEPEST:
            return False
        if isinstance(func, ast.Name) and self._is_made_from_model(func.id):
            return True
        if isinstance(func, ast.Attribute) and root_name(func) in {"torch", "F", "nn"}:
            return False
        return any(self._body_runs(callee, depth) for callee, _ in callees(self.source, name))

    def _body_runs(self, callee: Function, depth: int) -> bool:
        place = next(p for p in self.source.places if p.stmt is callee)
        owner = class_around(place)
        if owner is not None and owner.name in self.holders.kinds:
            return False
        names = next(self.holders.levels(callee, owner))
        inside = replace(self, names=names, function=callee, owner=owner)
        calls = [n for n in ast.walk(callee) if isinstance(n, ast.Call)]
        return any(inside.runs(c) or inside._runs_inside(c, depth + 1) for c in calls)

    def _is_made_from_model(self, name: str) -> bool:
        """`objective` after `objective = objective_for(model)`."""
        bodies = [self.source.tree] if self.function is None else [self.function, self.source.tree]
        for body in bodies:
            for node in ast.walk(body):
                match node:
                    case ast.Assign(targets=[ast.Name(id=found)], value=ast.Call(args=args)):
                        if found == name and any(ast.unparse(a) in self.names for a in args):
                            return "parameters" not in ast.unparse(node.value)
        return False


def _needed(chain: Chain, loss: ast.expr, reader: Reader) -> Step | None:
    """The statements a loss needs, the first call of the model among them, and loop variables."""
    models = {n for n in reader.names if n.isidentifier()}
    if isinstance(loss, ast.Name):
        models.discard(loss.id)  # `ae.backward()`: no model, whatever its name
    needed, chosen = reads(loss), list[ast.stmt]()
    targets: list[tuple[str, ...]] = []
    for block, index in reversed(chain):
        for statement in reversed(_flat(block[:index])):
            made = writes(statement) | fills(statement)
            told = bool(made & (needed - models))
            if not told and not any(reader.entry(s) for s in chosen):
                told = _leaves_on(statement, [*chosen, ast.Expr(loss)], reader)
            if told and not _calls_any(statement, _NEVER):
                chosen.insert(0, statement)
                needed |= reads(statement)
        around = block[index]
        if isinstance(around, ast.For):
            targets.append(tuple(names_in(around.target)))
        if any(reader.entry(s) for s in chosen):
            break
    # Loop variables further out: `for epoch in ...: for i, (x, y) in enumerate(loader):`.
    outer = (block[i] for block, i in chain)
    targets += [tuple(names_in(s.target)) for s in outer if isinstance(s, ast.For)]
    entered = [found for s in [*chosen, ast.Expr(loss)] if (found := reader.entry(s))]
    if not entered:
        return None
    entry, direct = next((e for e in entered if e[1]), entered[0])
    given = {root_name(a) for a in [*entry.args, *(k.value for k in entry.keywords)]}
    first = next((i for i, s in enumerate(chosen) if reader.entry(s)), len(chosen))
    # What prepares the input above is done: the batch is what the model takes.
    before = [s for s in chosen[:first] if not writes(s) | fills(s) <= given]
    line = chain[-1][0][chain[-1][1]].lineno
    return Step(
        (*before, *chosen[first:]),
        loss,
        entry,
        tuple(targets),
        reader.function,
        reader.owner,
        line,
        direct,
        tuple(chosen[:first]),
    )


def _leaves_on(statement: ast.stmt, after: Sequence[ast.stmt], reader: Reader) -> bool:
    """Whether a bare `model(x)` leaves on the model what is read from it afterwards."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not reader.runs(call):
        return False
    read = {
        ast.unparse(n.value)
        for s in after
        for n in ast.walk(s)
        if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)
    }
    return ast.unparse(call.func).removesuffix(".forward") in read & reader.names


def _backwards(
    body: list[ast.stmt], chain: Chain, function: Function | None, owner: ast.ClassDef | None
) -> Iterator[tuple[Chain, Function | None, ast.ClassDef | None]]:
    """Every expression statement, with the blocks around it and how far each has come."""
    for i, statement in enumerate(body):
        here = (*chain, (body, i))
        if isinstance(statement, ast.Expr):
            yield here, function, owner
        inside, around, owned = here, function, owner
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            inside, around = (), statement
        elif isinstance(statement, ast.ClassDef):
            inside, owned = (), statement
        for block in blocks(statement):
            yield from _backwards(block, inside, around, owned)


def _whole(body: list[ast.stmt], at: int) -> bool:
    """Whether the optimizer steps between this backward pass and the block's others.

    Where it does not, the gradients of several losses add up: one of them is a part.
    """
    others = False
    for i, statement in enumerate(body):
        match statement:
            case ast.Expr(ast.Call(ast.Attribute(attr="step" | "zero_grad"))):
                if i > at:
                    break
                others = False
            case _ if i != at and _backward_of(statement) is not None:
                others = True
    return not others


def _backward_of(statement: ast.stmt) -> ast.expr | None:
    """`loss` of `loss.backward()`, `scaler.scale(loss).backward()`, `fabric.backward(loss)`."""
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(value, "backward" | "manual_backward"), args)):
            loss = args[0] if args else value
            match loss:
                case ast.Call(ast.Attribute(attr="scale"), [inner]):
                    return inner
            return loss
    return None


def _flat(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Statements with the bodies of `with` in line: `with autocast():` changes no value.

    `with no_grad():` stays as it is, for it cuts gradients off.
    """
    found: list[ast.stmt] = []
    for statement in body:
        plain = isinstance(statement, ast.With) and not any(
            i.optional_vars or _cuts(i.context_expr) for i in statement.items
        )
        if isinstance(statement, ast.With) and plain:
            found += _flat(statement.body)
        else:
            found += one_by_one(statement)
    return found


def _cuts(context: ast.expr) -> bool:
    return isinstance(context, ast.Call) and called_name(context) in {"no_grad", "inference_mode"}
