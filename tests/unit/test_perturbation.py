"""What is added to images, exactly: budgets, rounding, measured numbers."""

import math

import pytest
import torch

from relearn.crafting import perturbation as application
from relearn.crafting.perturbation import Budget, Perturbation, apply
from relearn.errors import UserError


def flat(*levels: float) -> torch.Tensor:
    """One 2x2 image of each level, (N, 2, 2, 3) float32."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 2, 2, 3).contiguous()


def grey(*levels: int) -> torch.Tensor:
    return flat(*map(float, levels)).to(torch.uint8)


def change(images: torch.Tensor, perturbation: Perturbation) -> list[int]:
    """What was really added to each image, the same for all its values."""
    added = apply(images, perturbation)[0].int() - images.int()
    assert (added == added[:, :1, :1, :1]).all()
    return added[:, 0, 0, 0].tolist()


# The budget of the maximum


@pytest.mark.parametrize(
    "delta, rounding, expected",
    [
        ((8.0, -8.0), "half_up", [8, -8]),
        ((2.4, -2.4), "half_up", [2, -2]),
        ((2.5, -2.5), "half_up", [3, -2]),  # half goes up, also below zero
        ((2.6, -2.6), "half_up", [3, -3]),
        (
            (2.9, -2.9),
            "truncate",
            [2, -3],
        ),  # the sum is truncated, not the perturbation, as in released code that casts to uint8
    ],
)
def test_rounding(delta, rounding, expected):
    assert change(grey(100, 100), Perturbation(flat(*delta), Budget("linf", 8.0), rounding=rounding)) == expected


@pytest.mark.parametrize("epsilon, most", [(2.5, 2), (2.0, 2), (7.99, 7), (8.0, 8)])
@pytest.mark.parametrize("rounding", ["half_up", "truncate"])
def test_rounding_never_leaves_the_linf_ball(epsilon, most, rounding):
    """A budget of 2.5 allows changes of 2: rounding 2.5 up to 3 would break the promise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 8, 8, 3), generator=generator, dtype=torch.uint8)
    delta = (torch.rand(20, 8, 8, 3, generator=generator) * 2 - 1).sign() * epsilon
    poisoned, measured = apply(images, Perturbation(delta, Budget("linf", epsilon), rounding=rounding))
    assert int((poisoned.int() - images.int()).abs().max()) == measured["linf_max"] == most


def test_clipping_at_black_and_white():
    images = grey(0, 3, 250, 255)
    perturbation = Perturbation(flat(-8.0, -8.0, 8.0, 8.0), Budget("linf", 8.0))
    poisoned, measured = apply(images, perturbation)
    assert poisoned[:, 0, 0, 0].tolist() == [0, 0, 255, 255]
    assert measured["clipped_share"] == 1.0
    assert apply(grey(8, 247), Perturbation(flat(-8.0, 8.0), Budget("linf", 8.0)))[1]["clipped_share"] == 0.0


# The other budgets


def test_l2_budget():
    images, delta = grey(100, 100), torch.zeros(2, 2, 2, 3)
    delta[0, 0, 0, 0], delta[0, 1, 1, 2] = 3.0, -4.0
    _, measured = apply(images, Perturbation(delta, Budget("l2", 5.0)))
    assert (measured["l2_max"], measured["linf_max"], measured["l0_max"]) == (5.0, 4.0, 2.0)
    with pytest.raises(UserError, match=r"l2 norm before rounding is 5\.000, above the declared 4\.990 \(1/255\)"):
        apply(images, Perturbation(delta, Budget("l2", 4.99)))


def test_l2_budget_leaves_room_for_rounding_but_no_more():
    images = grey(100)
    # each of the twelve values moves by 0.5: 12 * 0.25 = 3 before rounding, but 12 * 1 after it
    _, measured = apply(images, Perturbation(flat(0.5), Budget("l2", math.sqrt(3))))
    assert measured["l2_max"] == pytest.approx(math.sqrt(12))


def test_l0_budget_counts_pixels_and_not_values():
    images, delta = grey(100), torch.zeros(1, 2, 2, 3)
    delta[0, 0, 1] = torch.tensor([9.0, 0.0, -200.0])
    assert apply(images, Perturbation(delta, Budget("l0", 1)))[1]["l0_max"] == 1
    delta[0, 1, 1, 0] = 1.0
    with pytest.raises(UserError, match=r"l0 norm before rounding is 2\.000, above the declared 1\.000 \(pixels\)"):
        apply(images, Perturbation(delta, Budget("l0", 1)))


