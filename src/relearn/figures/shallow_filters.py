"""What the shallow layers of trained networks respond to."""

from __future__ import annotations  # the types of torch, which is imported where a network is built

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.errors import UserError
from relearn.registry import CellName, PositiveInt, register
from relearn.reporting.rendering import PAPER, sections, styled

if TYPE_CHECKING:
    import torch

    from relearn.probing.shallow import Respond, Responses
    from relearn.training.models import Normalised

IMAGES, EXAMPLES = 200, 2  # that shares are measured on; and that maps show
SEEN = 50  # of them patterns are means over, which takes most of the time
LINES = 2  # of patterns
DARKEST = 3.0  # deviations, black in the maps
BEFORE = "before training"


@dataclass(frozen=True)
class Row:
    """What a row shows: words, responses, patterns (C, h, w, 3) of the strongest channels and their shares."""

    words: str
    found: Responses
    patterns: numpy.ndarray
    shares: list[float]


@register
@styled
def shallow_filters(
    networks: dict, *, cells: list[CellName], groups: PositiveInt = 2, channels: PositiveInt = 16
) -> Figure:
    """What the first `groups` layer groups respond to before training and after that of each of `cells`.

    A section per dataset, poison, architecture and seed, a row per network. Beside its name: the perturbation's share
    of the variance, of the pixels as the network gets them and of the responses; it can be above 100 %. Then the
    `channels` strongest channels: the pattern that raises each most, and its own share. Then, for two images, how far
    the responses to the clean image are from their mean, and what the perturbation changes in them (white 0, black 3
    deviations); above these the image and its perturbation, to the full range. 200 training images are measured.
    Raises UserError for an architecture with no more groups than `groups`, or whose responses are no maps.
    """
    sections_of: dict[str, list[dict]] = {}
    for cell in (networks[name]["cell"] for name in dict.fromkeys(cells)):
        title = f"{cell.poison}, {cell.dataset}, {cell.arch}, seed {cell.seed}"
        sections_of.setdefault(title, []).append(networks[str(cell)])
    figure, parts = sections({title: 1.3 + 0.85 * (1 + len(found)) for title, found in sections_of.items()}, PAPER)
    for part, found in zip(parts, sections_of.values(), strict=True):
        drawn = [(BEFORE, found[0]), *((network["cell"].method, network) for network in found)]
        widths, heights = [4.2, *[1] * 2 * EXAMPLES], [0.8, *[1] * len(drawn)]
        axes = part.subplots(len(heights), len(widths), width_ratios=widths, height_ratios=heights)
        _images(axes[0], found[0])
        for line, (label, network) in zip(axes[1:], drawn, strict=True):
            row = _row(network, label, groups, channels)
            line[0].set_ylabel(row.words, rotation=0, ha="right", va="center", fontsize=7)
            _patterns(line[0], row.patterns, row.shares)
            for k, axis in enumerate(line[1:]):
                values = (row.found.image, row.found.change)[k % 2][k // 2]
                axis.imshow(values.numpy(), cmap="gray_r", vmin=0, vmax=DARKEST, interpolation="nearest")
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    return figure


def _row(network: dict, label: str, groups: int, channels: int) -> Row:
    """Build the network, give it the images, and measure."""
    from relearn.data import to_float
    from relearn.probing.shallow import filters, responses
    from relearn.runtime.seeding import deterministic

    deterministic(network["threads"])
    clean, poisoned, rows = _splits(network)
    given = [network["method"].eval_transform(to_float(images[rows])) for images in (clean, poisoned)]
    model = _model(network, poisoned, label == BEFORE)
    known = list(model.layer_groups())
    if groups >= len(known):
        raise UserError(
            f"shallow_filters: groups must be less than {len(known)}, the number of layer groups of "
            f"{network['cell'].arch} ({', '.join(known)}), found {groups}"
        )
    respond = _front(model, known[:groups])
    found = responses(respond, given[0], given[1], EXAMPLES)
    strongest = found.strength.argsort(descending=True, stable=True)[:channels]
    patterns = filters(respond, given[1][:SEEN], strongest).numpy()
    share = {"pixels": found.input_share, known[groups - 1]: found.share}
    words = "\n".join([label, *(f"{name} {100 * value:.2g} %" for name, value in share.items())])
    return Row(words, found, patterns, found.shares[strongest].tolist())


def _splits(network: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean and poisoned training images (N, H, W, 3) uint8, and the rows of those to measure, evenly spaced."""
    import torch

    from relearn.data import load_beside, load_split

    poisoned, facts = load_split(network["poisoned"])
    clean, _ = load_beside(network["clean"], facts["settings"])
    return clean.images, poisoned.images, torch.linspace(0, len(clean) - 1, min(IMAGES, len(clean))).long()


def _model(network: dict, images: torch.Tensor, untrained: bool) -> Normalised:
    """The network with its weights, or before the first step, built for these images (N, H, W, 3) as training does."""
    from relearn.data import load_tensors
    from relearn.runtime.seeding import Seeds
    from relearn.training import models

    cell, (arch, settings), method = network["cell"], network["arch"], network["method"]
    size = method.input_size((images.shape[1], images.shape[2]))
    given = {"classes": network["classes"], "device": "cpu", "size": size}
    if not untrained:
        return models.rebuild(arch, settings, load_tensors(network["model"])[0], **given).eval()
    generator = Seeds("train", cell.dataset, cell.arch, cell.seed).generator("init")
    how = {"generator": generator, "transform": method.eval_transform}
    return models.build(arch, settings, images=images, **how, **given).eval()


def _front(model: Normalised, names: list[str]) -> Respond:
    """The first layer groups of a network, with its normalisation."""
    parts = [model.layer_groups()[name] for name in names]

    def respond(x: torch.Tensor) -> torch.Tensor:
        x = (x - model.mean) / model.std
        for part in parts:
            x = part(x)
        return x

    return respond


def _images(axes: numpy.ndarray, network: dict) -> None:
    """Draw, above their columns, the clean images that maps show, and their perturbations on mid-grey."""
    clean, poisoned, rows = _splits(network)
    axes[0].text(0.5, 0, "strongest channels", transform=axes[0].transAxes, ha="center", va="bottom", fontsize=7)
    for k, axis in enumerate(axes[1:]):
        image = clean[rows[k // 2]].float().numpy() / 255
        change = poisoned[rows[k // 2]].float().numpy() / 255 - image
        limit = numpy.abs(change).max() or 1.0
        axis.imshow(0.5 + 0.5 * change / limit if k % 2 else image, interpolation="nearest")
        axis.set_title("perturbation" if k % 2 else "image", fontsize=7)


def _patterns(axis: Axes, patterns: numpy.ndarray, shares: list[float]) -> None:
    """Draw patterns (C, h, w, 3) in `LINES` lines on mid-grey, each to the full range, with its share in percent."""
    count, high, wide, _ = patterns.shape
    across = -(-count // LINES)
    limits = numpy.abs(patterns).max((1, 2, 3), keepdims=True)
    tiles = 0.5 + 0.5 * patterns / numpy.where(limits > 0, limits, 1)
    for place, (tile, share) in enumerate(zip(tiles, shares, strict=True)):
        x, y = place % across, place // across * 1.3
        axis.imshow(tile, extent=(x, x + 0.92, y + 0.92 * high / wide, y), interpolation="nearest")
        axis.text(x + 0.46, y - 0.02, f"{100 * share:.0f}", ha="center", va="bottom", fontsize=5)
    axis.set(xlim=(0, across), ylim=(1.3 * (LINES - 1) + 1, -0.3), aspect="equal")
