"""Any model of the library timm, an optional dependency."""

import importlib
from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn

from relearn.errors import UserError
from relearn.probing.layer_groups import Group, layer_groups
from relearn.registry import register, suggest
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.initialisation import check_no_dropout
from relearn.training.models import Grouped, check_min_size


@register
def timm(num_classes: int, image_size: tuple[int, int], *, name: str) -> Grouped:
    """The model `name` of timm, untrained; its layer groups are found, as the library `relearn.pst` finds them.

    Weights are drawn by timm's own initialisation. A model that is made for one image size is made for that of the
    images; first layers are as timm has them, mostly for ImageNet. Needs `pip install 'relearn[timm]'`. Raises
    UserError without it, for a name that it does not know, for images (H, W) of less than 16 pixels a side or that the
    model cannot take, and for a model with dropout. Wightman, 2019 (github.com/huggingface/pytorch-image-models).
    """
    check_min_size(image_size, 16, "timm")
    library = _library()
    if not library.is_model(name):
        raise UserError(f"timm: unknown model '{name}'; {suggest(name, library.list_models())}")

    def make() -> nn.Module:
        own = {"pretrained": False, "num_classes": num_classes}
        try:
            try:
                return library.create_model(name, img_size=image_size, **own)
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
            return library.create_model(name, **own)  # a network that takes images of every size
        except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            size = f"{image_size[0]}x{image_size[1]}"
            raise UserError(f"timm: {name} cannot be made for images of {size}: {reason}; choose another") from error

    return _Found(make, image_size)


class _Found(Grouped):
    """A network whose layer groups are found from a forward pass of images of `size`."""

    def __init__(self, make: Callable[[], nn.Module], size: tuple[int, int]):
        model = make()
        check_no_dropout(model)
        super().__init__({"model": model}, published={"": "model"})
        self.make = make
        sketch = next(model.parameters()).is_meta  # to know its weights, and not to be called
        found = {} if sketch else layer_groups(model, torch.zeros(2, 3, *size))
        self.groups = {name: _Part(group) for name, group in found.items()}

    def layer_groups(self) -> dict[str, nn.Module]:
        """The groups by name, shallow to deep; each gives the activation of its last module, and does nothing else."""
        return dict(self.groups)

    def draw(self, generator: torch.Generator) -> None:
        """Make the model anew, with torch's generator at a seed from `generator`, and take over its weights."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.get_submodule("model").load_state_dict(self.make().state_dict())


class _Part(nn.Module):
    """The parameters of a group; it is called with the activation of the group, right after what gives it."""

    def __init__(self, group: Group):
        super().__init__()
        for number, parameter in enumerate(group.parameters):
            self.register_parameter(str(number), parameter)
        group.output.register_forward_hook(lambda _, __, out: self(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activation as it is."""
        return x


def _library() -> ModuleType:
    """The package timm. Raises UserError where it is not installed."""
    torchvision()  # timm imports it
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise UserError(
            "the architecture timm needs the package timm; install it: pip install 'relearn[timm]'"
        ) from None
