"""Figures: the right panels, words and faults, and the same bytes each time."""

import matplotlib
import numpy
import pandas
import pytest
from matplotlib.figure import Figure

from relearn import registry
from relearn.errors import Fault
from relearn.rendering import save_figure

POISONS, METHODS, EPOCHS = ("tap", "clean"), ("erm", "pst"), 6


def frames(archs=("resnet18",), seeds=(0, 1)):
    """Records and histories of a small grid; only resnet18 has a stem."""
    records, histories = [], []
    grid = ((arch, poison, method, seed) for arch in archs for poison in POISONS for method in METHODS for seed in seeds)
    for arch, poison, method, seed in grid:
        cell = {"dataset": "toy", "poison": poison, "arch": arch, "method": method, "seed": seed}
        final = 25.0 if (poison, method) == ("tap", "erm") else 80.0 + seed
        records.append({**cell, "accuracy": final})
        for epoch in range(1, EPOCHS + 1):
            stage = "" if method == "erm" else "early" if epoch < 3 else f"stage {epoch // 3}"
            groups = {"acm_stem": 0.2 if arch == "resnet18" else numpy.nan, "acm_deep": 0.1 * epoch}
            histories.append({**cell, "epoch": epoch, "test_accuracy": final * epoch / EPOCHS, "stage": stage, **groups})
    return pandas.DataFrame(records), pandas.DataFrame(histories)


def examples(poisons=POISONS):
    clean = numpy.full((3, 8, 8, 3), 100, "uint8")
    example = {"clean": clean, "poisoned": clean + numpy.uint8(20), "labels": ["cat", "dog", "fire_engine"]}
    return {("toy", poison): example for poison in poisons}


def draw(name, *frame, **settings):
    return registry.load("figures", name)(*frame, **settings)


def titles(figure):
    return [axis.get_title() or axis.get_title(loc="left") for axis in figure.axes]


def words(axis):
    return [text.get_text() for text in axis.texts]


@pytest.mark.parametrize("name", ["accuracy_matrix", "trap_curves", "acm_curves", "gallery"])
def test_same_bytes(name, tmp_path):
    records, histories = frames()
    frame = {"accuracy_matrix": records, "gallery": examples()}.get(name, histories)
    for suffix in ("png", "pdf", "svg"):
        paths = [tmp_path / f"{turn}.{suffix}" for turn in range(2)]
        for path in paths:
            figure = draw(name, frame)
            assert isinstance(figure, Figure)
            save_figure(figure, path)
        first, second = (path.read_bytes() for path in paths)
        assert first == second
        assert matplotlib.__version__.encode() not in first


def test_accuracy_matrix():
    figure = draw("accuracy_matrix", frames(archs=("resnet18", "alexnet"))[0])
    panel, other, _ = figure.axes
    assert [panel.get_title(), other.get_title()] == ["toy, resnet18", "toy, alexnet"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["tap", "clean"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["erm", "pst"]
    assert words(panel) == ["25.0\n± 0.0", "80.5\n± 0.7", "80.5\n± 0.7", "80.5\n± 0.7"]


def test_accuracy_matrix_leaves_holes_empty():
    records = frames(seeds=(0,))[0].drop(index=3)
    assert words(draw("accuracy_matrix", records).axes[0]) == ["25.0", "80.0", "80.0"]


def test_trap_curves():
    histories = frames()[1]
    figure = draw("trap_curves", histories[(histories["method"] == "erm") | (histories["seed"] == 0)])
    assert titles(figure) == ["tap (n = 1–2)", "clean (n = 1–2)"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["erm", "pst", "erm on clean data"]
    assert list(figure.axes[0].lines[0].get_ydata())[-1] == 25.0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["erm", "pst", "erm on clean data"]


def test_trap_curves_of_one_seed_without_clean_data():
    histories = frames(seeds=(4,))[1]
    figure = draw("trap_curves", histories[histories["poison"] == "tap"], methods=["pst", "absent"])
    assert titles(figure) == ["tap (n = 1)"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["pst"]


def test_acm_curves():
    figure = draw("acm_curves", frames(archs=("resnet18", "vit"))[1], seed=1)
    assert titles(figure)[:4] == ["tap, erm", "tap, pst", "clean, erm", "clean, pst"]
    assert [part.get_suptitle() for part in figure.subfigs] == ["toy, resnet18, seed 1", "toy, vit, seed 1"]
    labels = [[text.get_text() for text in part.legends[0].get_texts()] for part in figure.subfigs]
    assert labels == [["stem", "deep", "stage begins"], ["deep", "stage begins"]]
    assert words(figure.axes[0]) == [] and words(figure.axes[1]) == ["1", "2"]


def test_acm_curves_say_what_was_not_measured():
    histories = frames(seeds=(0,))[1]
    histories.loc[histories["method"] == "erm", ["acm_stem", "acm_deep"]] = numpy.nan
    assert words(draw("acm_curves", histories).axes[0]) == ["not measured"]


def test_gallery():
    figure = draw("gallery", examples(), amplify=2.0, classes=2)
    (axis,) = figure.axes
    assert titles(figure) == ["tap"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["clean", "poisoned", "difference × 2"]
    mosaic = axis.images[0].get_array()
    assert mosaic.shape == (3 * 8 + 2, 2 * 8 + 1, 3)
    assert [int(mosaic[row, 0, 0]) for row in (0, 9, 18)] == [100, 120, 128 + 2 * 20]


def test_faults():
    histories = frames()[1]
    for name in ("trap_curves", "acm_curves"):
        with pytest.raises(Fault, match=r"methods \['pts'\]; known: erm, pst \(did you mean 'pst'\?\)"):
            draw(name, histories, methods=["pts"])
    with pytest.raises(Fault, match="seed 7; known: 0, 1"):
        draw("acm_curves", histories, seed=7)
    with pytest.raises(Fault, match="no poison but 'clean'"):
        draw("gallery", examples(poisons=("clean",)))
