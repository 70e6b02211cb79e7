"""What a file's data is: data sets and loaders, made from the file's own code without reading any.

`DataLoader(TensorDataset(x))` is a loader of tensors that the file makes itself; `MNIST(...)` is a
well-known data set, of which the size and range are enough. Nothing is opened or downloaded.
"""

from __future__ import annotations

import ast
import copy
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import TensorDataset, default_collate

from ..code.bindings import Bindings
from ..code.callees import tree_of
from ..code.openscope import OpenScope
from ..code.scope import Unknown
from ..code.source import Place, Source, file_of, is_foreign
from ..code.statements import is_costly
from ..code.syntax import Function, called_name, globals_read, root_name
from ..trials.trial import items
from .handing import handing_calls, is_parameter, is_rebound
from .holders import Holders, class_around
from .pictures import SIZES, Pictures, transform_called
from .standin import assignments

_Comprehension = ast.ListComp | ast.GeneratorExp | ast.DictComp
_DEEPEST = 5
_END = 1_000_000_000  # below every line of a file
_USUAL_ROWS = 8
_MOST_ITEMS = 16
_MOST_ROWS = 256
_READS = {
    *"open load loads listdir glob iglob rglob scandir walk imread read_csv read_table".split(),
    *"read_excel read_json read_parquet read_pickle File get urlopen".split(),
}
_PASSED_ON = {"tqdm", "track", "cycle", "islice", "prefetch", "prepare", "setup_dataloaders"}
_SKLEARN = {"train_test_split", "StandardScaler", "MinMaxScaler", "OneHotEncoder", "RobustScaler"}
_SHIPPED = {f"load_{n}" for n in "digits iris wine breast_cancer diabetes".split()}


