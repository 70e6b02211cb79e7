"""Which output or input of the model each parameter of a loss means."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .construction import user_names
from .scope import Scope
from .source import (
    Function,
    Place,
    Source,
    called_name,
    function_tree,
    own_expressions,
    root_name,
)
from .subject import Batch
from .trial import forward_parameters, leaves, pick

Arguments = tuple[list[Any], dict[str, Any]]
_ROLES = (
    (
        "logvar",
        r".*log.*(var|sig|std|scale).*|lv|ls|.*(sigma|std|var|scale|stddev)s?_?|lnvar|lsigma",
    ),
    (
        "weight",
        r".*(beta|weight|lambda|lambd|alpha|gamma|coef\w*|anneal\w*|m_n|kld_w|temperature|capacity)",
    ),
    ("step", r"epoch|step|batch_idx|batch_index|iteration|global_step|optimizer_idx|idx"),
    (
        "recon",
        r".*rec(on)?.*|.*_hat|xhat|.*_(prime|tilde|logits|out|pred)|outputs?|out|preds?|predictions?"
        r"|logits|decoded|generated|decode|decoder|y_pred|x_mu|mu_x|fake|probs?|p_x",
    ),
    ("mu", r"mu.*|.*_mu|means?_?|.*_means?|m|loc|.*_loc|q_m"),
    ("label", r"y|c|labels?|cond.*|class.*|attrs?|onehot|one_hot|y_true_label"),
    (
        "input",
        r"x|x\d|inputs?|inp|data|targets?|batch|imgs?|images?|orig.*|x_.*|.*_x|true|real|samples?|gt"
        r"|ground_truth|features|x_true|y_true",
    ),
    ("z", r"z.*|latents?|codes?|h"),
)
_WHOLE = re.compile(
    r"outputs?|out|results?|res|preds?|ret|model_out.*|forward_out.*", re.IGNORECASE
)


class Unbound(Exception):
    """A parameter for which nothing fits."""

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(reason)
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make the arguments of a loss from the model, the batch and the output."""

    arguments: Callable[[nn.Module, Batch, Any], Arguments]
    needs_output: bool = True
    own_call: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """One forward pass to bind against: the batch, the output, and the names in its `return`."""

    model: nn.Module
    batch: Batch
    output: Any
    names: list[Any]


def role(name: str) -> str | None:
    """What a name usually means in a VAE: `recon`, `input`, `mu`, `logvar`, `z`, ...; or None."""
    bare = name.lower().lstrip("_")
    return next((r for r, pattern in _ROLES if re.fullmatch(pattern, bare)), None)


def return_names(model: nn.Module) -> list[Any]:
    """The names in the last `return a, b, c` of forward, nested tuples as nested lists."""
    tree = function_tree(type(model).forward)
    returns = [n for n in ast.walk(tree) if isinstance(n, ast.Return)] if tree else []
    if not returns:
        return []
    last = max(returns, key=lambda n: n.lineno).value

    def named(node: ast.expr | None) -> Any:
        if isinstance(node, ast.Tuple | ast.List):
            return [named(e) for e in node.elts]
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return node.attr
        return called_name(node) if isinstance(node, ast.Call) else ""

    found = named(last)
    return found if isinstance(found, list) else [found]


def model_first() -> Recipe:
    """`loss(model, *batch)`."""
    return Recipe(lambda m, b, _: ([m, *b.args], dict(b.kwargs)), needs_output=False)


def by_names(
    function: Callable[..., Any], parameters: list[inspect.Parameter], binding: Binding
) -> Recipe | Unbound:
    """Bind every parameter by its name, then by shape and position."""
    try:
        return _Names(function, parameters, binding).recipe()
    except Unbound as unbound:
        return unbound


