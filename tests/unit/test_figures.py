"""Figures: the right panels, words and errors, and the same bytes each time."""

import itertools

import matplotlib
import numpy
import pandas
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from helpers.colours import DEUTERANOPIA, PROTANOPIA, lab, linear, luminance
from helpers.drawn import CELLS, CLASSES, EPOCHS, draw, embedded, examples, frames, study, timeline, titles, words
from relearn import registry
from relearn.errors import UserError
from relearn.figures.trap_curves import DASH
from relearn.reporting.rendering import PALETTE, looks, save_figure, style


# shallow_filters is drawn from networks: test_shallow.py
@pytest.mark.parametrize("name", [name for name in registry.entries("figures") if name != "shallow_filters"])
def test_same_bytes(name, tmp_path):
    records, histories = frames()
    given = {
        "accuracy_matrix": (records,),
        "accuracy_by_passes": (records,),
        "gallery": (examples(),),
        "shallow_study": study(),
        "embedding": embedded(),
        "stage_timeline": timeline(),
        "trap_curves": (histories, CLASSES),
    }
    settings = {"embedding": {"cells": CELLS}, "stage_timeline": {"cells": CELLS[1:]}}.get(name, {})
    for suffix in ("png", "pdf", "svg"):
        paths = [tmp_path / f"{turn}.{suffix}" for turn in range(2)]
        for path in paths:
            figure = draw(name, *given.get(name, (histories,)), **settings)
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


def test_accuracy_by_passes():
    records = frames()[0]
    records["passes"] = records["method"].map({"erm": 1.0, "pst": 3.0})
    gray = records[records["method"] == "erm"].assign(method="gray", accuracy=20.0)  # uses erm, but is not plain
    figure = draw("accuracy_by_passes", pandas.concat([records, gray]))
    tap, clean = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["tap", "clean"]
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in tap.lines[:3]}
    means = records[records["poison"] == "tap"].groupby("method")["accuracy"].mean()
    assert points == {"erm": (1.0, means["erm"]), "gray": (1.0, 20.0), "pst": (3.0, means["pst"])}
    on_clean = records[(records["poison"] == "clean") & (records["method"] == "erm")]["accuracy"].mean()
    assert clean.lines[-1].get_label() == "erm on clean data" and set(clean.lines[-1].get_ydata()) == {on_clean}


def test_accuracy_matrix_relative_to_erm_on_clean_data():
    figure = draw("accuracy_matrix", frames()[0], relative=True)  # of erm on clean data: 80 and 81, mean 80.5
    assert words(figure.axes[0]) == ["31.1\n± 0.0", "100.0\n± 0.9", "100.0\n± 0.9", "100.0\n± 0.9"]
    (mesh, *_) = figure.axes[0].collections
    assert mesh.get_clim() == (30, 100)
    records = frames()[0]
    with pytest.raises(UserError, match="accuracy_matrix: relative needs plain training on clean data"):
        draw("accuracy_matrix", records[records["poison"] == "tap"], relative=True)


def test_accuracy_matrix_sets_adaptive_poisons_apart():
    records = frames()[0].replace({"poison": {"tap": "tap_adaptive"}})
    panel = draw("accuracy_matrix", records).axes[0]
    places = {label.get_text(): label.get_position()[1] for label in panel.get_yticklabels()}
    assert list(places) == ["clean", "tap_adaptive"] and places["tap_adaptive"] - places["clean"] > 1.2
    together = draw("accuracy_matrix", records, apart=["none"]).axes[0]
    assert [label.get_position()[1] for label in together.get_yticklabels()] == [0.5, 1.5]