def test_no_budget_is_no_bound():
    poisoned, measured = apply(grey(0), Perturbation(flat(255.0), Budget("none", 0.0)))
    assert poisoned.unique().tolist() == [255] and measured["linf_max"] == 255


# Errors


@pytest.mark.parametrize(
    "perturbation, message",
    [
        (
            Perturbation(flat(8.01, 0.0), Budget("linf", 8.0)),
            r"linf norm before rounding is 8\.010, above the declared 8\.000",
        ),
        (Perturbation(flat(1.0, math.nan), Budget("linf", 8.0)), "12 values that are not finite"),
        (Perturbation(flat(math.inf, 1.0), Budget("none", 0.0)), "12 values that are not finite"),
        (Perturbation(flat(1.0), Budget("linf", 8.0)), "for 1 images does not fit images of"),
        (
            Perturbation(flat(1.0, 1.0).permute(0, 3, 1, 2), Budget("linf", 8.0)),
            r"it must be float32 \(N or classes, 2, 2, 3\)",
        ),
        (Perturbation(flat(1.0, 1.0).double(), Budget("linf", 8.0)), "float64 for 2 images does not fit"),
        (
            Perturbation(flat(1.0), Budget("linf", 8.0), torch.tensor([0, 1])),
            "has 1 rows, but an image refers to row 1",
        ),
        (Perturbation(flat(1.0), Budget("linf", 8.0), torch.tensor([0, -1])), "has 1 rows, but an image refers to row"),
        (
            Perturbation(flat(0.4, -0.4), Budget("linf", 8.0)),
            r"no pixel after rounding \(declared budget: linf 8\.0\); check its units",
        ),
        (Perturbation(flat(8 / 255, 8 / 255), Budget("linf", 8.0)), "check its units, 1/255"),
    ],
)
def test_errors(perturbation, message):
    with pytest.raises(UserError, match=message):
        apply(grey(100, 100), perturbation)


def test_zero_is_allowed_where_it_is_promised():
    images = grey(7, 200)
    poisoned, measured = apply(images, Perturbation(flat(0.0), Budget("linf", 0.0), torch.tensor([0, 0])))
    assert torch.equal(poisoned, images) and set(measured.values()) == {0.0}


# Rows and measurement


def test_rows_give_each_image_the_noise_of_its_class():
    labels = torch.tensor([2, 0, 0, 1])
    assert change(grey(100, 100, 50, 100), Perturbation(flat(1.0, 2.0, -3.0), Budget("linf", 3.0), labels)) == [
        -3,
        1,
        1,
        2,
    ]


def test_measured_by_hand():
    # image 0: one pixel by (3, 0, -4): linf 4, l2 5, l0 1; image 1: not at all. Of 24 values one is clipped: 255 + 3.
    images, delta = grey(255, 10), torch.zeros(2, 2, 2, 3)
    delta[0, 0, 0] = torch.tensor([3.0, 0.0, -4.0])
    images[0, 0, 0, 0] = 252
    delta[1, 1, 1, 1] = 0.2
    images[0, 1, 0, 2] = 253
    delta[0, 1, 0, 2] = 0.4
    images[1, 0, 0, 0] = 255
    delta[1, 0, 0, 0] = 0.3
    _, measured = apply(images, Perturbation(delta, Budget("linf", 4.0)))
    assert measured == {
        **{"linf_mean": 2.0, "linf_max": 4.0, "l2_mean": 2.5, "l2_max": 5.0, "l0_mean": 0.5, "l0_max": 1.0},
        **{"changed_share": 0.5, "clipped_share": 1 / 24},
    }


def test_chunks_do_not_show(tiny, monkeypatch):
    delta = torch.randn(len(tiny), 32, 32, 3, generator=torch.Generator().manual_seed(1)).clamp(-4, 4)
    poisoned, measured = apply(tiny.images, Perturbation(delta, Budget("linf", 4.0)))
    monkeypatch.setattr(application, "CHUNK", 7)
    again, measured_again = apply(tiny.images, Perturbation(delta, Budget("linf", 4.0)))
    assert torch.equal(poisoned, again) and measured == measured_again
