"""The parts of a container that code reads one by one: `batch["x"]`, `batch[0]`, `batch.x`."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from torch import Tensor


def fields(name: str, statements: list[ast.stmt]) -> dict[str, ast.expr]:
    """The parts of a container that statements read, by their text; none where it is read whole."""
    found: dict[str, ast.expr] = {}
    inside = set[int]()
    loads = [n for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and n.id == name]
    for node in (n for s in statements for n in ast.walk(s)):
        match node:
            case ast.Subscript(ast.Name(id=held) as root, ast.Constant(value=str() | int())):
                pass
            case ast.Attribute(ast.Name(id=held) as root, attr) if not hasattr(Tensor, attr):
                pass
            case _:
                continue
        if held == name:
            found[ast.unparse(node)] = node
            inside.add(id(root))
    return found if all(id(n) in inside for n in loads) else {}


class NamedFields(ast.NodeTransformer):
    """Puts names in the place of a container's parts: `batch["x"]` becomes `x`."""

    def __init__(self, fields: Mapping[str, Mapping[str, ast.expr]], taken: set[str]) -> None:
        self.names: dict[str, str] = {}
        self.fields = fields
        for root, parts in fields.items():
            for text, node in parts.items():
                name = _name_of(root, node)
                while name in taken:
                    name += "_"
                taken = taken | {name}
                self.names[text] = name

    def of(self, root: str) -> dict[str, ast.expr]:
        """The parts of a container by their new names."""
        return {self.names[t]: node for t, node in self.fields.get(root, {}).items()}

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """A part by its key."""
        return self._named(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """A part by its attribute."""
        return self._named(node)

    def _named(self, node: ast.expr) -> ast.AST:
        name = self.names.get(ast.unparse(node))
        if name is None:
            return self.generic_visit(node)
        return ast.copy_location(ast.Name(name, ast.Load()), node)


def _name_of(root: str, node: ast.expr) -> str:
    match node:
        case ast.Subscript(slice=ast.Constant(value=str() as key)) if key.isidentifier():
            return key
        case ast.Subscript(slice=ast.Constant(value=int() as key)):
            return f"{root}_{key}" if f"{root}_{key}".isidentifier() else f"{root}_part"
        case ast.Attribute(attr=attr):
            return attr
    return root
