"""What one forward pass shows of the modules of a network: order, shapes, and whether everything passes through."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from relearn.errors import UserError
from relearn.probing import metrics


@dataclass
class Call:
    """What a forward pass showed of a module.

    `place` is that of its first return, `times` the number of calls, `shape` that of its last output if it is a tensor
    with a row for each image. `passage` says whether the logits depend on the images through this output alone: of a
    layer with a shortcut around it they do not.
    """

    place: int
    times: int = 0
    shape: tuple | None = None
    passage: bool = True


Calls = dict[nn.Module, Call]


def trace(model: nn.Module, images: torch.Tensor) -> Calls:
    """The calls of one forward pass over `images` (N, C, H, W), in evaluation mode; the model stays as it was.

    Parametrizations, which return weights, are left out. Raises UserError when the model cannot take the images, or
    gives no logits.
    """
    calls: Calls = {}
    origins: dict[nn.Module, object] = {}  # the place of an output in autograd's graph

    def returned(module, _, out) -> None:
        call = calls.setdefault(module, Call(len(calls)))
        call.times += 1
        call.shape = tuple(out.shape) if torch.is_tensor(out) and out.shape[:1] == (len(images),) else None
        origins[module] = out.grad_fn if torch.is_tensor(out) else None

    hidden = {inner for module in model.modules() for inner in _parametrizations(module)}
    hooks = [module.register_forward_hook(returned) for module in model.modules() if module not in hidden]
    device = next(model.parameters(), images).device
    start = images.detach().to(device, copy=True).requires_grad_()
    try:
        with metrics.evaluating(model), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            logits = metrics.logits_of(model(start))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{type(model).__name__} cannot take images {tuple(images.shape)} {images.dtype}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    through = _passages(logits.grad_fn, start)
    if through:
        for module, call in calls.items():
            call.passage = call.shape is not None and origins[module] in through
    return calls


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of `module` itself, those behind its parametrizations among them."""
    behind = (parameter for inner in _parametrizations(module) for parameter in inner.parameters(recurse=False))
    return [*module.parameters(recurse=False), *behind]


def _parametrizations(module: nn.Module) -> list[nn.Module]:
    if not parametrize.is_parametrized(module):
        return []
    return list(module.get_submodule("parametrizations").modules())


def _passages(end, start: torch.Tensor) -> set:
    """What of autograd's graph is on every path from `end` to the tensor `start`; nothing where there is no path.

    On all of them is that for which (paths from the end to it) x (paths from it to the start) are all paths there are.
    """
    order: list = []  # every node after those that it leads to
    seen, stack = {None}, [(end, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions if following not in seen)
    onward: dict = {}
    for node in order:
        at_start = getattr(node, "variable", None) is start
        onward[node] = 1 if at_start else sum(onward[following] for following, _ in node.next_functions if following)
    arriving = dict.fromkeys(order, 0) | {end: 1}
    for node in reversed(order):
        for following, _ in node.next_functions:
            if following:
                arriving[following] += arriving[node]
    total = onward.get(end, 0)
    return {node for node in order if total and arriving[node] * onward[node] == total}
