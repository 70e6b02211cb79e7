"""A batch made up by experiment: a first guess is tried, and what fails tells the next one.

The first registered layer is often not the first executed one, and forward may want several
tensors, a dict or an object: the layer that was reached, the operation that raised and the slots
its operands came from say what to change, until the pass comes to its end.
"""

from __future__ import annotations

import heapq
import inspect
import itertools
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..code.losses import candidates, parameters_of
from ..code.meant import made_when_missing, words
from ..trials.slots import Group, Node, Path, Slot, State, made, slots_in, slots_of, told
from ..trials.trial import Trial, forward_parameters, home
from ..trials.witness import Observed, calls_none, observe
from .companions import (
    companion,
    holds_graph,
    int_attributes,
    is_graph,
    of_one_graph,
    told_width,
)
from .fitting import blamed_in, fits, has_layers, is_misfit, is_too_much
from .keyed import by_names, names_of, said_places, takes_names
from .layers import KNOWN, TABLES, Layers
from .other_rows import with_other_rows
from .repairs import Repairs
from .revisions import (
    Revisions,
    as_column,
    as_it_came_out,
    as_more_axes,
    as_sequences,
    flipped,
    not_looked_up,
    output_shapes,
    parted,
    unmasked,
)
from .states import halved, is_option, is_small, key, plain, rows_axis

_MOST_TRIALS = 60
_MOST_AFTER_RUN = 12
_MOST_SECONDS = 5.0
_BRANCHES = 8
_MOST_ALIKE = 8
_FEW = 32