@dataclass(frozen=True, slots=True)
class Loader:
    """What a `DataLoader` is made from; its first batch is all that is asked of it."""

    dataset: Any
    rows: int = _USUAL_ROWS
    collate: Callable[[list[Any]], Any] = default_collate

    def first(self) -> Any:
        """One batch: items from all over the data set, as a shuffled loader gives them."""
        count = len(self.dataset)
        rows = min(self.rows, count, _MOST_ROWS)
        return self.collate([self.dataset[i * count // rows] for i in range(rows)])

    def __len__(self) -> int:
        return max(1, -(-len(self.dataset) // self.rows))

    def __iter__(self) -> Iterator[Any]:
        while True:  # whoever asks for a batch gets one: only the first is of interest
            yield self.first()


@dataclass(slots=True)
class Trail:
    """What was met on the way to a batch: well-known data sets, and the names that were read.

    `holders` know which calls hand on the model that is examined, and not another; `stops` says
    where the file's own data ends the loop.
    """

    holders: Holders | None = None
    stops: str = ""
    made_like: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)

    def is_of_own(self, place: Place, call: ast.Call) -> bool:
        """Whether a call is given the model."""
        given = [*call.args, *(k.value for k in call.keywords)]
        around = class_around(place)
        held = self.holders
        return held is not None and any(held.holds(a, place.function, around) for a in given)


class DataScope(OpenScope):
    """A scope that understands loaders and data sets, and what the file's calls hand on."""

    def __init__(
        self,
        source: Source,
        namespace: Mapping[str, Any],
        function: Function | None,
        line: int,
        depth: int = 0,
    ) -> None:
        super().__init__(source, namespace, function, line)
        self._function = function
        self._line = line
        self._depth = depth
        self.trail = Trail()
        self._written_out: list[ast.expr] = []

    def called(self, stmt: ast.stmt) -> str:
        """How the line of a statement is called."""
        return self._source.line(stmt.lineno)

    def first_of(self, node: ast.expr) -> Any:
        """The first thing that a loop over an expression gives; raises `Unknown`."""
        if isinstance(node, ast.Call) and called_name(node) == "enumerate" and node.args:
            return 0, self.first_of(node.args[0])
        if isinstance(node, ast.Call) and called_name(node) in _PASSED_ON and node.args:
            return self.first_of(node.args[0])
        if isinstance(node, ast.Call) and called_name(node) == "zip" and len(node.args) > 1:
            return tuple(self.first_of(a) for a in node.args)
        bound = self._bindings.get(node.id) if isinstance(node, ast.Name) else None
        made = bound.expr if bound is not None and bound.part is None else None
        if isinstance(made, ast.Call) and called_name(made) in {"enumerate", "zip", *_PASSED_ON}:
            return self.first_of(made)  # `bar = tqdm(loader)`
        return first(self.value(node))

    def _name(self, name: str, at: Bindings) -> Any:
        self.trail.read.add(name)
        if name not in self.known and name not in self.lost:
            before = name in at and at[name] is None  # `x = torch.tensor(x)` of a parameter
            for expr, place in self._handed(name, before=before):
                with suppress(Unknown):
                    return self._elsewhere(place.function, place.stmt.lineno).value(expr)
        found = super()._name(name, at)
        own = isinstance(found, types.FunctionType) and self._is_own(found)
        return self._completed(found) if own else found

    def _completed(self, function: types.FunctionType) -> types.FunctionType:
        """A function of the file with the names it reads that were not executed on loading."""
        functions, lacking = {function.__name__: function}, dict[str, Any]()
        waiting, seen = [function], set[str]()
        while waiting:
            tree = tree_of(waiting.pop())
            for name in (globals_read(tree) if tree is not None else set()) - seen:
                seen.add(name)
                thing = self._own.get(name)
                if isinstance(thing, types.FunctionType) and self._is_own(thing):
                    functions[name] = thing
                    waiting.append(thing)
                elif name not in self._own and self._depth < _DEEPEST:
                    with suppress(Unknown):
                        lacking[name] = self._elsewhere(None, _END).value(ast.Name(name))
        if not lacking:
            return function
        space = {**function.__globals__, **lacking}
        for name, one in functions.items():
            space[name] = types.FunctionType(one.__code__, space, name, one.__defaults__)
            space[name].__kwdefaults__ = one.__kwdefaults__
        made: types.FunctionType = space[function.__name__]
        return made

    def _handed(self, name: str, *, before: bool = False) -> Iterator[tuple[ast.expr, Place]]:
        """What the file's own calls give a parameter of the function around."""
        if self._depth >= _DEEPEST:
            return
        for function in self._source.functions_around(self._function):
            if not is_parameter(function, name):
                continue
            if not before and is_rebound(function, name, self._line):
                return
            sites = list(handing_calls(self._source, function, name))
            own = [s for s in sites if self.trail.is_of_own(*s[1:])]
            yield from ((expr, place) for expr, place, _ in own or sites)

    def _elsewhere(self, function: Function | None, line: int) -> DataScope:
        scope = DataScope(self._source, self._own, function, line, self._depth + 1)
        scope.trail = self.trail
        return scope

    def _evaluate(self, node: ast.expr, at: Bindings) -> Any:
        if isinstance(node, _Comprehension) and self._reads(node):
            return self._comprehended(node, at)
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=attr) if "self" not in self.known:
                return self._of_self(attr)
        return super()._evaluate(node, at)

    def _comprehended(self, node: _Comprehension, at: Bindings) -> Any:
        """`{s: DataLoader(sets[s]) for s in splits}`, each item read as if it were written out."""
        loop = node.generators[0]
        if len(node.generators) > 1 or loop.ifs or not isinstance(loop.target, ast.Name):
            raise Unknown(ast.unparse(node))
        name, found = loop.target.id, list[Any]()
        before = self.known.get(name, _NOTHING)
        try:
            for item in self._value(loop.iter, at):
                if len(found) >= _MOST_ITEMS:
                    break
                self.known[name] = item
                # A copy: what a call gives is kept by its node.
                one = copy.deepcopy(node.value if isinstance(node, ast.DictComp) else node.elt)
                self._written_out.append(one)
                key = self._value(node.key, at) if isinstance(node, ast.DictComp) else None
                found.append((key, self._value(one, at)))
        finally:
            self.known.pop(name)
            if before is not _NOTHING:
                self.known[name] = before
        return dict(found) if isinstance(node, ast.DictComp) else [value for _, value in found]

    def _of_self(self, attr: str) -> Any:
        """What the class around assigns to an attribute."""
        place = next((p for p in self._source.places if p.stmt is self._function), None)
        owner = class_around(place) if place is not None else None
        for value, method in assignments(owner).get(attr, ()) if owner is not None else ():
            if self._depth < _DEEPEST and method is not self._function:
                with suppress(Unknown):
                    return self._elsewhere(method, value.lineno).value(value)
        raise Unknown(attr)

    def _call(self, node: ast.Call, at: Bindings) -> Any:
        name = called_name(node)
        own = isinstance(node.func, ast.Name) and self._is_own(self._own.get(name))
        if not own and (found := self._library(name, node, at)) is not _NOTHING:
            return found
        function = self._own.get(name) if isinstance(node.func, ast.Name) else None
        if own and isinstance(function, types.FunctionType) and self._depth < _DEEPEST:
            tree = tree_of(function)
            if tree is not None and any(is_costly(s) for s in tree.body):
                return self._returned_by(tree, node, at)
        return super()._call(node, at)

    def _is_own(self, thing: Any) -> bool:
        return isinstance(thing, types.FunctionType | type) and not is_foreign(
            file_of(thing) or "<"
        )

    def _library(self, name: str, node: ast.Call, at: Bindings) -> Any:
        """What a call of torch's or torchvision's makes, where it is about data."""
        if name in {"iter", "next", "DataLoader", "TensorDataset", "random_split", *_PARTS}:
            args, kwargs = self._given(node, at)
            return _about_data(name, args, kwargs)
        if name in _PASSED_ON and node.args:
            passed = [self._or_nothing_of(a, at) for a in node.args]
            if all(p is _NOTHING for p in passed):
                raise Unknown(name)
            several = name in {"prepare", "setup_dataloaders"} and len(passed) > 1
            return tuple(passed) if several else passed[0]
        if name in SIZES:
            _, kwargs = self._given(node, at, lenient=True)
            transform = kwargs.get("transform", _positional(node, self, at))
            if transform is _NOTHING:
                raise Unknown("transform")
            if name not in self.trail.made_like:
                self.trail.made_like.append(name)
            return Pictures(name, transform)
        if root_name(node.func) in {"transforms", "T", "v2", "tf", "tv_transforms"} or (
            isinstance(node.func, ast.Name) and name in {"Compose", "ToTensor", "Resize"}
        ):
            args, kwargs = self._given(node, at)
            made = transform_called(name, args, kwargs)
            if made is None:
                raise Unknown(name)
            return made
        return _NOTHING

    def _given(
        self, node: ast.Call, at: Bindings, lenient: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = [] if lenient else self._items(node.args, at)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            needed = keyword.arg in {"dataset", "transform", "collate_fn"}
            try:
                if keyword.arg is not None:
                    kwargs[keyword.arg] = self._value(keyword.value, at)
            except Unknown:
                if needed:
                    kwargs[keyword.arg or ""] = _NOTHING
        return args, kwargs

    def _returned_by(self, tree: Function, node: ast.Call, at: Bindings) -> Any:
        """What a function of the file returns that loads data: `train, test = loaders(128)`."""
        returns = [s for s in tree.body if isinstance(s, ast.Return) and s.value is not None]
        if len(returns) != 1 or returns[0].value is None:
            raise Unknown(tree.name)
        scope = self._elsewhere(tree, returns[0].lineno)
        names = [p.arg for p in (*tree.args.posonlyargs, *tree.args.args)]
        for name, arg in zip(names, node.args, strict=False):
            with suppress(Unknown):
                scope.known[name] = self._value(arg, at)
        for keyword in node.keywords:
            with suppress(Unknown):
                if keyword.arg is not None:
                    scope.known[keyword.arg] = self._value(keyword.value, at)
        value = returns[0].value
        if isinstance(value, ast.Tuple):  # of which one may be unknown
            return tuple(scope._or_nothing_of(e, scope._bindings) for e in value.elts)
        return scope.value(value)

    def _or_nothing_of(self, node: ast.expr, at: Bindings) -> Any:
        try:
            return self._value(node, at)
        except Unknown:
            return _NOTHING

    def _reads(self, tree: ast.AST, depth: int = 0) -> bool:
        """Whether code opens files, or does what else is costly, itself or by what it calls."""
        calls = {called_name(n) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        if isinstance(tree, ast.expr):
            tree = ast.Module([ast.Expr(tree)], [])
        if calls & _READS or any(is_costly(s) for s in getattr(tree, "body", [])):
            return True
        called = [t for n in calls if (t := self._own.get(n)) is not None and self._is_own(t)]
        inside = [tree_of(t) for t in called if isinstance(t, types.FunctionType)]
        return depth < _DEEPEST and any(t is not None and self._reads(t, depth + 1) for t in inside)

    def _may_be_called(self, function: Any, node: ast.Call) -> bool:
        name = getattr(function, "__name__", "")
        if isinstance(function, type) and self._is_own(function):
            methods = [m for m in vars(function).values() if isinstance(m, types.FunctionType)]
            trees = [tree_of(m) for m in methods]
            return not any(t is not None and self._reads(t) for t in trees)
        top = str(getattr(function, "__module__", None) or "").partition(".")[0]
        held = type(getattr(function, "__self__", None)).__module__.partition(".")[0]
        if "sklearn" in (top, held):
            return name.startswith("make_") or name in _SKLEARN | _SHIPPED or held == "sklearn"
        return super()._may_be_called(function, node)


_NOTHING = object()
_PARTS = {"Subset", "ConcatDataset"}


def first(value: Any) -> Any:
    """The first item of what a loop goes over; raises `Unknown`, whatever a data set raises."""
    if value is _NOTHING or isinstance(value, str | bytes):
        raise Unknown("nothing to go over")
    try:
        if isinstance(value, Loader):
            return value.first()
        if isinstance(value, Iterator):
            return next(value)
        return value[0] if hasattr(value, "__getitem__") else next(iter(value))
    except (Unknown, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise Unknown(f"{type(error).__name__}: {error}") from error


def _about_data(name: str, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
    dataset = args[0] if args else kwargs.get("dataset", kwargs.get("datasets"))
    if dataset is None or dataset is _NOTHING:
        raise Unknown(name)
    match name:
        case "iter":
            return dataset
        case "next":
            return first(dataset)
        case "TensorDataset":
            return TensorDataset(*args)
        case "DataLoader":
            rows = args[1] if len(args) > 1 else kwargs.get("batch_size", 1)
            rows = rows if isinstance(rows, int) and rows > 1 else _USUAL_ROWS
            collate = kwargs.get("collate_fn", default_collate)
            if collate is _NOTHING or kwargs.get("batch_sampler") is not None:
                raise Unknown("how items become a batch")
            return Loader(dataset, rows, collate or default_collate)
        case "random_split":
            return [dataset] * 3
        case "ConcatDataset":
            return dataset[0]
    return dataset


def _positional(node: ast.Call, scope: DataScope, at: Bindings) -> Any:
    """The transform of `ImageFolder(root, transform)`, of others by keyword alone."""
    if called_name(node) == "ImageFolder" and len(node.args) > 1:
        return scope._value(node.args[1], at)
    return None


def is_tensor_or_holds_one(value: Any) -> bool:
    """Whether there is data in a loop's item."""
    return isinstance(value, torch.Tensor) or any(
        is_tensor_or_holds_one(inner) for _, inner in items(value)
    )
