"""The check from its options to its files and its one line."""

import os
import re
import sys
import time
from pathlib import Path

import torch

from relearn.data import Split
from relearn.errors import UserError, one_line
from relearn.pst.check import page, report, sizing
from relearn.pst.check.conclusion import UNKNOWN, Conclusion, conclude, too_few
from relearn.pst.check.found import Found, Options
from relearn.pst.check.inputs import Source, aligned, effective, open_source, stratified, weights_like
from relearn.pst.check.trials import LARGEST, PLAIN, Material, by_pst, plainly, speed, step_seconds
from relearn.pst.check.untrained import untrained_probe
from relearn.runtime import device, files, memory
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training.divergence import DivergedError

CLEAN = 2000  # clean images at most
READING = 0.2  # the share of the time that reading may take
MOST_THREADS = 8
WIDTHS = {"cpu": (16, 8), "cuda": (64, 16)}  # of speednet, the better one first
TIMED = 600  # images that are read, and that steps are timed with, to choose the sizes


def run(options: Options) -> str:
    """Check the images at `options.path`, write check.json and check.html, and return the line for stdout.

    Raises UserError for inputs that cannot be read, and for too little time; then nothing is written.
    """
    begin = time.monotonic()
    out = files.expanded(options.out or f"relearn-check-{_name(files.expanded(options.path))}")
    there = next((place for place in (out, *out.parents) if place.exists()), out)
    if there.exists() and not there.is_dir():  # told now, and not after minutes
        raise UserError(f"check: {out} cannot be a folder, since {there} is a file; choose another --out")
    found = look(options)
    content = report.content(found, time.monotonic() - begin)
    files.write_json(out / "check.json", content)
    pictures = page.pictures(found.data, found.original, found.source.classes)
    files.write_text(out / "check.html", page.page(content, found.trials, pictures))
    return one_line(f"{found.source.path}: {found.conclusion} [{out / 'check.html'}]")


def look(options: Options) -> Found:
    """Everything that is found; nothing is written."""
    begin = time.monotonic()
    found = _begin(options)
    if found.conclusion.reason:
        found.take(found.source.split(found.order))
    else:
        _measure(found, begin + 60 * options.minutes)
    return found


def _begin(options: Options) -> Found:
    """What is known before an image is read; a conclusion with a reason where there is nothing to train on."""
    threads = options.threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
    deterministic(threads)
    memory.keep_freed()
    source = open_source(options.path)
    if options.images and options.images > len(source.labels):
        raise UserError(f"check: --images is {options.images}, but there are {len(source.labels)}; give that or less")
    count = options.images or sizing.MOST
    order = stratified(source.labels, Seeds("check", options.seed).generator("images"))[:count]
    where = device.choose()
    precision = device.precision({"precision": "bfloat16", "isa": "native"}, where)
    _clean_source(options, source)  # a mistake is told even where nothing will be trained
    few = too_few(len(order), len(source.classes))
    return Found(options, source, order, threads, where, precision, few or Conclusion(UNKNOWN, ""))


def _measure(found: Found, deadline: float) -> None:
    """Choose the sizes, read the images, train twice, conclude."""
    options, source = found.options, found.source
    clean = _clean(found)
    first = _read(found, found.order[:TIMED], deadline)
    found.sizes = _sizes(found, first, 0 if clean is None else len(clean), deadline)
    data = source.split(found.order[: found.sizes.images])
    found.take(data)
    _say(f"looking at fine detail in {len(data)} images, without training")
    found.untrained = untrained_probe(data, options.seed)
    drawn = stratified(data.labels, Seeds("check", options.seed).generator("held out"))
    held_out, train = (data.pick(rows) for rows in (drawn[: found.sizes.held_out], drawn[found.sizes.held_out :]))
    material = _material(found, train, held_out, clean)
    try:
        pst = by_pst(material, found.sizes)
        # where PST sees no trap its training is the plain one, to the byte
        plain = pst if pst.stage == "early" else plainly(material, found.sizes)
    except DivergedError as error:
        found.conclusion = Conclusion(UNKNOWN, f"a training diverged ({error})")
        return
    found.trials = {"plain training": plain, "PST": pst}
    chance = max(torch.bincount(held_out.labels).max().item() / len(held_out), 1 / len(source.classes))
    if clean is not None:
        found.clean_images = len(clean)
        found.clean_effective = effective(weights_like(clean.labels, held_out.labels))
    found.conclusion = conclude(plain, pst, found.untrained, chance, len(held_out), found.clean_effective)