class _Names:
    """One parameter after the other takes an output (a path into it), an input or a constant."""

    def __init__(
        self, function: Callable[..., Any], parameters: list[inspect.Parameter], binding: Binding
    ) -> None:
        self.function = function
        self.parameters = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self.spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.spare = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self.binding = binding
        self.inputs = _input_slots(binding)
        self.slots = {path: _slot_name(path, binding.names) for path, _ in leaves(binding.output)}
        self.bound: dict[str, Callable[[nn.Module, Batch, Any], Any]] = {}
        self.needs_output = False

    def recipe(self) -> Recipe:
        for step in (self._exact, self._inputs, self._roles, self._shapes, self._constants):
            for p in self.parameters:
                if p.name not in self.bound:
                    step(p)
        self._in_order()
        self._check()
        bound, needs = dict(self.bound), self.needs_output or self.spread
        keys = _keyword_keys(self.function, self.spare)
        positional = [p.name for p in self.parameters if p.kind is not p.KEYWORD_ONLY]
        spread = self.spread

        def arguments(model: nn.Module, batch: Batch, output: Any) -> Arguments:
            values = {name: take(model, batch, output) for name, take in bound.items()}
            if spread:
                parts = list(output) if isinstance(output, tuple | list) else [output]
                args = [values.pop(n) for n in positional if n in values]
                return [*args, *parts], {**values, **dict.fromkeys(keys, 1.0)}
            return [], {**values, **dict.fromkeys(keys, 1.0)}

        return Recipe(arguments, needs_output=needs)

    def _take_output(self, name: str, path: tuple[Any, ...]) -> None:
        self.slots.pop(path, None)
        self.needs_output = True
        self.bound[name] = lambda m, b, out: pick(out, path)

    def _take_input(self, name: str, key: int | str) -> None:
        def take(model: nn.Module, batch: Batch, output: Any) -> Any:
            return batch.kwargs[key] if isinstance(key, str) else batch.args[key]

        self.bound[name] = take

    def _exact(self, p: inspect.Parameter) -> None:
        if () not in self.slots and _taken_apart(self.function, p.name):
            if _WHOLE.fullmatch(p.name):
                self.needs_output = True
                self.bound[p.name] = lambda m, b, out: out
            return
        for path, name in self.slots.items():
            if name and _bare(name) == _bare(p.name):
                self._take_output(p.name, path)
                return

    def _inputs(self, p: inspect.Parameter) -> None:
        if self._is_reconstruction_called_input(p):
            return
        names = list(self.inputs)
        if p.name in names and role(p.name) in {"input", "label", None}:
            self._take_input(p.name, self.inputs[p.name])
        elif role(p.name) == "label" and len(names) > 1:
            self._take_input(p.name, self.inputs[names[1]])
        elif role(p.name) == "input" and names:
            if p.name == "batch" and (count := _parts_of(self.function, p.name)) > 1:
                self._take_parts(p.name, count)
            else:
                self._take_input(p.name, self.inputs[names[0]])

    def _is_reconstruction_called_input(self, p: inspect.Parameter) -> bool:
        """In `loss(input, target, ...)`, after `F.mse_loss`, the input is the reconstruction."""
        names = {q.name.lower() for q in self.parameters}
        first = self.parameters[0].name
        return (
            p.name == first
            and p.name.lower() in {"input", "inputs"}
            and bool(names & {"target", "targets"})
            and not any(role(q.name) == "recon" for q in self.parameters)
        )

    def _take_parts(self, name: str, count: int) -> None:
        """A loader's batch `(x, label)` for a function that unpacks it."""

        def take(model: nn.Module, batch: Batch, output: Any) -> Any:
            parts = [*batch.args, *batch.kwargs.values()]
            x = next((a for a in parts if isinstance(a, Tensor)), None)
            while len(parts) < count and x is not None:
                parts.append(x.new_zeros(x.shape[0]).long())
            return tuple(parts[:count])

        self.bound[name] = take

    def _roles(self, p: inspect.Parameter) -> None:
        wanted = role(p.name)
        if wanted is None or wanted in {"weight", "step", "input", "label"}:
            return
        for path, name in self.slots.items():
            if name and role(name) == wanted:
                self._take_output(p.name, path)
                return

    def _shapes(self, p: inspect.Parameter) -> None:
        wanted = role(p.name)
        if wanted == "recon" or self._is_reconstruction_called_input(p):
            if (path := self._like_input()) is not None:
                self._take_output(p.name, path)
            elif _WHOLE.fullmatch(p.name):
                self.needs_output = True
                self.bound[p.name] = lambda m, b, out: out
        elif _WHOLE.fullmatch(p.name) and wanted is None:
            self.needs_output = True
            self.bound[p.name] = lambda m, b, out: out
        elif wanted in {"mu", "logvar"}:
            pair = self._pair()
            if pair:
                self._take_output(p.name, pair[0] if wanted == "mu" or len(pair) == 1 else pair[-1])

    def _constants(self, p: inspect.Parameter) -> None:
        if p.default is not p.empty:
            return
        if p.name in {"model", "vae", "net", "module", "network"}:
            self.bound[p.name] = lambda m, b, out: m
        elif role(p.name) == "weight":
            self.bound[p.name] = lambda m, b, out: 1.0
        elif role(p.name) == "step":
            self.bound[p.name] = lambda m, b, out: 0

    def _in_order(self) -> None:
        """As many parameters left as outputs left: one to one, unless a role contradicts."""
        left = [p for p in self.parameters if p.name not in self.bound and p.default is p.empty]
        slots = [s for s in self.slots if not self._is_input(s)]
        if left and len(left) == len(slots):
            for p, path in zip(left, slots, strict=True):
                known, wanted = role(self.slots[path] or ""), role(p.name)
                if known is None or wanted is None or known == wanted:
                    self._take_output(p.name, path)

    def _check(self) -> None:
        for p in self.parameters:
            if p.name not in self.bound and p.default is p.empty:
                shapes = [
                    list(v.shape) for _, v in leaves(self.binding.output) if isinstance(v, Tensor)
                ]
                raise Unbound(p.name, f"forward returned tensors of shape {shapes}")

    def _like_input(self) -> tuple[Any, ...] | None:
        x = next((a for a in self.binding.batch.args if isinstance(a, Tensor)), None)
        if x is None:
            return next(iter(self.slots), None)
        fits = []
        for path in self.slots:
            value = pick(self.binding.output, path)
            if isinstance(value, Tensor) and value is not x:
                if value.shape == x.shape:
                    return path
                if value.numel() == x.numel():
                    fits.append(path)
        if not fits and len(self.slots) == 1:
            return next(iter(self.slots))
        return fits[0] if fits else None

    def _pair(self) -> list[tuple[Any, ...]]:
        """The first two outputs left that are shaped alike and are not data."""
        free = [s for s in self.slots if not self._is_input(s)]
        shapes = {s: getattr(pick(self.binding.output, s), "shape", None) for s in free}
        for first in free:
            others = [s for s in free if s != first and shapes[s] == shapes[first]]
            if others:
                return [first, others[0]]
        return free[:1]

    def _is_input(self, path: tuple[Any, ...]) -> bool:
        value = pick(self.binding.output, path)
        return any(value is a for a in self.binding.batch.args)


