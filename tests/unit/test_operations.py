"""The operations of RandAugment against those of PIL, and who gets which."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from helpers.images import drawn
from relearn.training import operations
from relearn.training.operations import Operation, one_each


def pictures(count: int = 6, height: int = 32, width: int = 24) -> torch.Tensor:
    """Smooth random images of whole levels, (N, 3, H, W) in [0, 1], none of which uses all of them."""
    coarse = torch.rand(count, 3, 6, 6, generator=drawn(5)) * torch.rand(count, 3, 1, 1, generator=drawn(6))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return ((255 * smooth.clamp(0, 0.9)).round() / 255).contiguous(memory_format=torch.channels_last)


def of_pil(x: torch.Tensor, change) -> torch.Tensor:
    pixels = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    changed = [np.asarray(change(Image.fromarray(image))) for image in pixels]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).float() / 255


ENHANCERS = {"brightness": "Brightness", "colour": "Color", "contrast": "Contrast", "sharpness": "Sharpness"}


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("level", [-0.9, -0.27, 0.0, 0.6])
def test_enhancements_are_those_of_pil(name, level):
    x = pictures()
    out = getattr(operations, name)(x, torch.full((len(x),), level))
    expected = of_pil(x, lambda image: getattr(ImageEnhance, ENHANCERS[name])(image).enhance(1 + level))
    assert (out - expected).abs().max() <= 2.5 / 255  # PIL works in whole numbers
    assert (level == 0) == torch.allclose(out, x, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_posterize_and_solarize_are_those_of_pil(bits):
    x = pictures()
    level = torch.full((len(x),), bits + 0.4)
    assert torch.allclose(operations.posterize(x, level), of_pil(x, lambda image: ImageOps.posterize(image, bits)))
    threshold = 28 * bits
    out = operations.solarize(x, torch.full((len(x),), (threshold - 0.5) / 255))
    assert torch.allclose(out, of_pil(x, lambda image: ImageOps.solarize(image, threshold)), atol=1e-6)


def test_histograms_are_those_of_pil():
    x = torch.cat([pictures(), torch.full((1, 3, 32, 24), 0.2), (pictures(1) > 0.1).float()])
    none = torch.zeros(len(x))
    stretched = operations.autocontrast(x, none)
    assert (stretched - of_pil(x, ImageOps.autocontrast)).abs().max() <= 1.01 / 255
    x = (255 * x).round() / 255
    assert torch.allclose(operations.equalize(x, none), of_pil(x, ImageOps.equalize), atol=1e-6)


@pytest.mark.parametrize("name, matrix", [("shear_x", (1, 0.3, 0, 1)), ("shear_y", (1, 0, 0.3, 1))])
def test_shears_are_those_of_pil(name, matrix):
    x = pictures()
    a, b, d, e = matrix
    # PIL takes pixels by their corner, and maps around the origin
    corners = (a, b, 12 - 12 * a - 16 * b, d, e, 16 - 12 * d - 16 * e)
    out = getattr(operations, name)(x, torch.full((len(x),), 0.3))

    def change(image):
        return image.transform(image.size, Image.Transform.AFFINE, corners, Image.Resampling.BILINEAR)

    assert (out - of_pil(x, change))[..., 6:-6, 6:-6].abs().max() <= 1.1 / 255


def test_turns_and_moves_by_hand():
    x = pictures(2, 24, 24)
    full = torch.ones(2)
    assert torch.allclose(operations.rotate(x, 90 * full), x.rot90(-1, (2, 3)), atol=1e-4)
    assert torch.allclose(operations.translate_x(x, 0.25 * full)[..., :-6], x[..., 6:], atol=1e-5)
    assert torch.allclose(operations.translate_y(x, -0.5 * full)[..., 12:, :], x[..., :12, :], atol=1e-5)
    different = operations.rotate(x[:1].expand(2, 3, 24, 24), torch.tensor([0.0, 20.0]))
    assert torch.allclose(different[0], x[0], atol=1e-5) and not torch.allclose(different[1], x[0], atol=0.01)


def test_every_image_gets_one_operation():
    marks = [Operation(lambda x, level, k=k: torch.full_like(x, k / 10)) for k in range(5)]
    x = torch.ones(23, 3, 4, 4)
    first, again, other = (one_each(x, marks, drawn(seed))[:, 0, 0, 0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert sorted((10 * first).round().long().bincount().tolist()) == [4, 4, 5, 5, 5]
    assert one_each(x[:2], marks, drawn(1)).max() < 1


def test_no_operation_is_left_out_of_small_batches():
    """Such as those of a small `micro_batch`: in parts of three images each of five operations has its share."""
    marks = [Operation(lambda x, level, k=k: torch.full_like(x, k / 10)) for k in range(5)]
    x, generator = torch.ones(3, 3, 4, 4).contiguous(memory_format=torch.channels_last), drawn(1)
    parts = [one_each(x, marks, generator) for _ in range(200)]
    counts = (10 * torch.cat(parts)[:, 0, 0, 0]).round().long().bincount(minlength=5)
    assert counts.sum() == 600 and counts.min() > 80 and counts.max() < 160
    assert parts[0].is_contiguous(memory_format=torch.channels_last)


def test_levels_are_drawn_for_every_image():
    seen = []
    Operation(lambda x, level: seen.append(level), 0.2, 0.6, True).apply(torch.zeros(4000, 3, 1, 1), drawn(3))
    assert seen[0].abs().min() >= 0.2 and seen[0].abs().max() <= 0.6 and seen[0].abs().std() > 0.1
    assert abs((seen[0] < 0).float().mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    "magnitude, shear, translate, turn, factor, bits, threshold",
    [(9, 0.09, 0.3 * 150 / 331, 9.0, 0.27, 7.0, 0.7), (30, 0.3, 150 / 331, 30.0, 0.9, 4.0, 0.0)],
)
def test_levels_of_randaugment(magnitude, shear, translate, turn, factor, bits, threshold):
    """As the usual implementations have them: 31 magnitudes, evenly spaced from none to the most."""
    kinds = {kind.function.__name__: kind for kind in operations.randaugment(magnitude / 30)}
    assert len(kinds) == 14
    expected = {"shear_x": shear, "shear_y": shear, "translate_x": translate, "translate_y": translate, "rotate": turn}
    expected |= dict.fromkeys(("brightness", "colour", "contrast", "sharpness"), factor)
    for name, level in expected.items():
        assert kinds[name].low == kinds[name].high == pytest.approx(level) and kinds[name].signed, name
    for name, level in {"posterize": bits, "solarize": threshold}.items():
        assert kinds[name].low == kinds[name].high == pytest.approx(level) and not kinds[name].signed, name


def test_randaugment_grows_with_its_strength():
    x = pictures(140)
    weak, strong = (one_each(x, operations.randaugment(strength), drawn(4)) for strength in (0.05, 1.0))
    assert (strong - x).abs().mean() > 2 * (weak - x).abs().mean() > 0
