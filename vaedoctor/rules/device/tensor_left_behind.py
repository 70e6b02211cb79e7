"""VAE202."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...finding import Finding, Number, Severity, Verified, where
from ...rule import Unavailable, rule

if TYPE_CHECKING:
    from ...examine.device.leftbehind import Stayed
    from ...examine.examination import Examination

_MESSAGES = {
    "noise": "the noise of `{name}` is made on the CPU",
    "constant": "`{name}` makes a constant on the CPU",
    "attribute": "`{name}` is a plain tensor that `.to(device)` does not move",
    "layer": "the weights in `{name}` are not registered, and `.to(device)` does not move them",
    "numpy": "a tensor made from NumPy or by a legacy constructor is on the CPU",
    "generator": "`{name}` draws on another device than its generator",
    "to numpy": "`{name}` reads a tensor that has moved to an accelerator",
}
_CURES = {
    "noise": "draw it where the others are: `torch.randn_like(std)`, or pass `device=mu.device`",
    "constant": "pass `device=x.device`, or register it once with `register_buffer`",
    "attribute": "register it in `__init__`: `self.register_buffer(name, tensor)`",
    "layer": "keep the layers in `nn.ModuleList` or give each an attribute of the model",
    "numpy": "move it where the others are: `.to(x)`",
    "generator": "make the generator on the tensor's device: `torch.Generator(device=x.device)`",
    "to numpy": "fetch the values first: `.detach().cpu().numpy()`",
}


@rule("VAE202", Severity.ERROR, before=("VAE204",))
def tensor_left_behind(examination: Examination) -> Iterator[Finding | Verified]:
    """Moved to an accelerator, an operation mixes a moved tensor with one that stayed.

    ## What it checks
    Runs the training step, and `sample`, `generate`, `encode`, `decode`, `reconstruct` and other
    public methods that only compute where their arguments are obvious, on a virtual accelerator:
    parameters, buffers and the batch pretend to have moved, everything else stays on the CPU,
    `tensor.device` and `is_cuda` answer with the pretence. An operation with operands on two
    devices is what a real accelerator refuses. No GPU is needed; where there is one, the real move
    is made as well.

    ## Why it matters
    The model works on the CPU and raises "Expected all tensors to be on the same device" on the
    first GPU, often only in `sample()`, after the training is done.

    ## How to fix
    Let new tensors take their device from others: `randn_like`, `device=x.device`, `x.new_zeros`.
    Keep constants in `register_buffer`.

    ## False alarms
    Values of one element without dimensions may stay on the CPU, indices and packed lengths too.
    A tensor whose device comes from a variable is taken to move along.

    ## References
    PyTorch documentation, "Tensor Attributes: torch.device"; ATen `TensorIterator`.
    """
    if not examination.subject.moves:
        raise Unavailable("the file moves none of the modules that its loop joins to a device")
    moved = examination.move
    behind = [s for s in moved.stayed if s.kind != "literal"]
    for stayed in behind:
        yield _finding(stayed, agrees=moved.agrees, stuck=examination.stuck)
    if moved.error is not None and not moved.stayed:
        raise Unavailable(f"the step does not run on a virtual accelerator: {moved.error}")
    if not behind:
        checked: dict[str, Number] = {"methods": list(moved.methods)}
        if moved.agrees is not None:
            checked["a real accelerator agrees"] = moved.agrees
        yield Verified("moved to an accelerator, no operation mixes two devices", checked)


def _finding(stayed: Stayed, *, agrees: bool | None, stuck: bool) -> Finding:
    method = f" in `{stayed.method}`" if stayed.method != "forward" else ""
    layer = f" (`{stayed.path}`)" if stayed.path else ""
    real = () if agrees is None else (f"a real accelerator {'agrees' if agrees else 'disagrees'}",)
    return Finding(
        _MESSAGES[stayed.kind].format(name=stayed.name) + method,
        help=_CURES[stayed.kind],
        at=stayed.at,
        measured={"mixed by": stayed.operation, "devices": ["cuda:0", stayed.device]},
        notes=(
            f"`{stayed.operation}`{layer} refuses it in {where(stayed.mixed_at, stayed.at)}",
            *real,
        ),
        causes=stayed.causes | ({"failure"} if stuck else set()),
    )
