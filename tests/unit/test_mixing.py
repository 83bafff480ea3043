"""Cutout, mixup and cutmix: what they do to images, labels and the loss."""

import pytest
import scipy.stats
import torch
from torch import nn

from helpers.images import drawn
from relearn.methods.cutout import Cutout
from relearn.methods.mixing import Cutmix, Mixup, beta


class Answers(nn.Module):
    """A network that keeps its input and answers the mean colour of each of three channels, as logits of 3 classes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return 9 * x.mean((2, 3))


def pure(count: int = 60, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one primary colour each, and its number as their label."""
    labels = torch.arange(count) % 3
    return torch.eye(3)[labels][:, :, None, None].expand(count, 3, side, side).contiguous(), labels


@pytest.mark.parametrize("size, side", [(4, 16), (5, 16), (16, 32), (1, 8)])
def test_cutout_hides_one_square_cut_off_at_the_border(size, side):
    x = torch.rand(400, 3, side, side, generator=drawn(1))
    out = Cutout(size=size).augment(x.clone(), drawn(2))
    hidden = (out != x).all(1)
    assert torch.equal(out[:, 0][hidden], torch.full((int(hidden.sum()),), float(x[:, 0].mean())))
    heights, widths = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), heights * widths)  # a rectangle
    assert heights.max() == widths.max() == size and heights.min() >= (size + 1) // 2
    covered = hidden.float().mean(0)
    within = covered[side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1].mean()
    assert within == pytest.approx((size / side) ** 2, abs=0.04)  # as often as the centre is near


def test_cutout_leaves_test_images():
    x = torch.rand(4, 3, 8, 8, generator=drawn(1))
    assert torch.equal(Cutout().eval_transform(x), x)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(alpha):
    draws = beta(20_000, alpha, drawn(3), torch.device("cpu"))
    small = draws[draws < 0.5].double().numpy()  # close to 1 float32 is too coarse for the test
    assert abs(len(small) - 10_000) < 300
    right, wrong = (scipy.stats.beta(value, value) for value in (alpha, 2 * alpha))
    assert scipy.stats.kstest(small, lambda x: 2 * right.cdf(x)).pvalue > 1e-3
    assert scipy.stats.kstest(small, lambda x: 2 * wrong.cdf(x)).pvalue < 1e-9


@pytest.mark.parametrize("alpha", [1e-9, 1e9])
def test_extreme_shares_are_numbers(alpha):
    draws = beta(1000, alpha, drawn(3), torch.device("cpu"))
    near = (draws - 0.5).abs()
    assert near.max() < 1e-3 if alpha > 1 else near.min() > 0.49


@pytest.mark.parametrize("method", [Mixup(), Cutmix()])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_mixed_as_the_images_are(method, smoothing):
    """An image of a pure colour says after mixing how much of it there is: the loss must have these shares."""
    (x, y), model = pure(), Answers()
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    loss, correct = method.loss(model, x, y, drawn(5), criterion)
    assert model.seen.shape == x.shape and (model.seen != x).any((1, 2, 3)).float().mean() > 0.5
    shares = model.seen.mean((2, 3))
    assert torch.allclose(shares.sum(1), torch.ones(60), atol=1e-5)
    by_hand = torch.stack(
        [sum(shares[i, k] * criterion(9 * shares[i : i + 1], torch.tensor([k])) for k in range(3)) for i in range(60)]
    )
    assert torch.allclose(loss, by_hand.mean(), atol=1e-5)
    assert correct.dtype == torch.bool and correct.all()  # the network answers with the larger share


def test_mixup_is_a_blend_and_cutmix_a_rectangle():
    x, other = torch.zeros(500, 3, 16, 12), torch.ones(500, 3, 16, 12)
    share = torch.rand(500, generator=drawn(4))
    blend, same = Mixup().mixture(x, other, share, drawn(5))
    assert torch.allclose(blend, (1 - share).view(-1, 1, 1, 1).expand_as(blend)) and torch.equal(same, share)
    cut, left = Cutmix().mixture(x, other, share, drawn(5))
    inside = cut[:, 0] == 1
    heights, widths = inside.any(2).sum(1), inside.any(1).sum(1)
    assert torch.equal(inside.sum((1, 2)), heights * widths)
    assert torch.allclose(left, 1 - inside.float().mean((1, 2)))
    whole = (1 - share).sqrt()
    assert (heights <= (16 * whole).floor()).all() and (heights == (16 * whole).floor()).float().mean() > 0.3
    assert (widths <= (12 * whole).floor()).all() and (left >= share - 1e-6).all()


def test_the_loss_is_not_that_of_plain_training():
    (x, y), criterion = pure(), nn.CrossEntropyLoss()
    plain = criterion(Answers()(x), y)
    for method in (Mixup(), Cutmix()):
        assert method.loss(Answers(), x, y, drawn(5), criterion)[0] > 2 * plain
        again = [method.loss(Answers(), x, y, drawn(seed), criterion)[0] for seed in (5, 5, 6)]
        assert again[0] == again[1] != again[2]
