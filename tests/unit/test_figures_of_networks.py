"""Figures of single networks and poisons: the shallow study, embeddings, stages, the gallery."""

import numpy
import pytest

from helpers.drawn import CELLS, draw, embedded, examples, study, timeline, titles, words
from relearn.errors import UserError


def test_shallow_study():
    figure = draw("shallow_study", *study())
    (axis,) = figure.axes
    assert titles(figure) == ["tap"]
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines) == ["from a clean model, frozen", "random, frozen", "erm, nothing frozen", "erm on clean data"]
    points = {label: list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for label, line in lines.items()}
    assert points["from a clean model, frozen"] == [(0, 20.5), (1, 30.5), (2, 40.5)]
    assert points["random, frozen"] == [(0, 20.5), (1, 30.5)]
    assert points["erm, nothing frozen"] == [(0, 20.5)] and points["erm on clean data"][0][1] == 90.5


def test_shallow_study_finds_methods_by_what_they_do():
    """Neither by their names nor by their order: two that freeze the same are told apart by the user, or refused."""
    records, histories = study(other_1=("transplant", 1))
    with pytest.raises(UserError, match="shallow_study: half_1, other_1 freeze the same layer groups"):
        draw("shallow_study", records, histories)
    (axis,) = draw("shallow_study", records, histories, methods=["other_1"]).axes
    assert list(axis.lines[0].get_xdata()) == [0, 1]
    with pytest.raises(UserError, match=r"no cell of the grid uses transplant or random_frozen and is one of \['erm'"):
        draw("shallow_study", records, histories, methods=["erm"])
    with pytest.raises(UserError, match=r"no cell of the grid has the method 'half'; .*did you mean 'half_"):
        draw("shallow_study", records, histories, methods=["other_1", "half"])


def test_shallow_study_names_no_method_that_did_not_run():
    """Where all frozen groups are from a clean model, the point of erm alone is no line of random ones."""
    records, histories = study()
    (axis,) = draw("shallow_study", records[records["method"] != "random_1"], histories).axes
    labels = [line.get_label() for line in axis.lines]
    assert labels == ["from a clean model, frozen", "erm, nothing frozen", "erm on clean data"]


def test_embedding():
    figure = draw("embedding", *embedded(), cells=CELLS)
    assert titles(figure) == ["epoch 1, ACM of middle 0.10", "epoch 7, ACM of middle 0.70"] * 2
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "erm on clean\ntoy, cnn, seed 0",
        "",
        "pst on tap\ntoy, cnn, seed 0",
        "",
    ]
    cat, dog = figure.axes[1].collections
    assert (
        cat.get_offsets().tolist() == [[-7.0, 0.0], [-6.9, 0.1], [-6.8, 0.2]] and (dog.get_offsets()[:, 0] >= 7).all()
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cat", "dog"]


def test_stage_timeline():
    figure = draw("stage_timeline", *timeline(), cells=CELLS[1:])
    accuracy, acm, kept, rate = figure.axes

    def lines(axis, label):
        return [list(zip(*map(list, line.get_data()), strict=True)) for line in axis.lines if line.get_label() == label]

    # what a roll-back undid is a part of its own, and marked
    assert lines(accuracy, "clean test images") == [[(2, 30.0), (4, 10.0)], [(6, 40.0), (10, 60.0)]]
    assert lines(accuracy, "undone by a roll-back") == [[(4, 10.0)]]
    assert lines(acm, "ACM, middle group") == [
        [(0, 0.1), (2, 0.4), (2, 0.4), (4, 0.9), (4, 0.9)],
        [(6, 0.4), (10, 0.4)],
    ]
    assert lines(acm, "perturbations hidden")[0][0] == (0, 0.2)
    # nothing is kept of what is not learned yet, at step 0
    assert lines(kept, "share kept")[0][0] == (2, 0.25)
    assert [line.get_ydata()[0] for line in kept.lines if line.get_label() == "kept_trapped = 0.4"] == [0.4]
    assert [
        [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [0, 1]] for axis in figure.axes
    ] == [[4]] * 4
    assert words(accuracy) == [" stage 1"]
    # the learning rate: a half cosine over 8 steps from 0.2, back at step 2 after 4 steps taken, stem and middle at 0
    # from there
    (shallow,), (head,) = lines(rate, "stem to middle"), lines(rate, "head")
    half = 0.2 * (1 + numpy.cos(numpy.pi * 2 / 8)) / 2
    assert (
        head[0] == (0, 0.2)
        and head[-1] == (10, 0.0)
        and (4, pytest.approx(half)) in head
        and (4, pytest.approx(0.1)) in head
    )
    assert shallow[0] == (0, 0.2) and all(value == 0 for time, value in shallow if time > 4)


def test_stage_timeline_of_a_run_without_probes():
    probes, histories, runs = timeline()
    with pytest.raises(UserError, match="toy/clean/cnn/erm/0 has no probes; name cells of a pst method in `cells`"):
        draw("stage_timeline", probes, histories, runs | {CELLS[0]: {}}, cells=CELLS)


def test_gallery():
    """The clean row once, then a row per poison: its images, and on the right its perturbation on mid-grey."""
    both = examples(("tap", "strong", "clean"))
    both["toy", "strong"] |= {"poisoned": both["toy", "strong"]["clean"] + numpy.uint8(100)}
    figure = draw("gallery", both, classes=2)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["clean", "tap", "strong"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "dog"]
    mosaic = axis.images[0].get_array()
    assert mosaic.shape == (3 * 8 + 2, 2 * (2 * 9) + 4 - 1, 3)
    assert [int(mosaic[row, 0, 0]) for row in (0, 9, 18)] == [100, 120, 200]
    assert [int(mosaic[row, 2 * 9 + 4, 0]) for row in (0, 9, 18)] == [255, 127 + 5 * 20, 127 + 100]
    # 20 log10 (255 / 20) = 22.1 and 20 log10 (255 / 100) = 8.1
    assert words(axis) == ["perturbation", "", "×5, L∞ 20, 22.1 dB", "×1, L∞ 100, 8.1 dB"]


def test_gallery_of_some_poisons_by_a_given_factor():
    (axis,) = draw("gallery", examples(("tap", "other")), poisons=["other"], amplify=2.0).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["clean", "other"]
    assert words(axis)[-1] == "×2, L∞ 20, 22.1 dB"
    still = examples()
    still["toy", "tap"]["poisoned"] = still["toy", "tap"]["clean"]
    assert words(draw("gallery", still).axes[0])[-1] == "×100, L∞ 0, no change"
