"""How weights are drawn anew: tables of initialisations by the type of a module, each from a generator."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from relearn.errors import UserError

#: draws the parameters of a module itself, not those of its children, from a generator
Draw = Callable[[Any, torch.Generator], None]

STD = 0.02  # standard deviation of the weights of transformers
CUT = 2.0  # standard deviations at which their distribution is cut off


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights anew, by the table `initialisation` of the network if it has one, else by `CONVOLUTIONAL`.

    Raises UserError for a layer with parameters of a kind that the table has not, whose weights would be under the
    control of no seed, and for dropout, which draws from no generator of ours.
    """
    table: Mapping[type, Draw] = getattr(network, "initialisation", CONVOLUTIONAL)
    for name, module in network.named_modules():
        draw = next((table[kind] for kind in type(module).__mro__ if kind in table), None)
        if any(True for _ in module.parameters(recurse=False)):
            if draw is None:
                raise UserError(
                    f"no initialisation is known for layer '{name}' ({type(module).__name__}); "
                    "add it to the table of its architecture (training/initialisation.py)"
                )
            draw(module, generator)
    check_no_dropout(network)


def check_no_dropout(network: nn.Module) -> None:
    """Raises UserError for layers that drop values or paths at random: they draw from torch's global generator."""
    for name, module in network.named_modules():
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth"
        shares = [getattr(module, key, 0.0) for key in ("drop_prob", "drop_rate", *(["p"] if is_dropout else []))]
        if any(isinstance(share, float) and share > 0 for share in shares):
            raise UserError(
                f"layer '{name}' ({type(module).__name__}) drops at random, under the control of no seed; "
                "choose a network without dropout"
            )


def truncated_normal(tensor: torch.Tensor, generator: torch.Generator) -> None:
    """Fill with a normal distribution of standard deviation `STD`, cut off at `CUT` of them."""
    nn.init.trunc_normal_(tensor, std=STD, a=-CUT * STD, b=CUT * STD, generator=generator)


def constant(**values: float) -> Draw:
    """Sets the parameters that `values` names to a number; the module must have no others."""

    def draw(module: nn.Module, _: torch.Generator) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            nn.init.constant_(parameter, values[name])

    return draw


def truncated(module: nn.Module, generator: torch.Generator) -> None:
    """A truncated normal distribution for all parameters but the bias, which is 0."""
    for name, parameter in module.named_parameters(recurse=False):
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            truncated_normal(parameter, generator)


def _kaiming(module: Any, generator: torch.Generator) -> None:
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    _no_bias(module)


def _uniform(module: Any, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(module.in_features)
    module.weight.uniform_(-bound, bound, generator=generator)
    _no_bias(module)


def _no_bias(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)


_NORM = constant(weight=1.0, bias=0.0)
_NORMS: dict[type, Draw] = dict.fromkeys((nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm), _NORM)

#: Kaiming normal (fan out) for convolutions, uniform by fan in for linear layers, ones for norms, zeros for biases
CONVOLUTIONAL: dict[type, Draw] = {nn.Conv2d: _kaiming, nn.Linear: _uniform, **_NORMS}
#: a truncated normal for convolutions and linear layers alike, ones for norms, zeros for biases
TRANSFORMER: dict[type, Draw] = {nn.Conv2d: truncated, nn.Linear: truncated, **_NORMS}
