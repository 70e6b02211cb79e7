"""Whether what a forward pass raises on a made-up batch would be raised on any.

A name that is not there and a call that its own function refuses are missing whatever the input is;
an operation refuses sizes of the model's own where no size of the batch has come to it. What the
code of a library raises else may be due to a value or an option that nobody gave.
"""

from __future__ import annotations

import inspect
import re
import sys
from functools import partial
from types import ModuleType

from torch import nn

from .construct.asserted import check_in
from .running import Chosen, Wanted
from .script.stepped import Stepped
from .trials.trial import forward_parameters, leaves
from .trials.witness import observe, user_frames

_CALLED_WRONGLY = re.compile(
    r"\) (?:missing \d+ required|got an unexpected keyword|got multiple values"
    r"|takes (?:from )?\d+ .*positional arguments?)"
)


def is_doubtful(chosen: Chosen, wanted: Wanted, *, own: bool) -> bool:
    """Whether another input, or another option, may mend what the forward pass raises.

    `own` says that the model's code is the user's, who reads the traceback as a finding.
    """
    built, batch, calling = chosen
    if batch.ran or not batch.guessed or isinstance(calling.parts, Stepped):
        return False
    model = built.model
    named = zip((p.name for p in forward_parameters(model)), batch.args, strict=False)
    slots = {
        (name, *path): t for name, v in (*named, *batch.kwargs.items()) for path, t in leaves(v)
    }
    with calling.on(model):
        seen = observe(partial(batch.run, model), model, slots, seed=wanted.seed)
    error = seen.trial.error
    if error is None or (whatever_the_input(error) and (own or not _is_set_later(error))):
        return False
    failed = seen.failed
    if failed is not None and failed.error is error:
        return not failed.of_weights and any(o.paths for o in failed.operands)
    checked = check_in(error) is not None
    raised = any(line.startswith("raise ") for _, line in user_frames(error)[:1])
    return checked or not (own and (seen.trial.completed or raised))


def whatever_the_input(error: BaseException) -> bool:
    """Whether no other input can mend it: a name, a method or an argument that is missing."""
    match error:
        case SystemExit() | ImportError():
            return True
        case AttributeError(obj=obj):
            return isinstance(obj, nn.Module | ModuleType | type)
        case NameError():
            return not isinstance(error, UnboundLocalError)
        case TypeError():
            return _CALLED_WRONGLY.search(str(error)) is not None and bool(user_frames(error))
    return False


def _is_set_later(error: BaseException) -> bool:
    """Whether a library sets the attribute that is missing, in another method or from outside."""
    if not isinstance(error, AttributeError) or not isinstance(error.obj, nn.Module):
        return False
    module = sys.modules.get(type(error.obj).__module__)
    try:
        text = inspect.getsource(module) if module is not None else ""
    except (OSError, TypeError):
        return False
    return re.search(rf"\.{re.escape(str(error.name))}\s*=(?!=)", text) is not None
