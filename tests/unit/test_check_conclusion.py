"""The verdict of `relearn check`, from numbers alone."""

import dataclasses

import pytest

from relearn.probing.verdict import CANNOT_TELL, NOT_TRAPPED, TRAPPED, Verdict
from relearn.pst.check.conclusion import AGAINST_BOTH, AGAINST_PLAIN, NO_SIGN, UNKNOWN, conclude, too_few
from relearn.pst.check.trials import Trial
from relearn.pst.check.untrained import Untrained

QUIET = Untrained(0.45, 0.01, 0.47, 0.01, 0.1, 0.1, 2000)
NOISE = Untrained(0.99, 0.002, 0.47, 0.01, 0.1, 0.1, 2000)
KEPT = {TRAPPED: 0.1, NOT_TRAPPED: 0.9, CANNOT_TELL: 0.5}


def trial(
    answer: str, held_out: float = 0.8, hidden: float | None = None, clean: float | None = None, blurred: float = 0.7
) -> Trial:
    """A training that keeps the share of `KEPT` with perturbations hidden, at a chance of 0.1, unless `hidden` says."""
    if hidden is None:
        hidden = 0.1 + KEPT[answer] * (held_out - 0.1)
    probe = Verdict(CANNOT_TELL, "on training images: it counts for PST alone")
    return Trial("early", 100, probe, held_out, hidden, blurred, clean, [])


@pytest.mark.parametrize(
    "plain, pst, untrained, answer",
    [
        (trial(TRAPPED, hidden=0.2), trial(NOT_TRAPPED, hidden=0.6), NOISE, AGAINST_PLAIN),
        (trial(TRAPPED, hidden=0.3), trial(NOT_TRAPPED, 0.33, 0.31), NOISE, UNKNOWN),  # it recognises no more
        (trial(TRAPPED), trial(TRAPPED), NOISE, AGAINST_BOTH),
        (trial(TRAPPED), trial(CANNOT_TELL), NOISE, UNKNOWN),
        (trial(NOT_TRAPPED), trial(NOT_TRAPPED), QUIET, NO_SIGN),
        (trial(NOT_TRAPPED), trial(NOT_TRAPPED), NOISE, UNKNOWN),  # the two tests contradict each other
        (trial(CANNOT_TELL), trial(NOT_TRAPPED), QUIET, UNKNOWN),
        (trial(NOT_TRAPPED, 0.2), trial(NOT_TRAPPED, 0.2), QUIET, UNKNOWN),  # nothing learned
    ],
)
def test_without_clean_images(plain, pst, untrained, answer):
    found = conclude(plain, pst, untrained, 0.1, 1000, 0)
    assert found.answer == answer and str(found).startswith(answer)
    assert answer != UNKNOWN or "cannot tell, because " in str(found)


@pytest.mark.parametrize("blurred, answer", [(0.2, UNKNOWN), (0.44, NO_SIGN), (0.7, NO_SIGN)])
def test_what_survives_hiding_cannot_be_ruled_out(blurred, answer):
    """0.8 and chance 0.1: half of the accuracy above chance is kept at 0.45, with 1,000 images 0.04 around it."""
    plain = trial(NOT_TRAPPED, blurred=blurred)
    found = conclude(plain, plain, QUIET, 0.1, 1000, 0)
    assert found.answer == answer and "survives" in (found.reason if answer == UNKNOWN else found.findings[-1])
    measured = trial(NOT_TRAPPED, blurred=blurred, clean=0.8)
    assert conclude(measured, measured, QUIET, 0.1, 1000, 1000).answer == NO_SIGN


@pytest.mark.parametrize(
    "plain, pst, answer",
    [
        ((0.9, 0.12), (0.8, 0.75), AGAINST_PLAIN),
        ((0.9, 0.12), (0.9, 0.15), AGAINST_BOTH),
        ((0.6, 0.59), (0.6, 0.59), NO_SIGN),
        ((0.9, 0.50), (0.9, 0.89), UNKNOWN),  # half of it: within the uncertainty
        ((0.12, 0.1), (0.12, 0.1), UNKNOWN),  # nothing learned
    ],
)
@pytest.mark.parametrize("seen", [TRAPPED, NOT_TRAPPED, CANNOT_TELL])
def test_clean_images_decide_whatever_the_hidden_view_shows(plain, pst, answer, seen):
    first, second = (trial(seen, held_out, clean=clean) for held_out, clean in (plain, pst))
    assert conclude(first, second, NOISE, 0.1, 1000, 1000).answer == answer


def test_training_images_count_where_held_out_ones_are_too_few():
    by_heart = {answer: Verdict(answer, "training images", KEPT[answer], 0.03) for answer in KEPT}
    for held_out, expected in ((0.8, NO_SIGN), (0.25, UNKNOWN)):  # the second has not learned
        few = dataclasses.replace(trial(CANNOT_TELL, held_out), verdict=by_heart[NOT_TRAPPED])
        assert conclude(few, few, QUIET, 0.1, 1000, 0).answer == expected
    # 0.5 and 0.46 of the accuracy above chance are kept, ± 0.03: only the second is a standard error from the limit
    for hidden, expected in ((0.45, UNKNOWN), (0.422, AGAINST_BOTH)):
        few = dataclasses.replace(trial(CANNOT_TELL, hidden=hidden), verdict=by_heart[TRAPPED])
        assert conclude(few, few, QUIET, 0.1, 1000, 0).answer == expected
    trapped = dataclasses.replace(trial(TRAPPED), verdict=by_heart[NOT_TRAPPED])
    assert conclude(trapped, trapped, QUIET, 0.1, 1000, 0).answer == AGAINST_BOTH


def test_numbers_come_with_two_standard_errors():
    """Plain: (0.0119 + 0.1 * 0.0126) / 0.7 = 0.019; PST: (0.0140 + 0.9 * 0.0126) / 0.7 = 0.036."""
    found = conclude(trial(TRAPPED), trial(NOT_TRAPPED), NOISE, 0.1, 1000, 0)
    assert "plain 0.10 ± 0.04, PST 0.90 ± 0.07, limit 0.5" in str(found)


def test_a_contradiction_is_told():
    found = conclude(trial(NOT_TRAPPED, 0.9, clean=0.1), trial(NOT_TRAPPED, 0.8, clean=0.7), NOISE, 0.1, 1000, 1000)
    assert found.answer == AGAINST_PLAIN and "would say otherwise" in found.findings[-1]


@pytest.mark.parametrize("images, classes, told", [(30, 2, "30 images"), (1000, 1, "single class"), (900, 100, "900")])
def test_too_few(images, classes, told):
    found = too_few(images, classes)
    assert found and found.answer == UNKNOWN and told in found.reason


def test_enough():
    assert too_few(200, 2) is None