def _material(found: Found, train: Split, held_out: Split, clean: Split | None) -> Material:
    where = found.device
    known = None if clean is None else clean.to(where)
    classes, seed = len(found.source.classes), found.options.seed
    return Material(train.to(where), held_out.to(where), known, classes, seed, where, found.precision)


def _clean(found: Found) -> Split | None:
    """The clean test images, at most `CLEAN` of them, labelled as the others are."""
    given = _clean_source(found.options, found.source)
    if given is None:
        return None
    source, labels = given
    rows = stratified(labels, Seeds("check", found.options.seed).generator("clean"))[:CLEAN]
    return Split(source.read(rows), labels[rows], rows)


def _clean_source(options: Options, images: Source) -> tuple[Source, torch.Tensor] | None:
    """The clean images that the options name, and their labels (N,) by the classes of `images`; None for none."""
    if options.clean is None:
        return None
    source = open_source(options.clean, "test", images.size)
    labels = aligned(source, images.classes, "--clean")
    missing = [images.classes[label] for label in sorted(set(images.labels.tolist()) - set(labels.tolist()))]
    if missing:  # a perturbation of that class would go unseen
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"check: --clean has no image of the class '{missing[0]}'{others}; give some of every class, or leave out "
            "--clean"
        )
    return source, labels


def _read(found: Found, rows: torch.Tensor, deadline: float) -> Split:
    """The first images; what reading them takes limits how many are read at all."""
    begin = time.monotonic()
    first = found.source.split(rows)
    each = (time.monotonic() - begin) / len(rows)
    if not found.options.images:
        most = int(READING * (deadline - begin) / max(each, 1e-9))
        found.order = found.order[: max(len(rows), most)]
    return first


def _sizes(found: Found, first: Split, clean: int, deadline: float) -> sizing.Sizes:
    """The sizes that the options give, or that the time allows after a few steps of each kind."""
    options, classes = found.options, len(found.source.classes)
    widths = (options.width,) if options.width else WIDTHS[found.device.split(":")[0]]
    if options.images and options.epochs:
        return sizing.sizes(options.images, classes, widths[0], options.epochs)
    material = _material(found, first, first, None)
    _choose_threads(found, material, sizing.sizes(len(first), classes, widths[0]))
    speeds: dict[int, sizing.Speed] = {}
    for width in widths:
        _say(f"timing a few steps at width {width}")
        speeds[width] = speed(material, sizing.sizes(len(first), classes, width))
        # images are read once more, and the untrained probe and the files take some seconds
        left = (deadline - time.monotonic()) * (1 - READING / 2) - 10
        if sizing.enough(len(found.order), classes, width, speeds[width], left, options.images, options.epochs, clean):
            break
    chosen = sizing.choose(len(found.order), classes, speeds, left, options.images, options.epochs, clean)
    found.speed = speeds[chosen.width]
    longest = sizing.seconds(chosen, found.speed, clean)
    _say(
        f"{chosen.images} of {len(found.source.labels)} images, width {chosen.width}, {chosen.epochs} epochs plainly, "
        f"{chosen.staged_epochs} in a stage of PST, threads {found.threads}; at most {longest / 60:.1f} minutes"
    )
    return chosen


def _choose_threads(found: Found, material: Material, chosen: sizing.Sizes) -> None:
    """One thread where that is faster than all, as on a machine that others use; only where none are given."""
    if found.options.threads is not None or found.device != "cpu" or found.threads == 1:
        return
    tried = {}
    for threads in (1, found.threads):
        torch.set_num_threads(threads)
        tried[threads] = step_seconds(material, chosen, PLAIN, min(LARGEST, len(material.train)))
    found.threads = min(tried, key=lambda threads: tried[threads])
    torch.set_num_threads(found.threads)


def _name(path: Path) -> str:
    """What the folder of the results is called after."""
    resolved = path.resolve()
    name = resolved.parent.name if resolved.stem == "train" and path.suffix else resolved.stem
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[:40] or "images"


def _say(words: str) -> None:
    print(f"check: {words}", file=sys.stderr, flush=True)
