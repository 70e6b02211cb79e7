"""Whether a model is meant to sample at all, though this run has no sample."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import nn

from ...subject.code.syntax import called_name
from ..anatomy.anatomy import Anatomy
from ..code.listing import Method, methods_of, returned_name
from ..runs.recording import Recording

_PRIMITIVES = frozenset("randn randn_like rand rand_like normal normal_ rsample sample".split())


def is_variational(anatomy: Anatomy, model: nn.Module) -> bool:
    """Whether a model without a sample is meant to be a VAE.

    Its loss acts on the scale head, the head is named a scale, or its class holds a function that
    draws noise for given parameters.
    """
    unsampled = anatomy.unsampled
    if unsampled is None:
        return False
    recording = anatomy.recording
    if recording.loss is not None and (loss := recording.value_of(recording.loss)):
        return unsampled.scale_head.value.index in anatomy.flow.ancestors(loss)
    returned = returned_name(type(model), unsampled.scale.name)
    names = f"{unsampled.scale.name} {unsampled.scale_head.path} {returned}".lower()
    if any(word in names for word in ("var", "sigma", "std", "scale")):
        return True
    return any(
        _draws(m) and len(m.node.args.args) > 2
        for kind in {type(m) for m in model.modules()}
        for m in methods_of(kind)
    )


def samples_elsewhere(recording: Recording, model: nn.Module) -> bool:
    """Whether an `if` this pass did not take, or another method, makes the sample."""
    methods = {
        (m.file, m.lines): m for k in {type(m) for m in model.modules()} for m in methods_of(k)
    }
    executed = {(f.code.co_filename, f.code.co_name) for f in recording.functions.values()}
    primitives = {m.name for m in methods.values() if _draws(m) and len(m.node.args.args) > 1}
    names = _PRIMITIVES | primitives
    for method in methods.values():
        if method.name in primitives:
            continue
        ran = (method.file, method.name) in executed
        for node in _switched_calls(method.node) if ran else ast.walk(method.node):
            known = names if ran else primitives
            if isinstance(node, ast.Call) and called_name(node) in known:
                return True
    return False


def _switched_calls(node: ast.AST) -> Iterator[ast.AST]:
    for inner in ast.walk(node):
        if isinstance(inner, (ast.If, ast.IfExp)):
            bodies = [inner.body, inner.orelse]
            for body in bodies:
                for part in body if isinstance(body, list) else [body]:
                    yield from ast.walk(part)


def _draws(method: Method) -> bool:
    return any(
        isinstance(node, ast.Call) and called_name(node) in _PRIMITIVES
        for node in ast.walk(method.node)
    )
