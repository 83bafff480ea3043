"""check.html: the verdict, its numbers, curves and images in one file that needs no network."""

import io

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from relearn.data import Split, levels
from relearn.pst.check.trials import Trial
from relearn.pst.check.untrained import detail
from relearn.reporting import markup
from relearn.reporting.pictures import amplified, rows_png
from relearn.reporting.rendering import METADATA, PALETTE, style

SHOWN = 10  # classes in the gallery
ENLARGED = 3  # times


def page(report: dict, trials: dict[str, Trial], pictures: list[tuple[str, bytes]]) -> str:
    """The whole page, from what check.json holds, the trainings, and PNG files with a caption each."""
    parts = [
        markup.paragraph(report["verdict"]["line"], "answer"),
        markup.bullets(report["verdict"]["findings"] + report["notes"]),
        "<h2>What was measured</h2>",
        markup.pairs(report["measured"]),
    ]
    if trials:
        words = (
            "On images of the training set: as given, and with perturbations hidden (grayscale, half the resolution)."
        )
        picture = markup.image(curves(trials), "accuracy against steps of training", "drawn")
        parts += ["<h2>Accuracy while training</h2>", picture, markup.paragraph(words, "small")]
    for caption, data in pictures:
        parts += [f"<h2>{markup.text(caption)}</h2>", markup.image(data, caption, "pixels")]
    parts += ["<h2>What this cannot see</h2>", markup.bullets(report["limits"]), "<h2>To repeat it exactly</h2>"]
    parts.append(f"<pre>{markup.text(report['repeat'])}</pre>")
    versions = ", ".join(f"{name} {value}" for name, value in report["environment"].items() if value is not None)
    parts.append(markup.paragraph(versions, "small"))
    return markup.document(f"Is this data unlearnable? {report['data']['path']}", parts, "narrow")


def curves(trials: dict[str, Trial]) -> bytes:
    """A PNG of the accuracy on images as given and with perturbations hidden, by the steps of each training."""
    with matplotlib.rc_context(style()):
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.subplots(1, len(trials), sharey=True, squeeze=False)[0]
        for axis, (name, trial) in zip(axes, trials.items(), strict=True):
            steps = [row["steps_taken"] for row in trial.history]
            for key, label, colour in (
                ("probe_accuracy", "as given", PALETTE[0]),
                ("hidden_accuracy", "perturbations hidden", PALETTE[1]),
            ):
                axis.plot(steps, [100 * row[key] for row in trial.history], label=label, color=colour, marker=".")
            axis.set(title=f"{name} (ends in: {trial.stage})", xlabel="steps", ylim=(0, 102))
        axes[0].set_ylabel("accuracy (%)")
        axes[0].legend()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=130, metadata=METADATA["png"])
    return file.getvalue()


def pictures(data: Split, original: Split | None, classes: list[str]) -> list[tuple[str, bytes]]:
    """Pictures with a caption each: an image of each class with its difference to the original, else class means.

    `original` are the images (N, H, W, 3) uint8 in the same order as those of `data`, without perturbation.
    """
    shown = [label for label in range(len(classes)) if (data.labels == label).any()][:SHOWN]
    if not shown:
        return []
    first = torch.tensor([int(torch.nonzero(data.labels == label)[0]) for label in shown])
    names = ", ".join(classes[label] for label in shown)
    given = levels(data.images[first])
    if original is not None:
        before = levels(original.images[first])
        difference, factor = amplified(_array(given - before))
        rows = [_array(before), _array(given), difference]
        words = f"Original, as given, and the difference times {factor:.1f}, around gray: {names}"
        return [(words, rows_png(rows, ENLARGED))]
    details = [_class_detail(data, label) for label in shown]
    means, factor = amplified(_array(torch.stack(details) - torch.stack(details).mean(0)))
    return [
        (f"An image of each class: {names}", rows_png([_array(given)], ENLARGED)),
        (
            f"What the fine detail of a class has in common, against all shown, times {factor:.1f}, around gray. "
            "Photographs give noise here; a pattern is a perturbation that goes by the class",
            rows_png([means], ENLARGED),
        ),
    ]


def _class_detail(data: Split, label: int) -> torch.Tensor:
    rows = torch.nonzero(data.labels == label).flatten()
    parts = [detail(levels(data.images[part])).sum(0) for part in rows.split(500)]
    return torch.stack(parts).sum(0) / len(rows)


def _array(images: torch.Tensor) -> np.ndarray:
    """Images (N, 3, H, W) as (N, H, W, 3)."""
    return images.permute(0, 2, 3, 1).numpy()
