"""What the time allows: a pure function of measured speeds."""

import pytest

from relearn.errors import UserError
from relearn.pst.check.sizing import ENOUGH, LADDER, SAFETY, Speed, choose, enough, seconds, sizes

FAST = Speed(plain=1e-5, staged=1e-5, pretraining=2e-5, evaluated=5e-6)
SLOW = Speed(plain=1e-3, staged=1.2e-3, pretraining=2e-3, evaluated=4e-4)


def test_with_time_enough_all_images_the_target_and_the_best_width():
    chosen = choose(50_000, 10, {64: FAST, 16: FAST}, 600)
    assert (chosen.images, chosen.width, chosen.epochs, chosen.staged_epochs, chosen.batch) == (50_000, 64, 5, 12, 256)
    assert chosen.warmup_steps == 100 and chosen.probe_size == 2000 and chosen.held_out == 2000


def test_what_is_chosen_ends_in_time_and_the_next_larger_does_not():
    budget = 600
    chosen = choose(50_000, 10, {16: SLOW}, budget)
    assert seconds(chosen, SLOW) <= budget and ENOUGH <= chosen.images < 50_000
    larger = LADDER[LADDER.index(chosen.images) - 1]
    assert seconds(sizes(larger, 10, 16), SLOW) > budget


def test_seconds_by_hand():
    """1,000 images, 200 held out: 25 batches of 32 would be 800, so 12 of 64; 25 epochs reach 300 steps, staged too."""
    chosen = sizes(1_000, 2, 16)
    assert (chosen.held_out, chosen.batch, chosen.steps_per_epoch, chosen.epochs) == (200, 64, 12, 25)
    assert chosen.staged_epochs == 25
    only_steps = Speed(1.0, 10.0, 100.0, 0.0)
    assert seconds(chosen, only_steps) == pytest.approx(SAFETY * 12 * 64 * (2 * 25 * 1 + 2 * 25 * 10 + 2 * 100))


@pytest.mark.parametrize(
    "images, epochs, staged", [(50_000, 5, 12), (5_000, 10, 12), (2_500, 10, 12), (300, 43, 43), (50_000, 1, 2)]
)
def test_a_stage_has_as_many_epochs_as_the_preset_or_as_it_needs(images, epochs, staged):
    assert sizes(images, 10, 16, epochs).staged_epochs == staged


def test_a_step_costs_something_whatever_its_batch():
    chosen = sizes(1_000, 2, 16)
    only_overhead = Speed(0.0, 0.0, 0.0, 0.0, step=1.0)
    assert seconds(chosen, only_overhead) == pytest.approx(SAFETY * 12 * (2 * 25 + 2 * 25 + 2))


def test_a_narrower_network_is_tried_where_too_few_images_would_fit():
    needed = seconds(sizes(ENOUGH, 10, 16), SLOW)
    assert enough(50_000, 10, 16, SLOW, needed) and not enough(50_000, 10, 16, SLOW, needed - 1)
    few = seconds(sizes(300, 10, 16), SLOW)
    assert enough(300, 10, 16, SLOW, few)  # all there are
    given = seconds(sizes(9_000, 10, 16, epochs=2), SLOW, clean=700)
    assert enough(50_000, 10, 16, SLOW, given, images=9_000, epochs=2, clean=700)
    assert not enough(50_000, 10, 16, SLOW, given - 1, images=9_000, epochs=2, clean=700)


def test_fewer_images_for_a_slower_machine_then_a_narrower_network_then_fewer_epochs():
    found = [choose(50_000, 10, {16: SLOW, 8: FAST}, budget) for budget in (2000, 600, 20)]
    assert [chosen.width for chosen in found] == [16, 16, 8]
    few = choose(50_000, 10, {16: SLOW}, 110)
    assert few.images < ENOUGH and few.epochs < sizes(few.images, 10, 16).epochs


def test_a_small_set_is_used_whole():
    chosen = choose(400, 2, {16: FAST}, 600)
    assert chosen.images == 400 and chosen.batch == 32 and chosen.held_out == 80


def test_given_sizes_stay():
    chosen = choose(50_000, 10, {16: FAST}, 600, images=1234, epochs=3)
    assert (chosen.images, chosen.epochs) == (1234, 3)
    assert chosen == sizes(1234, 10, 16, 3)


def test_too_little_time_names_the_minutes_that_do():
    with pytest.raises(UserError, match=r"1 seconds are left .* give --minutes (\d+) or more") as error:
        choose(50_000, 10, {16: SLOW}, 1)
    minutes = int(str(error.value).split("--minutes ")[1].split()[0])
    assert choose(50_000, 10, {16: SLOW}, 60 * minutes - 60)


@pytest.mark.parametrize("images", LADDER)
def test_every_size_can_be_trained(images):
    chosen = sizes(images, 10, 16, epochs=1)
    assert 1 <= chosen.batch <= images - chosen.held_out
    assert chosen.warmup_steps <= chosen.steps_per_epoch * chosen.epochs and chosen.probe_size >= 20
