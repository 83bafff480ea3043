"""What a check concludes, and why: a pure function of its numbers."""

import math
from dataclasses import dataclass, field

from relearn.probing import verdict
from relearn.probing.probe_set import ProbeResult
from relearn.probing.verdict import CANNOT_TELL, DEVIATIONS, KEPT, NOT_TRAPPED, TRAPPED, judge
from relearn.pst.check.trials import Trial
from relearn.pst.check.untrained import Untrained, standard_error

AGAINST_PLAIN = "protected against plain training, not against PST"
AGAINST_BOTH = "protected against both, as far as this check sees"
NO_SIGN = "no sign of protection"
UNKNOWN = "cannot tell"
LEAST = 200  # images; with fewer nothing is trained
WEAKNESS = (
    "Without clean test images a perturbation that survives hiding, in grayscale at half the resolution and in blurred "
    "grayscale, cannot be ruled out."
)


@dataclass(frozen=True)
class Conclusion:
    """One of the four answers, the reason in a phrase, and the findings behind it, a sentence each."""

    answer: str
    reason: str
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The answer in a line."""
        return f"{self.answer}, because {self.reason}" if self.answer == UNKNOWN else f"{self.answer}: {self.reason}"


def too_few(images: int, classes: int) -> Conclusion | None:
    """The conclusion for a set too small to train on; None for others."""
    if classes < 2:
        return Conclusion(UNKNOWN, "there is a single class")
    if images < LEAST or images < 10 * classes:
        least = max(LEAST, 10 * classes)
        return Conclusion(UNKNOWN, f"there are only {images} images of {classes} classes; {least} are the least")
    return None


def conclude(plain: Trial, pst: Trial, untrained: Untrained, chance: float, held_out: int, clean: int) -> Conclusion:
    """The conclusion from both trainings and the untrained probe.

    `held_out` and `clean` are how many images accuracies were measured on, and `chance` is the share of the largest
    class, in 0..1. It rests on the share of the held-out accuracy that is kept on clean images or, without them, on the
    held-out images with perturbations hidden; against the limit of relearn.probing.verdict, by two standard errors. (Of
    training images, which a network knows by heart, it keeps less, whether they are clean or not.)
    """
    if clean:
        about = [_on_clean(trial, chance, min(held_out, clean)) for trial in (plain, pst)]
    else:
        about = [on_hidden(plain, chance, held_out), _of_pst(plain, pst, chance, held_out)]
    words = "kept on clean images" if clean else "kept with perturbations hidden"
    findings = [
        f"{name}: share of the accuracy above chance {words}: {_share(found)} (limit {KEPT:g})."
        for name, found in zip(("Plain training", "PST"), about, strict=True)
    ]
    answers = [found.answer for found in about]
    numbers = f"share {words}: plain {_share(about[0])}, PST {_share(about[1])}, limit {KEPT:g}"
    otherwise = on_hidden(plain, chance, held_out)
    if clean and {answers[0], otherwise.answer} == {TRAPPED, NOT_TRAPPED}:
        findings.append(
            f"With perturbations hidden instead, plain training keeps {_share(otherwise)}, which would say "
            "otherwise; the clean images count."
        )
    if answers[0] == CANNOT_TELL:
        return Conclusion(UNKNOWN, f"plain training leaves it open ({about[0].reason})", findings)
    if answers[0] == NOT_TRAPPED:
        if untrained.by_class and not clean:
            odd = (
                f"fine detail tells the classes better ({_percent(untrained.fine, untrained.error)}) than coarse "
                f"images do ({_percent(untrained.coarse, untrained.coarse_error)}), as perturbations do, but plain "
                "training seems to learn the images; clean test images would decide (--clean)"
            )
            return Conclusion(UNKNOWN, odd, findings)
        if clean:
            return Conclusion(NO_SIGN, numbers, findings)
        blurred = _on_blurred(plain, chance, held_out)
        findings.append(f"Plain training: share kept on blurred grayscale images held out: {_share(blurred)}.")
        if blurred.answer == TRAPPED:
            survives = (
                "a perturbation that survives grayscale at half the resolution cannot be ruled out: of blurred images "
                f"plain training keeps {_share(blurred)}; clean test images would decide (--clean)"
            )
            return Conclusion(UNKNOWN, survives, findings)
        return Conclusion(NO_SIGN, numbers, [*findings, WEAKNESS])
    if answers[1] == CANNOT_TELL:
        open_ = f"plain training learns the perturbation, but for PST it stays open ({about[1].reason})"
        return Conclusion(UNKNOWN, open_, findings)
    return Conclusion(AGAINST_BOTH if answers[1] == TRAPPED else AGAINST_PLAIN, numbers, findings)


def _on_clean(trial: Trial, chance: float, images: int) -> verdict.Verdict:
    """The verdict where clean images take the place of those with perturbations hidden."""
    assert trial.clean is not None
    return _judged(trial, trial.clean, "on clean ones", chance, images)


def on_hidden(trial: Trial, chance: float, images: int) -> verdict.Verdict:
    """The verdict of the held-out images; where they are too few to tell, that of the training images may count.

    A network keeps less of images that it knows by heart. So of these "not trapped" counts as it is, and "trapped"
    where the held-out images lean that way, by a standard error.
    """
    found = _judged(trial, trial.held_out_hidden, "with perturbations hidden", chance, images)
    if found.answer != CANNOT_TELL or found.kept is None or found.error is None:
        return found
    leans = found.kept + found.error < KEPT
    counts = trial.verdict.answer == NOT_TRAPPED or (trial.verdict.answer == TRAPPED and leans)
    return trial.verdict if counts else found


def _on_blurred(trial: Trial, chance: float, images: int) -> verdict.Verdict:
    """The verdict where blurred images take the place of those at half the resolution.

    Perturbations crafted through grayscale survive half the resolution better than this.
    """
    return _judged(trial, trial.held_out_blurred, "blurred", chance, images)


def _judged(trial: Trial, seen: float, words: str, chance: float, images: int) -> verdict.Verdict:
    """The verdict by the share of the accuracy on held-out images that is left in another view of them, `seen`."""
    found = judge(ProbeResult({}, trial.held_out, seen, chance, images))
    reason = f"{100 * trial.held_out:.1f} % on held-out images, {100 * seen:.1f} % {words}"
    return verdict.Verdict(found.answer, reason, found.kept, found.error)


def _of_pst(plain: Trial, pst: Trial, chance: float, held_out: int) -> verdict.Verdict:
    """The verdict on PST without clean images.

    Its last stages learn grayscale images, which are a part of the view that hides, so that they keep much of their
    accuracy whatever they have learned. So "not trapped" also needs more held-out images recognised in that view than
    plain training recognises.
    """
    found = on_hidden(pst, chance, held_out)
    spread = math.hypot(*(standard_error(trial.held_out_hidden, held_out) for trial in (plain, pst)))
    better = pst.held_out_hidden - plain.held_out_hidden
    trapped = on_hidden(plain, chance, held_out).answer == TRAPPED
    if found.answer == NOT_TRAPPED and trapped and better < DEVIATIONS * spread:
        reason = (
            f"with perturbations hidden PST recognises {100 * pst.held_out_hidden:.1f} % of held-out images, "
            f"plain training {100 * plain.held_out_hidden:.1f} %"
        )
        return verdict.Verdict(CANNOT_TELL, reason, found.kept, found.error)
    return found


def _share(found: verdict.Verdict) -> str:
    if found.kept is None or found.error is None:
        return "none yet"
    return f"{found.kept:.2f} ± {DEVIATIONS * found.error:.2f}"


def _percent(accuracy: float, error: float) -> str:
    return f"{100 * accuracy:.1f} ± {100 * DEVIATIONS * error:.1f} %"
