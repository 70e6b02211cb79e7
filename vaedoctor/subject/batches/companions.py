"""The arguments of forward beside the data: labels, conditions, masks, lengths, graphs, weights.

A name only gives the first guess; what runs decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..trials.slots import Slot
from .layers import TABLES, Layers

_INDEX_NAMES = (
    r"(y|l|cls|s|u)|.*(label|class|categor|domain|batch_(index|idx|id|indices)|target_cls).*"
)
_ONE_HOT_NAMES = r"(c|a|cond|att|attr)|.*(cond|one_?hot|attr|ctx|context).*"
_TOKEN_NAMES = r".*(token|caption|text|input_ids|word|tgt|trg|src|sentence|seq_out|decoder_input).*"
_NUMBERS = r"beta|temp|temperature|tau|alpha|kl_weight|.*_weight|scale|.*factor|.*ratio|gamma|rate"
_COUNTS = r"epoch|step|iteration|iter|global_step|batch_idx|n_samples?|k|num_samples|.*_steps"
_TOTALS = (
    r"(n|num|total)_(docs?|documents|data|train\w*|items|rows)|(data_?(set)?|train)_?(size|len)"
)
_STEPS = r"(max|target|tgt|trg|out|output|gen|pred)_?(seq(uence)?_?)?(len|length)"
_ONE_TOKEN = r"(sos|bos|eos|pad|unk|start|end|go|stop|mask|padding)(_?token)?_?(id|idx|index|token)"
_ADJACENCY = (
    r"(norm(ed|alized)?_)?adj\w*|a_(norm|hat)|laplacian|graph|support|\w*adjacency\w*|l_norm"
)
_SIZE_NAMES = re.compile(
    r"(n|num|k|dim)?_?(class|classes|labels?|cond\w*|conditions?|categories|attrs?|attributes|y|c|batch)"
    r"(_?(dim|dims|size|num|features|d))?|n_?class(es)?|n_?batch(es)?"
    r"|(label|cond|class|y|c|context|attr|att)\w*_?(dim|size)"
)
_OF_TORCH = {"device": torch.device("cpu"), "dtype": torch.float32}
_USUAL_SIZES = (10, 5, 3, 2)


def companion(name: str, beside: Slot, layers: Layers) -> Slot:
    """The first guess for an argument that comes with the data `beside`."""
    bare, rows = name.lower().strip("_"), beside.shape[0] if beside.shape else layers.rows
    shape = beside.shape or (rows,)
    if (graph := _of_graph(bare, beside)) is not None:
        return graph
    if bare == "device":
        return Slot(kind="plain", value=layers.device())
    if re.fullmatch(_ONE_TOKEN, bare):
        return Slot(kind="plain", value=1)
    if re.fullmatch(_STEPS, bare) and (len(shape) > 2 or beside.kind == "index"):
        return Slot(kind="plain", value=shape[1] if len(shape) > 1 else layers.steps())
    if re.search(r"mask|valid|is_pad|padding", bare):
        pads = re.search(r"pad|missing|ignore", bare) is not None
        steps = shape[:2] if len(shape) == 3 or beside.kind == "index" else shape
        return Slot(steps if len(shape) < 4 else (rows, shape[-1]), "bool", value=not pads)
    if "length" in bare or bare in {"lens", "seq_len", "x_len", "len"} or bare.endswith("_lens"):
        return Slot((rows,), "length", shape[1] if len(shape) > 1 else 1)
    if re.fullmatch(r"lib\w*|size_factors?|\w*library\w*", bare):
        return Slot((rows, 1))
    if bare in _OF_TORCH:
        return Slot(kind="plain", value=_OF_TORCH[bare])
    if re.fullmatch(_NUMBERS, bare):
        return Slot(kind="plain", value=1.0)
    if re.fullmatch(r"(.*_)?drop(out)?(_?(prob|rate|ratio|p))?", bare):
        return Slot(kind="plain", value=0.1)
    if re.fullmatch(_COUNTS, bare):
        return Slot(kind="plain", value=1)
    if re.fullmatch(r"(n_?|num_?)?batch_?size|bs", bare):
        return Slot(kind="plain", value=rows)
    if re.fullmatch(_TOTALS, bare):
        return Slot(kind="plain", value=10 * rows)  # of all data, of which this is a part
    if re.fullmatch(r"ts|tt|t_?(span|grid|eval)|time_?(points|grid|stamps)", bare):
        return Slot((layers.steps(),))
    if re.fullmatch(r"(row_|sample_|data_)?(idx|index|indices)", bare):
        return Slot((rows,), "index", rows)
    if re.fullmatch(r"(\w+_)?(coords?|coordinates|xy|xyz)", bare):
        return Slot((*shape[:2], 3 if bare.endswith("xyz") else 2))
    if re.fullmatch(r"(current_|global_)?(epoch|step|iteration|iter|batch_idx)s?", bare):
        return Slot(kind="plain", value=1)
    if re.fullmatch(r"t|timesteps?|time|times", bare):
        return Slot((rows,), "index", 5)
    if re.fullmatch(r"(is|use|return|with)_.*|sample|train(ing)?", bare):
        return Slot(kind="plain", value=True)
    return _of_data(bare, beside, layers, rows)


def _of_data(bare: str, beside: Slot, layers: Layers, rows: int) -> Slot:
    sizes = condition_sizes(layers)
    tables = [m for m in layers.known if isinstance(m, TABLES)]
    if tables and re.fullmatch(_TOKEN_NAMES, bare):
        shape = beside.shape if beside.kind == "index" else (rows, layers.steps())
        return Slot(shape, "index", tables[0].num_embeddings)
    if re.match(r"[xy]_", bare):
        return Slot(beside.shape, beside.kind, beside.top)
    if re.fullmatch(_ONE_HOT_NAMES, bare) and not tables:
        return Slot((rows, sizes[0]), "onehot")
    if re.fullmatch(f"{_INDEX_NAMES}|{_ONE_HOT_NAMES}", bare):
        if tables or _says_one_hot(layers):
            return Slot((rows,), "index", sizes[0])
        return Slot((rows, sizes[0]), "onehot")
    if (width := told_width(bare, layers)) is not None and len(beside.shape) == 2:
        return Slot((rows, width))
    return Slot(beside.shape, beside.kind, beside.top)


def told_width(name: str, layers: Layers) -> int | None:
    """The size that a constructor argument of the same name gave: `action_dim` for `action`."""
    stem = re.escape(name.lower().strip("_"))
    pattern = re.compile(rf"(n|num|dim|d)?_?{stem}s?_?(dims?|size|features|d|len|width)?")
    for key, value in layers.hints.items():
        named = pattern.fullmatch(key.lower()) is not None and key.lower() != stem
        if named and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _of_graph(bare: str, beside: Slot) -> Slot | None:
    """The edges of a graph whose nodes are the rows, or the nodes of each row."""
    if re.fullmatch(r"edge_?(index|indices|list)?|edges|edge_index\w*", bare):
        nodes = beside.shape[0] if beside.shape else 2
        return Slot((2, 3 * nodes), "index", nodes)
    if re.fullmatch(r"edge_?(types?|labels?|classes|weights?)", bare):
        nodes = beside.shape[0] if beside.shape else 2
        weight = "weight" in bare
        return Slot((3 * nodes,)) if weight else Slot((3 * nodes,), "index", 2)
    if re.fullmatch(_ADJACENCY, bare):
        nodes = beside.shape[-2] if len(beside.shape) > 1 else 2
        return Slot((*beside.shape[:-2], nodes, nodes), "share")  # as edges are weighted in a mean
    return None


def of_one_graph(name: str, names: Collection[str], main: Slot) -> Slot | None:
    """`batch` beside `edge_index`: which graph each node belongs to; here all to one."""
    beside = any(is_graph(n) for n in names if n != name)
    if (
        beside
        and main.shape
        and re.fullmatch(r"batch(_?(idx|index|vec|vector|ids?))?", name.lower())
    ):
        return Slot(main.shape[:1], "index", 1)
    return None


def is_graph(name: str) -> bool:
    """Whether an argument says that the rows are the nodes of one graph."""
    return _of_graph(name.lower().strip("_"), Slot((2, 2))) is not None


def holds_graph(model: nn.Module, rows: int) -> bool:
    """Whether a model keeps the graph whose nodes the rows are: a square of that size."""
    return any(
        isinstance(value, Tensor)
        and not is_lazy(value)
        and tuple(value.shape) == (rows, rows)
        and is_graph(name)
        for module in model.modules()
        for name, value in {**vars(module), **module._buffers}.items()
    )


def condition_sizes(layers: Layers) -> list[int]:
    """How many classes a condition may have: told by names first, then embeddings, then usual."""
    told = [
        v
        for k, v in layers.hints.items()
        if isinstance(v, int)
        and not isinstance(v, bool)
        and v > 0
        and _SIZE_NAMES.fullmatch(k.lower())
    ]
    tables = [m.num_embeddings for m in layers.known if isinstance(m, nn.Embedding)]
    return list(dict.fromkeys((*told, *tables, *(() if told else _USUAL_SIZES))))


def int_attributes(model: nn.Module) -> Mapping[str, Any]:
    """Sizes that a model keeps as attributes."""
    kinds = (int, tuple, list)
    return {
        k: v
        for k, v in vars(model).items()
        if isinstance(v, kinds) and not isinstance(v, bool) and not k.startswith("_")
    }


def _says_one_hot(layers: Layers) -> bool:
    return layers.mentions("one_hot")
