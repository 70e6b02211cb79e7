"""Where a sample is lost that is made and not decoded: thrown away, or read for its shape alone."""

from __future__ import annotations

import ast
from collections.abc import Set
from dataclasses import dataclass

from ...finding import Span
from ..anatomy.anatomy import Anatomy
from ..anatomy.heads import path_of
from ..anatomy.latents import Latent, find_latents
from ..anatomy.moves import fed_by
from ..code.listing import functions_in
from ..runs.recording import Op
from .decoding import Decoding, handed_over

_RECURRENT = frozenset("lstm gru rnn_tanh rnn_relu lstm_cell gru_cell".split())
_ZEROS = frozenset("zeros new_zeros zeros_like".split())


@dataclass(frozen=True, slots=True)
class Discarded:
    """A sample that does not reach x_hat, and the layer that takes the mean.

    `scored` says that the loss reads the sample; `at` is where the code itself throws the sample
    away, else the call that hands the mean over.
    """

    latent: Latent
    path: str
    fed_at: Span | None
    at: Span | None
    scored: bool = False


def find_discarded(anatomy: Anatomy, decoding: Decoding) -> Discarded | None:
    """The first sample of which only the location is decoded.

    Beside other samples it counts where the loss does not read it either.
    """
    means = [f for f in decoding.fed if f.decoder]
    fed = decoding.skipped
    if decoding.dropped and any(not f.scale for f in means):
        fed = means[0]
    if fed is None:
        return (_merged(anatomy) or _unread(anatomy)) if decoding.sampled else None
    recording, flow = anatomy.recording, anatomy.flow
    loss = recording.value_of(recording.loss) if recording.loss is not None else None
    used = flow.ancestors(loss) if loss is not None else frozenset()
    behind = flow.ancestors(fed.op.out)
    decoded_from = flow.ancestors(anatomy.x_hat) if anatomy.x_hat is not None else frozenset()
    # Below another sample, a discarded one looks like a draw from the reconstruction.
    for latent in find_latents(flow) if decoding.sampled else anatomy.latents:
        decoded = latent.loc_head is not None and latent.loc_head.value.index in behind
        scored = latent.z.index in used
        if latent.z.index in decoded_from or not decoded or (scored and decoding.sampled):
            continue
        at = None if scored else _thrown_away(latent.meeting)
        return Discarded(latent, fed.path, fed.at, at or fed.at, scored)
    return None


def _merged(anatomy: Anatomy) -> Discarded | None:
    """Beside other samples, one that reaches nothing while a layer takes its location.

    Of a location that is computed from several heads, as in a ladder, no head tells.
    """
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    if x_hat is None:
        return None
    end = anatomy.recording.value_of(loss) if loss is not None else None
    used = flow.ancestors(x_hat, *(o.value for o in anatomy.outputs), *([end] if end else []))
    around = flow.ancestors(x_hat, stop=[latent.z for latent in anatomy.sampled])
    for latent in find_latents(flow):
        loc = latent.loc
        if latent.z.index in used or loc is None or latent.scale is None:
            continue
        if loc.index not in around or loc.shape != latent.z.shape:
            continue
        for op in anatomy.recording.ops:
            reached = op.makes and op.out.index in around and flow.layer(op)
            if reached and any(loc in fed_by(flow, read) for read in op.reads):
                at = handed_over(op, latent.meeting)
                thrown = _thrown_away(latent.meeting)
                return Discarded(latent, path_of(op) or op.name, at, thrown or at)
    return None


def _unread(anatomy: Anatomy) -> Discarded | None:
    """Beside other samples, one that nothing reads while a layer of the loss takes its location.

    As a prior's network that is given the mean of the level above.
    """
    flow, x_hat, loss = anatomy.flow, anatomy.x_hat, anatomy.recording.loss
    end = anatomy.recording.value_of(loss) if loss is not None else None
    if x_hat is None or end is None:
        return None
    judged = flow.ancestors(end, x_hat)
    for latent in find_latents(flow):
        loc, head = latent.loc, latent.scale_head
        if loc is None or head is None or head.value.index not in judged:
            continue
        if flow.consumers.get(latent.z.index) or latent.z.index in judged:
            continue
        for op in anatomy.recording.ops:
            taken = op.makes and op.out.index in judged and flow.layer(op)
            if taken and any(loc in fed_by(flow, read) for read in op.reads):
                at = handed_over(op, latent.meeting)
                return Discarded(latent, path_of(op) or op.name, at, at)
    return None