def by_own_call(
    source: Source,
    name: str,
    parameters: list[inspect.Parameter],
    binding: Binding,
    namespace: Mapping[str, Any],
    *,
    is_method: bool,
) -> Recipe | None:
    """Call the loss as the file's own code does after `recon, mu, logvar = model(x)`."""
    if name not in source.called:
        return None
    models = user_names(source, type(binding.model).__name__)
    for place in source.places:
        for node in own_expressions(place.stmt):
            if not isinstance(node, ast.Call) or called_name(node) != name:
                continue
            if place.function is not None and place.function.name == name:
                continue
            forward = _forward_before(place, node, models)
            if forward is not None:
                negated = any(
                    isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.USub) and n.operand is node
                    for n in own_expressions(place.stmt)
                )
                call = _OwnCall(source, node, forward, models, place, namespace)
                return Recipe(call.arguments, own_call=True, negated=negated)
    return None


def own_use(sources: Iterable[Source], name: str) -> tuple[bool, bool]:
    """Whether a file's own code calls a loss, and whether it minimises the negative of it."""
    used = False
    for source in sources:
        for node in ast.walk(source.tree) if name in source.called else ():
            match node:
                case ast.UnaryOp(op=ast.USub(), operand=ast.Call() as call):
                    if called_name(call) == name:
                        return True, True
                case ast.Call() if called_name(node) == name:
                    used = True
    return used, False


