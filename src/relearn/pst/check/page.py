"""check.html: the verdict, its numbers, curves and images in one file that needs no network."""

import base64
import html
import io

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from relearn.data import Split, levels
from relearn.pst.check.trials import Trial
from relearn.pst.check.untrained import detail
from relearn.reporting.rendering import METADATA, PALETTE, style

SHOWN = 10  # classes in the gallery
ENLARGED = 3  # times
GAP = 2  # pixels between images
FULL = 100  # levels that the largest difference becomes
CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52em; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.3em; } h2 { font-size: 1.05em; margin-top: 2em; }
.answer { font-size: 1.25em; font-weight: 600; border-left: 6px solid #0072B2; padding: .4em .8em; }
table { border-collapse: collapse; } td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top; }
img { max-width: 100%; image-rendering: pixelated; } pre { background: #f4f7fa; padding: .6em; white-space: pre-wrap; }
.small { color: #555; font-size: .9em; }
"""


def page(report: dict, trials: dict[str, Trial], pictures: list[tuple[str, bytes]]) -> str:
    """The whole page, from what check.json holds, the trainings, and PNG files with a caption each."""
    parts = [
        f"<h1>Is this data unlearnable? {_text(report['data']['path'])}</h1>",
        f'<p class="answer">{_text(report["verdict"]["line"])}</p>',
        _list(report["verdict"]["findings"] + report["notes"]),
        "<h2>What was measured</h2>",
        _table(report["measured"]),
    ]
    if trials:
        parts += ["<h2>Accuracy while training</h2>", _image(curves(trials), "accuracy against steps of training")]
        words = (
            "On images of the training set: as given, and with perturbations hidden (grayscale, half the resolution)."
        )
        parts.append(f'<p class="small">{words}</p>')
    for caption, data in pictures:
        parts += [f"<h2>{_text(caption)}</h2>", _image(data, caption)]
    parts += ["<h2>What this cannot see</h2>", _list(report["limits"]), "<h2>To repeat it exactly</h2>"]
    parts.append(f"<pre>{_text(report['repeat'])}</pre>")
    versions = ", ".join(f"{name} {value}" for name, value in report["environment"].items() if value is not None)
    parts.append(f'<p class="small">{_text(versions)}</p>')
    head = f'<meta charset="utf-8"><title>relearn check</title><style>{CSS}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


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
        difference, factor = _amplified(given - before)
        rows = [before, given, difference]
        return [(f"Original, as given, and the difference times {factor:.1f}, around gray: {names}", _grid(rows))]
    details = [_class_detail(data, label) for label in shown]
    means, factor = _amplified(torch.stack(details) - torch.stack(details).mean(0))
    return [
        (f"An image of each class: {names}", _grid([given])),
        (
            f"What the fine detail of a class has in common, against all shown, times {factor:.1f}, around gray. "
            "Photographs give noise here; a pattern is a perturbation that goes by the class",
            _grid([means]),
        ),
    ]


def _class_detail(data: Split, label: int) -> torch.Tensor:
    rows = torch.nonzero(data.labels == label).flatten()
    parts = [detail(levels(data.images[part])).sum(0) for part in rows.split(500)]
    return torch.stack(parts).sum(0) / len(rows)


def _amplified(difference: torch.Tensor) -> tuple[torch.Tensor, float]:
    """A difference in levels around middle gray, with the factor that makes its largest value `FULL`."""
    factor = FULL / max(1e-6, float(difference.abs().max()))
    return 127.5 + factor * difference, factor


def _grid(rows: list[torch.Tensor]) -> bytes:
    """A PNG of rows of images, each (N, 3, H, W) float32 in levels."""
    height, width = rows[0].shape[2] + GAP, rows[0].shape[3] + GAP
    canvas = np.full((height * len(rows), width * len(rows[0]), 3), 255, dtype=np.uint8)
    for line, images in enumerate(rows):
        for place, image in enumerate(images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()):
            top, left = line * height, place * width
            canvas[top : top + height - GAP, left : left + width - GAP] = image
    picture = Image.fromarray(canvas)
    file = io.BytesIO()
    size = (picture.width * ENLARGED, picture.height * ENLARGED)
    picture.resize(size, Image.Resampling.NEAREST).save(file, format="PNG")
    return file.getvalue()


def _text(value: object) -> str:
    return html.escape(str(value))


def _list(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences) + "</ul>"


def _table(rows: dict[str, str]) -> str:
    cells = (f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in rows.items())
    return "<table>" + "".join(cells) + "</table>"


def _image(data: bytes, words: str) -> str:
    return f'<img alt="{_text(words)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