def _thrown_away(op: Op) -> Span | None:
    """The expression whose value the code drops: a bare one, or a name that is assigned anew."""
    for frame in op.frames:
        around = [m.node for m in functions_in(frame.file) if _holds(m.node, frame.line)]
        if not around:
            return None
        function = max(around, key=lambda n: n.lineno)
        match max(_statements(function, frame.line), key=lambda s: s.lineno, default=None):
            case ast.Return():
                continue  # the caller has it
            case ast.Expr():
                return frame.span
            case ast.Assign(targets=[ast.Name(id=name)]) as stmt if _replaced(
                function, name, stmt.end_lineno or stmt.lineno
            ):
                return frame.span
        return None
    return None


def _holds(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _statements(function: ast.stmt, line: int) -> list[ast.stmt]:
    """The simple statements of a function that hold a line."""
    simple = ast.Return | ast.Expr | ast.Assign | ast.AnnAssign | ast.AugAssign
    return [n for n in ast.walk(function) if isinstance(n, simple) and _holds(n, line)]


def _replaced(function: ast.stmt, name: str, after: int) -> bool:
    """Whether a name gets another value below a line before anything reads it."""
    named = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name]
    below = [n for n in named if n.lineno > after]
    written = [n.lineno for n in below if isinstance(n.ctx, ast.Store)]
    read = [n.lineno for n in below if isinstance(n.ctx, ast.Load)]
    return bool(written) and (not read or min(written) < min(read))


def ignored_at(anatomy: Anatomy, decoding: Decoding) -> Span | None:
    """Where the way from the sample to a reconstruction that does not depend on it breaks off.

    At the operation that takes the sample's shape alone or multiplies it by 0, at the zeros from
    which a recurrent decoder starts, at the weight that is decoded in its place, or where a decoder
    is called without it.
    """
    blind, flow = decoding.blind, anatomy.flow
    if blind is None or anatomy.x_hat is None:
        return None
    behind = flow.ancestors(anatomy.x_hat)
    sampled = flow.descendants(*(latent.z for latent in anatomy.latents))
    for op in anatomy.recording.ops:
        zeroed = op.makes and op.out in flow.zeroed and any(v.index in sampled for v in op.reads)
        by_shape = zeroed or any(v.index in sampled for v in op.shapes)
        if by_shape and op.makes and op.out.index in behind and op.span is not None:
            return op.span
    if (state := _zero_state(anatomy, behind)) is not None:
        return state
    operands = [v for v in blind.reads if v.op is not None and v.index in behind]
    given = any(flow.data[v.index] for v in blind.reads)
    if operands and not given and flow.learned[operands[0].index]:
        maker = operands[0].op
        return maker.span if maker is not None else blind.span
    at = blind.span
    for call in blind.call.chain() if blind.call is not None else ():
        if not call.path or any(v.index in sampled for v in call.inputs):
            break
        at = call.span or at
    return at


def _zero_state(anatomy: Anatomy, behind: Set[int]) -> Span | None:
    """Where the zeros are made from which a recurrent layer behind the encoder starts."""
    flow = anatomy.flow
    heads = [h.value for x in anatomy.latents for h in (x.loc_head, x.scale_head) if h is not None]
    encoder = flow.ancestors(*heads)
    for op in anatomy.recording.ops:
        if op.name not in _RECURRENT or not op.makes or op.out.index not in behind - encoder:
            continue
        for state in op.reads[1:]:
            made = state.op
            if made is not None and made.name in _ZEROS and not flow.learned[state.index]:
                return made.span
    return None