def minimized_place(source: Source, count: int) -> tuple[str, int] | None:
    """Which of `count` outputs a file's own code calls `backward()` on: its name and place.

    As in `x_hat, loss = model(x)` and `loss.backward()`.
    """
    minimized, unpacked = set(), []
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="backward")):
                minimized.add(name)
            case ast.Assign(targets=[ast.Tuple(elts=parts)], value=ast.Call()):
                unpacked.append([p.id if isinstance(p, ast.Name) else "" for p in parts])
    for names in unpacked:
        for place, name in enumerate(names):
            if len(names) == count and name in minimized:
                return name, place
    return None


@dataclass(frozen=True, slots=True)
class _Forward:
    """The user's own call of the model, and the target its output is assigned to."""

    call: ast.Call
    target: ast.expr | None
    between: tuple[ast.Assign, ...] = ()


@dataclass(frozen=True, slots=True)
class _OwnCall:
    """The user's own call of the loss, to be evaluated on our batch and output."""

    source: Source
    node: ast.Call
    forward: _Forward
    models: set[str]
    place: Place
    namespace: Mapping[str, Any]

    def arguments(self, model: nn.Module, batch: Batch, output: Any) -> Arguments:
        """The arguments, each the user's own expression."""
        scope = Scope(self.source, self.namespace, self.place.function, self.node.lineno)
        parts = forward_parameters(model)
        by_name = {p.name: v for p, v in zip(parts, batch.args, strict=False)} | dict(batch.kwargs)
        for index, arg in enumerate(self.forward.call.args):
            if index < len(batch.args) and root_name(arg):
                scope.known[root_name(arg)] = batch.args[index]
        for keyword in self.forward.call.keywords:
            if keyword.arg in by_name and root_name(keyword.value):
                scope.known[root_name(keyword.value)] = by_name[keyword.arg]
        for name in self.models:
            scope.known[name] = model
        scope.known[_OUTPUT] = output
        if self.forward.target is not None:
            _destructure(self.forward.target, output, scope.known)
        for stmt in self.forward.between:
            self._follow(stmt, scope)
        args: list[Any] = []
        for arg in self.node.args:
            if isinstance(arg, ast.Starred):
                args += list(self._value(arg.value, scope))
            else:
                args.append(self._value(arg, scope))
        kwargs = {
            k.arg: self._or_weight(k.arg, k.value, scope) for k in self.node.keywords if k.arg
        }
        for keyword in self.node.keywords:
            if keyword.arg is None:
                kwargs |= self._value(keyword.value, scope)
        return args, kwargs

    def _follow(self, stmt: ast.Assign, scope: Scope) -> None:
        try:
            _destructure(stmt.targets[0], self._value(stmt.value, scope), scope.known)
        except Exception:
            return

    def _or_weight(self, name: str, expr: ast.expr, scope: Scope) -> Any:
        """A weight that only the training script knows counts as 1."""
        try:
            return self._value(expr, scope)
        except NameError:
            if role(name) == "weight":
                return 1.0
            raise

    def _value(self, expr: ast.expr, scope: Scope) -> Any:
        swapped = _WithoutForward(self.forward.call).visit(
            ast.parse(ast.unparse(expr), mode="eval")
        )
        code = compile(ast.fix_missing_locations(swapped), str(self.source.path), "eval")
        try:
            return eval(code, dict(self.namespace), scope)
        except NameError:
            if isinstance(expr, ast.Name) and role(expr.id) == "weight":
                return 1.0
            if isinstance(expr, ast.Name) and role(expr.id) == "step":
                return 0
            raise


_OUTPUT = "__output__"