@dataclass(slots=True)
class Made:
    """A made-up batch and how its trial ended; a misfit failed where its own sizes arrived.

    `blamed` are the arguments behind the operation that raised.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    origin: str
    trial: Trial
    score: tuple[int, int, int]
    axis: int | None = 0
    misfit: bool = False
    work: int = 0
    blamed: frozenset[str] = frozenset()


class Guesser:
    """Guesses the arguments of one model's forward.

    A trial that multiplies more than `most_work` numbers is given up for a smaller one; `heavy`
    says that there was such a trial.
    """

    def __init__(
        self,
        model: nn.Module,
        hints: Mapping[str, Any],
        rows: int,
        seed: int,
        most_work: float = math.inf,
    ) -> None:
        self.heavy = False
        self.model = model
        self.most_work = most_work
        self.seed = seed
        self.layers = Layers(
            model,
            {**int_attributes(model), **{k: v for k, v in hints.items() if v is not None}},
            rows,
        )
        self.repairs = Repairs(model, self.layers)
        self.parameters = forward_parameters(model)
        self.revisions = Revisions(model, self.layers, self.parameters)
        self._for_the_loss = {
            p.name
            for loss in candidates(model, {})
            for p in parameters_of(loss.function)
            if p.default is p.empty
        }
        self._order = itertools.count()
        self._queue: list[tuple[int, int, int, State, nn.Module | None]] = []
        self._met: set[int] = set()
        self._tried_states: set[str] = set()
        self._wanted: set[str] = set()
        self._failures: Counter[tuple[int, str]] = Counter()
        self._blind = False

    def best(self) -> Made | None:
        """The first guess that runs and fits, else the one that got furthest; None without any."""
        best, furthest = self._searched(iter(self._starts()), _MOST_TRIALS, _MOST_SECONDS)
        if self._blind and best is not None and not has_layers(best.trial):
            return replace(best, misfit=True)  # it is no model that builds its layers when it runs
        if best is not None and not best.trial.ran:
            return with_other_rows(self, furthest, best) or best
        return best

    def _searched(
        self, waiting: Iterator[tuple[nn.Module | None, list[Slot]]], most: int, seconds: float
    ) -> tuple[Made | None, State]:
        """What the queue, and the starts after it, lead to; and the state that came so far."""
        best: Made | None = None
        furthest: State = {}
        trials = after = 0
        started = time.thread_time()
        while self._queue or self._start(waiting):
            late = time.thread_time() - started > seconds
            if trials >= most or after >= _MOST_AFTER_RUN or (late and best is not None):
                break
            _, _, _, state, layer = heapq.heappop(self._queue)
            if key(state) in self._tried_states:
                continue
            self._tried_states.add(key(state))
            trials += 1
            one, seen = self._tried(state, layer)
            wanted = one.trial.ran and key(state) in self._wanted
            further = best is None or one.score > best.score or _is_past_the_input(one, best)
            if best is None or further or wanted or self._is_rounder(one, best):
                best, furthest = one, state
            if self._revise(state, layer, one, seen):
                continue
            if one.trial.ran and (one.score[1] or not self._is_open(state, layer)):
                best = one if one.score[1] or not best.trial.ran else best
                break
            after += best.trial.ran
            self._learn(state, layer, seen, ran=one.trial.ran)
        return best, furthest

    def _revise(self, state: State, layer: nn.Module | None, one: Made, seen: Observed) -> bool:
        """Put a better form of what was tried first into the queue; whether there is any."""
        ran, fit = one.trial.ran, one.score[1]
        if ran and (unread := not_looked_up(state, seen)) is not None:
            self._push(unread, layer, seen.progress, -1)
            return True
        for form in (as_column, as_sequences, unmasked) if ran else ():
            if (other := self._new(form(state, seen))) is not None:
                self._wanted.add(key(other))
                self._push(other, layer, seen.progress, -1)
                return True
        if fit == 1 and (image := self._new(as_it_came_out(state, seen))) is not None:
            self._push(image, layer, seen.progress, -1)
            return True
        return ran and not fit and self._others(state, layer, seen)

    def _others(self, state: State, layer: nn.Module | None, seen: Observed) -> bool:
        """Put what may come out as it went in into the queue; whether there is any.

        Other widths of two arguments side by side, the axes of what came out.
        """
        others = itertools.chain(as_more_axes(state, seen), parted(state, seen))
        found = [s for s in itertools.islice(others, _BRANCHES) if self._new(s)]
        for rank, other in enumerate(found):
            self._push(other, layer, seen.progress, rank - _BRANCHES)
        return bool(found)

    def _is_rounder(self, one: Made, best: Made) -> bool:
        """Whether of two pictures that run, and do not come out alike, one is square and whole."""

        def whole(made: Made) -> bool:
            x = next(iter(made.args), None)
            if not isinstance(x, Tensor) or x.dim() != 4:
                return False
            return x.shape[2] == x.shape[3] and not x.shape[3] % self.layers.strides()

        return one.trial.ran and one.score == best.score and whole(one) and not whole(best)

    def fill(self, shape: tuple[int, ...]) -> Tensor:
        """Values for a shape: tokens below the vocabulary's size, else uniform in [0, 1)."""
        dtype, device = home(self.model)
        first = next(iter(self.layers.known), None)
        slot = (
            Slot(shape, "index", first.num_embeddings) if isinstance(first, TABLES) else Slot(shape)
        )
        if len(shape) == 1 and slot.kind == "index":
            generator = torch.Generator().manual_seed(self.seed)
            return torch.randint(0, slot.top, shape, generator=generator).to(device)
        filled: Tensor = slot.filled(dtype, device, self.seed)
        return filled

    def _starts(self) -> Iterator[tuple[nn.Module | None, list[Slot]]]:
        for layer in self.layers.known:
            if id(layer) not in self._met:
                self._met.add(id(layer))
                yield layer, self.layers.slots(layer)
        if not self.layers.known:
            bare = [Slot(s) for s in self.layers.bare_weights()]
            self._blind = not bare
            yield None, [Slot((self.layers.rows, _FEW))] if self._blind else bare

    def _start(self, waiting: Iterator[tuple[nn.Module | None, list[Slot]]]) -> bool:
        """Put the next layer's shapes into the queue."""
        for layer, slots in waiting:
            for slot in slots:
                self._push(self._state(slot), layer, 0, len(self._queue))
            if self._queue:
                return True
        return False

    def _state(self, main: Slot) -> State:
        """The data and what must come with it."""
        if not self.parameters:
            return {}
        first, *others = self.parameters
        width = told_width(first.name, self.layers) if others else None
        if width is not None and len(main.shape) == 2 and main.kind == "real":
            main = Slot((main.shape[0], width))
        state: dict[str, Node] = {first.name: main}
        if (names := names_of(self.model)) and takes_names(self.model, first.name):
            state[first.name] = by_names(names, main, self.layers)
        elif places := said_places(self.model, first.name):
            state[first.name] = Group("list", dict.fromkeys(places, main))
        if first.kind is first.VAR_POSITIONAL:
            count = max((len(m) for m in self._lists()), default=1)
            state[first.name] = Group("args", dict.fromkeys(range(count), main))
        optional = all(p.default is None for p in self.parameters)
        for p in others:
            if p.kind is p.VAR_POSITIONAL:
                continue
            is_label = re.search("label|target", p.name.lower()) is not None
            asked = p.default is p.empty or p.name in self._for_the_loss
            if p.default is p.empty and (known := words(self.model, p.name)):
                state[p.name] = Slot(kind="plain", value=known[0])
                continue
            if p.default is None and made_when_missing(self.model, p.name):
                continue
            if asked or (optional and not is_label and not is_option(self.model, p.name)):
                graph = of_one_graph(p.name, [q.name for q in self.parameters], main)
                beside = graph or companion(p.name, main, self.layers)
                state[p.name] = beside if beside.kind == "plain" else plain(p, beside) or beside
        return state

    def searched_from(self, state: State, rows: int, most: int, seconds: float) -> Made | None:
        """What one state leads to, with another number of rows from here on."""
        self.layers.rows = rows
        self._queue.clear()
        self._failures.clear()
        self._push(state, None, 0, 0)
        return self._searched(iter(()), most, seconds)[0]

    def as_it_is(self, state: State, rows: int) -> Made | None:
        """One state alone, with another number of rows from here on; None if it was tried."""
        self.layers.rows = rows
        return None if self._new(state) is None else self._tried(state, None)[0]

    def _lists(self) -> list[nn.ModuleList]:
        return [m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]

    def _new(self, state: State | None) -> State | None:
        """The state, if it was not tried."""
        return None if state is None or key(state) in self._tried_states else state

    def _push(self, state: State, layer: nn.Module | None, progress: int, rank: int) -> None:
        if key(state) not in self._tried_states and is_small(state):
            heapq.heappush(self._queue, (-progress, rank, next(self._order), state, layer))

    def _tried(self, state: State, layer: nn.Module | None) -> tuple[Made, Observed]:
        dtype, device = home(self.model)
        values = {
            p: s.filled(dtype, device, self.seed + i)
            for i, (p, s) in enumerate(slots_of(state).items())
        }
        args, kwargs = self._arguments(state, values)
        forward = partial(self.model, *args, **kwargs)
        seen = observe(forward, self.model, values, seed=self.seed, most_work=self.most_work)
        self.heavy = self.heavy or is_too_much(seen)
        main = next((v for v in values.values() if isinstance(v, Tensor)), None)
        trial = seen.trial
        fit = fits(trial.value, main) if trial.ran and main is not None else 0
        score = (int(trial.ran), fit, seen.progress)
        axis = None if self._has_graph(state) else rows_axis(state, seen, self.layers.rows)
        origin = self._origin(state, layer, seen)
        misfit, blamed = is_misfit(seen), blamed_in(seen)
        return Made(args, kwargs, origin, trial, score, axis, misfit, seen.work, blamed), seen

    def _arguments(
        self, state: State, values: Mapping[Path, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """One by one where the order allows it, by name otherwise."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        in_order = True
        for p in self.parameters:
            if p.name not in state:
                in_order = False
                continue
            value = made(state[p.name], values, (p.name,))
            if p.kind is p.VAR_POSITIONAL:
                args += value
            elif in_order and p.kind is not inspect.Parameter.KEYWORD_ONLY:
                args.append(value)
            else:
                kwargs[p.name] = value
        named = {p.name for p in self.parameters}
        kwargs |= {n: made(state[n], values, (n,)) for n in state if n not in named}
        return tuple(args), kwargs

    def _has_graph(self, state: State) -> bool:
        """Whether the rows are the nodes of one graph, which comes with them or is the model's."""
        names = [str(k) for n, node in state.items() for p, _ in slots_in(node, (n,)) for k in p]
        shapes = [s.shape for s in slots_of(state).values()]
        flat = bool(shapes) and 0 < len(shapes[0]) < 3
        return flat and (any(map(is_graph, names)) or holds_graph(self.model, shapes[0][0]))

    def _origin(self, state: State, layer: nn.Module | None, seen: Observed) -> str:
        reached = next((c.module for c in seen.trial.calls if isinstance(c.module, KNOWN)), layer)
        where = self.layers.names.get(id(reached), "") if reached is not None else ""
        text = f"made up from `{where}`" if where else "made up from the parameters' shapes"
        return f"{text}: {how}" if (how := told(state)) else text

    def _learn(self, state: State, layer: nn.Module | None, seen: Observed, *, ran: bool) -> None:
        if ran:
            for rank, other in enumerate(output_shapes(state, seen)):
                self._push(other, layer, seen.progress, rank)
            return
        name = seen.failed.name if seen.failed is not None else ""
        self._failures[seen.progress, name] += 1
        if self._failures[seen.progress, name] > _MOST_ALIKE:
            return
        if is_too_much(seen):
            for rank, other in enumerate(halved(state)):
                self._push(other, layer, seen.progress, rank)
            return
        repairs = itertools.chain(
            self.revisions.without_none(state, seen),
            self.revisions.in_other_words(state),
            flipped(state, seen),
            self.repairs.of(state, seen),
        )
        for rank, other in enumerate(itertools.islice(repairs, _BRANCHES)):
            self._push(other, layer, seen.progress, rank)
        for other in self.revisions.joined_after_all(state, seen):
            self._push(other, layer, seen.progress, _BRANCHES // 4)
        calls = [c for c in seen.trial.calls if isinstance(c.module, KNOWN)]
        for call in calls[:1]:
            if call.module is not layer and id(call.module) not in self._met:
                self._met.add(id(call.module))
                for rank, slot in enumerate(self.layers.slots(call.module)):
                    self._push(self._state(slot), call.module, seen.progress, _BRANCHES + rank)

    def _is_open(self, state: State, layer: nn.Module | None) -> bool:
        """Whether the model would run at other sizes too, so that the right one must be found."""
        kinds = nn.modules.conv._ConvNd | nn.GroupNorm | nn.RNNBase
        spatial = isinstance(layer, kinds) or layer is None
        return spatial or any(
            isinstance(m, nn.modules.conv._ConvNd) and len(s.shape) > 2
            for m in self.layers.known[:1]
            for s in slots_of(state).values()
        )


def _is_past_the_input(one: Made, best: Made) -> bool:
    """Whether a try fails at a part that nobody gave, where the other fails at its input."""
    told = [calls_none(m.trial.error) for m in (one, best)]
    return one.score == best.score and told == [True, False]
