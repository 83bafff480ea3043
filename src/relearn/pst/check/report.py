"""check.json: every number of a check, its settings and versions."""

import dataclasses
import shlex
from importlib import metadata

from relearn.probing.verdict import DEVIATIONS
from relearn.pst.check.conclusion import WEAKNESS
from relearn.pst.check.found import Found
from relearn.pst.check.trials import Trial, parameters
from relearn.pst.check.untrained import Untrained, standard_error
from relearn.runtime.run_report import environment

WEIGHTED = 0.95  # of the clean images: where weights leave less, a note says so

LIMITS = (
    WEAKNESS,
    "One training of each kind on one draw of the images: the uncertainty is that of counting images, two standard "
    "errors, not that of other seeds.",
    "A perturbation may need more images, passes or a wider network to work than were used here: then there is no sign "
    "of it.",
    "Classes that differ in colour or in fine detail alone look like protected ones.",
    "The fine-detail test was tried on CIFAR-10 (32x32 pixels, from JPEG) alone.",
)


def content(found: Found, seconds: float) -> dict:
    """Everything that check.json holds."""
    options, source, conclusion = found.options, found.source, found.conclusion
    settings = dataclasses.asdict(options) | {
        "threads": found.threads,
        "device": found.device,
        "precision": found.precision,
    }
    return {
        "verdict": {
            "answer": conclusion.answer,
            "reason": conclusion.reason,
            "line": str(conclusion),
            "findings": conclusion.findings,
        },
        "data": {
            "path": str(source.path),
            "images": len(source.labels),
            "used": len(found.data),
            "classes": source.classes,
            "side_found": source.found,
            "side_used": source.size,
        },
        "defects": dataclasses.asdict(found.defects),
        "untrained": found.untrained and dataclasses.asdict(found.untrained) | {"by_class": found.untrained.by_class},
        "trials": {name: _trial(trial) for name, trial in found.trials.items()},
        "clean_images": found.clean_images,
        "clean_effective": found.clean_effective,
        "sizes": found.sizes and dataclasses.asdict(found.sizes),
        "speed": found.speed and dataclasses.asdict(found.speed),
        "recipe": parameters(found.sizes).raw if found.sizes else None,
        "notes": notes(found),
        "measured": measured(found),
        "limits": list(LIMITS),
        "settings": settings,
        "repeat": repeat(found),
        "seconds": seconds,
        "environment": {"relearn": version()} | environment(found.device),
    }


def version() -> str | None:
    """That of relearn, where it is installed; the commit is in the environment anyway."""
    try:
        return metadata.version("relearn")
    except metadata.PackageNotFoundError:
        return None


def notes(found: Found) -> list[str]:
    """Sentences about the images and about what was chosen."""
    source, wrong, used = found.source, found.defects, len(found.data)
    said = []
    if used < len(source.labels):
        said.append(f"{used} of {len(source.labels)} images were used, drawn by class with the seed.")
    if source.size != source.found:
        said.append(
            f"Images are {source.found} pixels on their shorter side (median); their central squares were resized to "
            f"{source.size}."
        )
    if wrong.across:
        said.append(
            f"{wrong.across} images have the same pixels as one of another class: labels contradict each other."
        )
    if wrong.within:
        said.append(f"{wrong.within} images are exact duplicates of one of their class.")
    if wrong.constant:
        said.append(f"{wrong.constant} images are nearly constant: they show nothing.")
    if wrong.small:
        few = ", ".join(f"'{name}' ({count})" for name, count in list(wrong.small.items())[:5])
        more = f" and {len(wrong.small) - 5} more" if len(wrong.small) > 5 else ""
        said.append(f"Classes of few images: {few}{more}.")
    if found.clean_effective < WEIGHTED * found.clean_images:
        said.append(
            "Classes have other shares in the clean images than in the images, and are weighted to the same: the "
            f"{found.clean_images} clean images are worth {found.clean_effective}."
        )
    if found.untrained:
        said.append(_of_untrained(found.untrained))
    if found.trials and found.trials["PST"].stage == "early":
        said.append("PST saw no trap, so it trained plainly: both trainings are one and the same.")
    return said


def _of_untrained(probe: Untrained) -> str:
    """What the untrained probe found, and what it means."""
    fine, coarse = (
        f"{100 * accuracy:.1f} ± {100 * DEVIATIONS * error:.1f} %"
        for accuracy, error in ((probe.fine, probe.error), (probe.coarse, probe.coarse_error))
    )
    meaning = (
        "Fine detail should not tell the classes better than the image itself: noise that goes by the class is likely."
        if probe.by_class
        else "Photographs look so: no sign of noise that goes by the class."
    )
    return (
        f"Without any training, fine detail tells the class of {fine} of images, coarse grayscale images of {coarse} "
        f"(labels shuffled: {100 * probe.shuffled:.1f} %, chance {100 * probe.chance:.1f} %). {meaning}"
    )


def measured(found: Found) -> dict[str, str]:
    """The rows of the table of the page."""
    rows: dict[str, str] = {}
    if not found.sizes:
        return rows
    held_out = found.sizes.held_out
    for name, trial in found.trials.items():
        kept = trial.verdict
        rows[f"{name}: held-out images, as given"] = _with_error(trial.held_out, held_out)
        rows[f"{name}: held-out images, perturbations hidden"] = _with_error(trial.held_out_hidden, held_out)
        rows[f"{name}: held-out images, blurred grayscale"] = _with_error(trial.held_out_blurred, held_out)
        if trial.clean is not None:
            rows[f"{name}: clean images"] = _with_error(trial.clean, found.clean_effective)
        rows[f"{name}: verdict"] = f"{kept.answer}: {kept.reason}"
        rows[f"{name}: ends in"] = f"{trial.stage}, after {trial.steps} steps"
    sizes = dataclasses.asdict(found.sizes)
    return rows | {"sizes": ", ".join(f"{key} {value}" for key, value in sizes.items())}


def repeat(found: Found) -> str:
    """The command that gives the same numbers on this machine."""
    options, words = found.options, ["relearn", "check", found.options.path]
    given = {"--clean": options.clean, "--original": options.original, "--seed": options.seed}
    given |= {"--threads": found.threads}
    if found.sizes:
        given |= {"--images": found.sizes.images, "--epochs": found.sizes.epochs, "--width": found.sizes.width}
    elif options.images:
        given["--images"] = options.images
    for option, value in given.items():
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)


def _trial(trial: Trial) -> dict:
    found = dataclasses.asdict(trial)
    return found | {"verdict": dataclasses.asdict(trial.verdict)}


def _with_error(accuracy: float, images: int) -> str:
    return f"{100 * accuracy:.1f} ± {100 * DEVIATIONS * standard_error(accuracy, images):.1f} % of {images}"
