"""Seeds, generators, modes and torch's switches: set for a trial, and put back."""

from __future__ import annotations

import inspect
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def seed_everything(seed: int) -> None:
    """Seed torch, Python and (where it is loaded) NumPy."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
    else:  # `torch.manual_seed` formats a traceback for a device that is not there
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def set_mode(model: nn.Module, training: bool) -> None:
    """Training or evaluation mode; a `train` of the user's that takes data is not called."""
    modules = list(model.modules())
    kinds = set(map(type, modules))
    if all(map(_plain_switch, kinds)) and not any("train" in vars(m) for m in modules):
        for module in modules:  # as torch would, in a tenth of the time
            vars(module)["training"] = training
    elif all(map(_switches, kinds)):
        model.train(training)
    else:
        for module in modules:
            module.training = training


def _plain_switch(kind: type[nn.Module]) -> bool:
    """Whether the mode of a class's modules is an attribute like any other."""
    own = kind.train is nn.Module.train and kind.__setattr__ is nn.Module.__setattr__
    return own and not hasattr(kind, "training")


def _switches(kind: type[nn.Module]) -> bool:
    """Whether a class's `train` sets the mode, as `nn.Module.train` and those that extend it do."""
    if kind.train is nn.Module.train:
        return True
    try:
        _, *parameters = inspect.signature(kind.train).parameters.values()
    except (TypeError, ValueError):
        return False
    first = parameters[0] if parameters else None
    return first is not None and (first.name == "mode" or isinstance(first.default, bool))


def versions_kept(model: nn.Module) -> Callable[[], None]:
    """A function that sets autograd's edit counts of parameters and buffers back to those of now.

    A graph refuses to be asked once a table that it saved is updated in place, as every further
    training step of a model with moving averages does. After a rewind the values are those of the
    start again, and the graph of the step that is kept may be asked.
    """
    guard = getattr(torch.autograd.grad_mode, "_unsafe_preserve_version_counter", None)
    held = [t for t in (*model.parameters(), *model.buffers()) if not t.is_inference()]
    kept = [guard(t) for t in held if not is_lazy(t)] if guard is not None else []

    def put_back() -> None:
        for one in kept:
            one.__exit__(None, None, None)

    return put_back


@contextmanager
def generators_restored() -> Iterator[None]:
    """Put every random generator back: torch's on each device, NumPy's, Python's."""
    cpu, python = torch.get_rng_state(), random.getstate()
    numpy = sys.modules.get("numpy")
    legacy = numpy.random.get_state() if numpy else None
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if started else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        random.setstate(python)
        if numpy is not None and legacy is not None:
            numpy.random.set_state(legacy)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def switches_restored() -> Iterator[None]:
    """Put grad mode, default dtype, anomaly detection and determinism back."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    anomaly = torch.is_anomaly_enabled()
    check_nan = torch.is_anomaly_check_nan_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.autograd.set_detect_anomaly(anomaly, check_nan)
        now = torch.are_deterministic_algorithms_enabled()
        if (now, torch.is_deterministic_algorithms_warn_only_enabled()) != (
            deterministic,
            warn_only,
        ):  # the call imports torch's compiler: only when needed
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run the user's own code where a function or layer was compiled, so that it can be recorded.

    torch imports its compiler (a second) only where something was compiled.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are")
        yield