class _WithoutForward(ast.NodeTransformer):
    """Puts the output we already have in the place of `model(x)`, and moves nothing."""

    def __init__(self, call: ast.Call) -> None:
        self.text = ast.unparse(call)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node) == self.text:
            return ast.Name(_OUTPUT, ast.Load())
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"cuda", "cpu", "to"}:
            asked = ast.unparse(node)
            if node.func.attr != "to" or "device" in asked or "cuda" in asked:
                inner: ast.AST = self.visit(node.func.value)
                return inner
        return self.generic_visit(node)


def _forward_before(place: Place, loss: ast.Call, models: set[str]) -> _Forward | None:
    """The last call of the model above the loss in the same function, or inside its arguments."""
    for node in ast.walk(loss):
        if node is not loss and isinstance(node, ast.Call) and _calls_model(node, models):
            return _Forward(node, None)
    found: _Forward | None = None
    between: list[ast.Assign] = []
    body: Iterable[ast.stmt] = place.function.body if place.function else place.block
    for stmt in _in_order(body):
        if stmt.lineno >= place.stmt.lineno:
            break
        if not isinstance(stmt, ast.Assign) or len(stmt.targets) != 1:
            continue
        if isinstance(stmt.value, ast.Call) and _calls_model(stmt.value, models):
            found, between = _Forward(stmt.value, stmt.targets[0]), []
        elif found is not None:
            between.append(stmt)
    return None if found is None else _Forward(found.call, found.target, tuple(between))


def _in_order(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    for stmt in body:
        yield stmt
        for field in ("body", "orelse", "finalbody"):
            yield from _in_order(getattr(stmt, field, ()) or ())


def _calls_model(call: ast.Call, models: set[str]) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in models
    return (
        isinstance(call.func, ast.Attribute)
        and (call.func.attr in {"forward", *models} or ast.unparse(call.func) in models)
        and root_name(call.func) in models
    )


def _destructure(target: ast.expr, value: Any, into: dict[str, Any]) -> None:
    if isinstance(target, ast.Name):
        into[target.id] = value
    elif isinstance(target, ast.Tuple | ast.List):
        parts = list(value)
        for element, part in zip(target.elts, parts, strict=False):
            if isinstance(element, ast.Starred):
                return
            _destructure(element, part, into)


def _input_slots(binding: Binding) -> dict[str, int | str]:
    """The batch's items by forward's parameter names."""
    found: dict[str, int | str] = {}
    names = [p.name for p in forward_parameters(binding.model)]
    for index, _ in enumerate(binding.batch.args):
        found[names[index] if index < len(names) else f"arg{index}"] = index
    return found | {key: key for key in binding.batch.kwargs}


def _slot_name(path: tuple[Any, ...], names: list[Any]) -> str:
    if path and isinstance(path[-1], str):
        return path[-1]
    node: Any = names
    for key in path:
        if not isinstance(node, list) or not isinstance(key, int) or key >= len(node):
            return ""
        node = node[key]
    if not path and len(names) == 1:
        node = names[0]
    return node if isinstance(node, str) else ""


def _bare(name: str) -> str:
    return name.lower().replace("_", "")


def _keyword_keys(function: Callable[..., Any], spare: str | None) -> list[str]:
    """Keys a loss reads from its `**kwargs` (`kwargs["M_N"]`)."""
    tree: Function | None = function_tree(function) if spare else None
    if tree is None:
        return []
    return [
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == spare
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    ]


def _taken_apart(function: Callable[..., Any], name: str) -> bool:
    """Whether a function treats a parameter as a container: unpacks, spreads or subscripts it."""
    tree = function_tree(function)
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case (
                ast.Assign(targets=[ast.Tuple()], value=ast.Name(id=found))
                | ast.Subscript(value=ast.Name(id=found), slice=ast.Constant(value=str() | int()))
                | ast.Starred(value=ast.Name(id=found))
            ):
                if found == name:
                    return True
    return False


def _parts_of(function: Callable[..., Any], name: str) -> int:
    """Into how many parts a function unpacks a parameter: 2 for `x, _ = batch`."""
    tree = function_tree(function)
    for node in ast.walk(tree) if tree is not None else ():
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=parts)], value=ast.Name(id=found)):
                if found == name:
                    return len(parts)
    return 0
