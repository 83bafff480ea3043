"""Networks as ordered layer groups, their initialisation from a generator, and their input normalisation."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from relearn import registry
from relearn.data import to_float
from relearn.errors import UserError
from relearn.runtime import memory
from relearn.training.initialisation import CONVOLUTIONAL, Draw, initialise

Network = TypeVar("Network", bound=nn.Module)
#: copies of the weights that training holds at least: themselves, their gradients, the momentum
COPIES = 3
#: pixels on the shorter side from which networks begin as for ImageNet: half of its 224, where they still end at 4x4
LARGE = 112
COUNTED = 2**20  # pixels at once whose levels are counted


class Grouped(nn.Sequential):
    """A network whose named children are its layer groups, shallow to deep.

    `initialisation` says for each type of module how its weights are drawn. `published` has the names of modules in
    checkpoints that others publish, of torchvision or timm, and those of the same modules here.
    """

    fit_images = 0  # how many images `fit_to` wants; 0 for a network that is initialised without any

    def __init__(
        self,
        groups: dict[str, nn.Module],
        initialisation: Mapping[type, Draw] = CONVOLUTIONAL,
        published: Mapping[str, str] | None = None,
    ):
        super().__init__(OrderedDict(groups))
        self.initialisation, self.published = initialisation, dict(published or {})

    def layer_groups(self) -> dict[str, nn.Module]:
        """The groups by name in forward order; a group's activation is its module's output."""
        return dict(self.named_children())

    def draw(self, generator: torch.Generator) -> None:
        """Draw all weights anew, from `generator` alone."""
        initialise(self, generator)

    def fit_to(self, x: torch.Tensor) -> None:
        """End the initialisation by `fit_images` images (N, 3, H, W) float32, as the first group will get them."""


class Normalised(nn.Module):
    """A network that takes images in [0, 1] and first subtracts `mean` and divides by `std`, both (3,) float32.

    It computes in `precision`, "bfloat16" by autocast; logits are float32 all the same.
    """

    network: Grouped
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Grouped, mean: torch.Tensor, std: torch.Tensor, precision: str = "float32"):
        super().__init__()
        self.network, self.precision = network, precision
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1))
        self.register_buffer("std", std.reshape(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of a batch (B, 3, H, W) in [0, 1]."""
        # one value per pixel and channel: over three channels alone it would run a pixel at a time
        mean, std = (
            part.expand(1, *x.shape[1:]).contiguous(memory_format=torch.channels_last) for part in (self.mean, self.std)
        )
        x = (x - mean) / std
        if self.precision == "float32":
            return self.network(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x).float()

    def layer_groups(self) -> dict[str, nn.Module]:
        """The groups of the network."""
        return self.network.layer_groups()


def channel_statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel, in [0, 1], of images (N, H, W, 3) uint8; sums of integers are exact."""
    counts = torch.zeros(3, 256, dtype=torch.int64)  # how often each level is there
    for some in images.split(max(1, COUNTED // images[0, ..., 0].numel())):
        channels = some.cpu().reshape(-1, 3).T
        counts += torch.stack([torch.bincount(channel, minlength=256) for channel in channels])
    levels = torch.arange(256)
    total, square = counts @ levels, counts @ levels.square()
    count = images.numel() // 3
    mean = total.double() / count
    std = (square.double() / count - mean.square()).clamp_min(1.0).sqrt()
    return (mean / 255).float(), (std / 255).float()


def build(
    arch: str,
    settings: dict,
    *,
    images: torch.Tensor,
    classes: int,
    generator: torch.Generator,
    device: str,
    size: tuple[int, int] | None = None,
    transform: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    precision: str = "float32",
) -> Normalised:
    """The registered architecture, initialised from `generator`, normalised by the statistics of `images`, on `device`.

    `size` (H, W) is that of the images as the model will get them, None for that of `images`, and `transform` makes
    them so from a batch (B, 3, H, W) in [0, 1]. Raises UserError when the architecture cannot take the size.
    """
    size = size or (images.shape[1], images.shape[2])
    network = constructed(arch, lambda: registry.load("architectures", arch)(classes, size, **settings), device)
    network.draw(generator)
    model = Normalised(network, *channel_statistics(images), precision)
    if network.fit_images:
        count = min(network.fit_images, len(images))
        some = torch.linspace(0, len(images) - 1, count).long()  # of all classes, in whatever order the files are
        network.fit_to((transform(to_float(images[some].cpu())) - model.mean) / model.std)
    return _placed(model, device)


def constructed(name: str, make: Callable[[], Network], device: str) -> Network:
    """The network that `make` constructs, on the CPU; global randomness, of which constructors draw, stays as it was.

    It is made without memory first. Raises UserError when training its weights would need more than the device has.
    """
    with torch.device("meta"):
        sketch = make()
    count = sum(parameter.numel() for parameter in sketch.parameters())
    what = f"training {name}, of {count:,} weights,"
    memory.check(COPIES * 4 * count, what, "give a smaller width or another arch", device)
    with torch.random.fork_rng(devices=[]):
        return make()


def check_batch(model: nn.Module, images: torch.Tensor, batch: int, remedy: str) -> None:
    """Raises UserError when training on a batch of `batch` images like the first of `images` would not fit.

    Counted is what each layer puts out, from a forward pass of one image (1, 3, H, W), and the model's weights.
    """
    values = 0

    def count(_, __, output) -> None:
        nonlocal values
        values += output.numel() if torch.is_tensor(output) else 0

    leaves = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    hooks = [module.register_forward_hook(count) for module in leaves]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(images[:1])
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    weights = sum(parameter.numel() for parameter in model.parameters())
    needed = 4 * (COPIES * weights + values * batch)
    memory.check(needed, f"training on batches of {batch} images", remedy, images.device.type)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that `rebuild` needs of a model: parameters, batch-norm statistics, normalisation; on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def rebuild(
    arch: str,
    settings: dict,
    tensors: dict[str, torch.Tensor],
    *,
    classes: int,
    size,
    device: str,
    precision: str = "float32",
) -> Normalised:
    """The model whose `weights` are `tensors`. Raises UserError when they do not fit the architecture."""
    network = constructed(arch, lambda: registry.load("architectures", arch)(classes, tuple(size), **settings), device)
    model = Normalised(network, torch.zeros(3), torch.ones(3), precision)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"the stored weights are not of {arch} with {settings}: {str(error).splitlines()[-1].strip()}; "
            "run train again"
        ) from None
    return _placed(model, device)


def _placed(model: Normalised, device: str) -> Normalised:
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def check_min_size(size: tuple[int, int], least: int, arch: str) -> None:
    """Raises UserError when an image of `size` (H, W) is smaller than `arch` can take."""
    if min(size) < least:
        raise UserError(
            f"{arch} needs images of at least {least}x{least}, found {size[0]}x{size[1]}; "
            "choose a larger size or another arch"
        )


def is_large(size: tuple[int, int]) -> bool:
    """Whether images of `size` (H, W) get the first layers of ImageNet, which shrink them, or those for small images.

    The bound is `LARGE` pixels on the shorter side.
    """
    return min(size) >= LARGE


def stem(width: int, size: tuple[int, int]) -> nn.Sequential:
    """The first layers of ResNet and DenseNet for images of `size` (H, W): a convolution to `width` channels, and more.

    Small images get a 3x3 convolution of stride 1; large ones, by `is_large`, the 7x7 convolution and the max-pooling
    of ImageNet, each of stride 2.
    """
    if is_large(size):
        convolution = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