def test_every_number_of_the_matrix_can_be_read():
    """By the formula of WCAG 2, which asks for a contrast of 4.5; black or white always reaches it."""
    for figure in (draw("accuracy_matrix", frames()[0]), draw("accuracy_matrix", frames()[0], relative=True)):
        panel = figure.axes[0]
        cells = [colour for mesh in panel.collections for colour in mesh.to_rgba(mesh.get_array().ravel())]
        assert len(cells) == len(panel.texts) == 4
        for text, cell in zip(panel.texts, cells, strict=True):
            dark, light = sorted((luminance(to_rgb(text.get_color())), luminance(cell[:3])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_trap_curves():
    histories = frames()[1]
    figure = draw("trap_curves", histories[(histories["method"] == "erm") | (histories["seed"] == 0)], CLASSES)
    assert titles(figure) == ["tap (n = 1–2)", "clean (n = 1–2)"]
    labels = ["erm", "pst", "erm on clean data", "chance"]
    tap = figure.axes[0]
    assert [line.get_label() for line in tap.lines] == labels
    assert list(tap.lines[0].get_ydata())[-1] == 25.0 and set(tap.lines[-1].get_ydata()) == {10.0}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == labels


def test_trap_curves_of_one_seed_without_clean_data():
    histories = frames(seeds=(4,))[1]
    figure = draw("trap_curves", histories[histories["poison"] == "tap"], {}, methods=["pst"])
    assert titles(figure) == ["tap (n = 1)"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["pst"]


def test_equal_curves_take_turns_and_others_do_not():
    histories = frames(seeds=(0,))[1]  # on clean data erm and pst are equal, on tap they are not
    figure = draw("trap_curves", histories, CLASSES)
    tap, clean = ([line.get_linestyle() for line in axis.lines[:2]] for axis in figure.axes)
    assert tap == ["-", "-"] and clean == ["--", "--"]
    first, second = (line._unscaled_dash_pattern for line in figure.axes[1].lines[:2])
    assert first == (0, (DASH, DASH)) and second == (DASH, (DASH, DASH))  # one in the gaps of the other
    assert figure.legends[0].get_texts()[-1].get_text() == "equal curves"


def test_colours_can_be_told_apart_by_colour_blind_readers():
    """Distances in CIELAB, normal and as Machado et al., 2009, simulate deuteranopia and protanopia; 2 can be seen."""
    for matrix in (numpy.eye(3), DEUTERANOPIA, PROTANOPIA):
        seen = [lab(matrix @ linear(to_rgb(colour))) for colour in PALETTE]
        assert min(numpy.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


def test_methods_look_the_same_in_every_figure_and_no_two_alike():
    many = ["gray", "erm", *(f"m{k}" for k in range(28)), "pst"]
    found = looks(many)
    assert len({tuple(look.values()) for look in found.values()}) == len(many)
    assert found["erm"] == looks(["pst", "erm"])["erm"] and found["pst"] == looks(["pst"])["pst"]
    assert found["gray"]["color"] not in (found["erm"]["color"], found["pst"]["color"])


def test_acm_curves():
    figure = draw("acm_curves", frames(archs=("resnet18", "vit"))[1], seed=1)
    assert titles(figure)[:4] == ["tap, erm", "tap, pst", "clean, erm", "clean, pst"]
    assert [part.get_suptitle() for part in figure.subfigs] == ["toy, resnet18, seed 1", "toy, vit, seed 1"]
    labels = [[text.get_text() for text in part.legends[0].get_texts()] for part in figure.subfigs]
    dotted = "erm on clean data"
    assert labels == [["stem", dotted, "deep", "stage begins"], ["deep", dotted, "stage begins"]]
    assert words(figure.axes[0]) == [] and words(figure.axes[1]) == ["1", "2"]


def test_acm_curves_are_of_erm_and_pst_if_both_ran():
    histories = frames()[1]
    gray = histories[histories["method"] == "erm"].assign(method="gray")
    assert {title.split(", ")[1] for title in titles(draw("acm_curves", pandas.concat([histories, gray])))} == {
        "erm",
        "pst",
    }
    alone = pandas.concat([histories[histories["method"] == "erm"], gray])
    assert {title.split(", ")[1] for title in titles(draw("acm_curves", alone))} == {"erm"}


def test_acm_curves_mark_a_stage_that_begins_in_the_first_epoch():
    histories = frames(seeds=(0,))[1]
    histories.loc[histories["method"] == "pst", "stage"] = "stage 1"
    axes = draw("acm_curves", histories).axes
    assert words(axes[0]) == [] and words(axes[1]) == ["1"]
    (line,) = (line for line in axes[1].lines if line.get_label() == "stage begins")
    assert list(line.get_xdata()) == [1, 1]


def test_acm_curves_say_what_was_not_measured():
    histories = frames(seeds=(0,))[1]
    histories.loc[histories["method"] == "erm", ["acm_stem", "acm_deep"]] = numpy.nan
    assert words(draw("acm_curves", histories).axes[0]) == ["not measured"]


def test_acm_curves_repeat_erm_on_clean_data():
    figure = draw("acm_curves", frames()[1])
    for axis in figure.axes[:4]:
        dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert [list(line.get_ydata()) for line in dotted] == [
            [0.2] * EPOCHS,
            [0.1 * epoch for epoch in range(1, EPOCHS + 1)],
        ]


def test_acm_curves_repeat_one_run_where_two_entries_are_of_clean_data():
    """Both have the same images and so equal runs; drawn one after the other, a line would lead back to epoch 1."""
    histories = frames()[1]
    again = histories[histories["poison"] == "clean"].assign(poison="untouched")
    axes = draw("acm_curves", pandas.concat([histories, again])).axes
    dotted = [line for axis in axes for line in axis.lines if line.get_linestyle() == ":"]
    assert dotted and all(list(line.get_xdata()) == list(range(1, EPOCHS + 1)) for line in dotted)


def test_acm_curves_repeat_nothing_else_where_erm_did_not_run():
    """An architecture with gray alone, which uses erm too: it is no plain training there either."""
    histories = frames(archs=("resnet18", "vit"))[1]
    vit = (histories["arch"] == "vit") & (histories["method"] == "erm")
    histories.loc[vit, "method"] = "gray"
    figure = draw("acm_curves", histories, methods=["pst", "gray"])
    lines = [[line.get_linestyle() for axis in part.axes for line in axis.lines] for part in figure.subfigs]
    assert [part.count(":") > 0 for part in lines] == [True, False]


def test_errors():
    histories = frames()[1]
    for name, more in (("trap_curves", [CLASSES]), ("acm_curves", [])):
        with pytest.raises(UserError, match=r"has the method 'pts'; known: erm, pst \(did you mean 'pst'\?\)"):
            draw(name, histories, *more, methods=["erm", "pts"])  # it must not be left out without a word
    with pytest.raises(UserError, match="seed 7; known: 0, 1"):
        draw("acm_curves", histories, seed=7)
    with pytest.raises(UserError, match=r"no cell of the grid has the poison 'tip'; .*did you mean 'tap'"):
        draw("acm_curves", histories, poisons=["tip"])
    with pytest.raises(UserError, match="no poison but 'clean'"):
        draw("gallery", examples(poisons=("clean",)))
    with pytest.raises(UserError, match=r"gallery: the grid has no poison 'tip'; known: tap \(did you mean 'tap'\?\)"):
        draw("gallery", examples(), poisons=["tip"])


def test_names_are_text_and_not_formulas(tmp_path):
    """Classes of a user's folder are called as they are."""
    for word in (r"$\nonsense{$", "a$b$", "$", "{x}", "%s", r"\n"):
        with matplotlib.rc_context(style()):
            figure = Figure()
            axis = figure.subplots()
            axis.set_xticks([0], [word])
            axis.plot([0, 1], label=word)
            axis.legend(title=word)
        save_figure(figure, tmp_path / "figure.png")
