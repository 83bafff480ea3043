"""Figures: the right panels, words and errors, and the same bytes each time."""

import itertools

import matplotlib
import numpy
import pandas
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from helpers.colours import DEUTERANOPIA, PROTANOPIA, lab, linear, luminance
from relearn import registry
from relearn.errors import UserError
from relearn.figures.trap_curves import DASH
from relearn.reporting.rendering import PALETTE, looks, save_figure, style

POISONS, METHODS, EPOCHS = ("tap", "clean"), ("erm", "pst"), 6


def frames(archs=("resnet18",), seeds=(0, 1)):
    """Records and histories of a small grid; only resnet18 has a stem."""
    records, histories = [], []
    grid = (
        (arch, poison, method, seed) for arch in archs for poison in POISONS for method in METHODS for seed in seeds
    )
    for arch, poison, method, seed in grid:
        cell = {"dataset": "toy", "poison": poison, "arch": arch, "method": method, "seed": seed}
        cell |= {"method_use": method, "poison_use": poison}
        final = 25.0 if (poison, method) == ("tap", "erm") else 80.0 + seed
        records.append({**cell, "accuracy": final, "passes": 1.0})
        for epoch in range(1, EPOCHS + 1):
            stage = "" if method == "erm" else "early" if epoch < 3 else f"stage {epoch // 3}"
            groups = {"acm_stem": 0.2 if arch == "resnet18" else numpy.nan, "acm_deep": 0.1 * epoch}
            histories.append(
                {**cell, "epoch": epoch, "test_accuracy": final * epoch / EPOCHS, "stage": stage, **groups}
            )
    return pandas.DataFrame(records), pandas.DataFrame(histories)


def examples(poisons=POISONS):
    clean = numpy.full((3, 8, 8, 3), 100, "uint8")
    example = {"clean": clean, "poisoned": clean + numpy.uint8(20), "labels": ["cat", "dog", "fire_engine"]}
    return {("toy", poison): example | {"use": poison} for poison in poisons}


CELLS = ["toy/clean/cnn/erm/0", "toy/tap/cnn/pst/0"]
STUDY = {"erm": ("erm", 0), "half_1": ("transplant", 1), "half_2": ("transplant", 2), "random_1": ("random_frozen", 1)}


def study(seeds=(0, 1), **more):
    """Records and histories of a study of shallow groups.

    The accuracy is 20 for erm on tap, then 10 more for each frozen group.
    """
    cells = [("clean", "erm", 90.0)] + [
        ("tap", method, 20.0 + 10 * frozen) for method, (_, frozen) in (STUDY | more).items()
    ]
    records, histories = [], []
    for poison, method, accuracy in cells:
        use, frozen = (STUDY | more)[method]
        for seed in seeds:
            cell = {"dataset": "toy", "poison": poison, "arch": "cnn", "method": method, "seed": seed}
            cell |= {"method_use": use, "poison_use": poison}
            records.append({**cell, "accuracy": accuracy + seed})
            rates = {f"rate_{name}": float(k >= frozen) for k, name in enumerate(("stem", "middle", "head"))}
            # by the second epoch every method slows its groups: only what is frozen from the first step counts
            histories += [{**cell, "epoch": 1, **rates}, {**cell, "epoch": 2, **dict.fromkeys(rates, 0.0)}]
    return pandas.DataFrame(records), pandas.DataFrame(histories)


def embedded():
    """The embeddings and histories of two cells: two classes of three images, epochs 1 and 7, apart in the end."""
    points = [
        {"cell": cell, "epoch": epoch, "group": "middle", "label": label, "x": epoch * side + k / 10, "y": k / 10}
        for cell in CELLS
        for epoch in (1, 7)
        for label, side in (("cat", -1), ("dog", 1))
        for k in range(3)
    ]
    rows = []
    for cell in CELLS:
        coords = dict(zip(("dataset", "poison", "arch", "method", "seed"), cell.split("/"), strict=True))
        rows += [
            {**coords, "seed": 0, "epoch": epoch, "acm_middle": 0.1 * epoch, "test_accuracy": 10.0 * epoch}
            for epoch in (1, 7)
        ]
    return pandas.DataFrame(points), pandas.DataFrame(rows)


def timeline():
    """Probes, history and train.json of a run of 8 steps in epochs of 2: a trap at step 4, and back to step 2."""
    probes, cell = [], {"dataset": "toy", "poison": "tap", "arch": "cnn", "method": "pst", "seed": 0}
    for steps_taken, acm, next_step in ((0, 0.1, 0), (2, 0.4, 2), (4, 0.9, 2)):
        trap = steps_taken != next_step
        probes.append(
            {
                "cell": CELLS[1],
                "steps_taken": steps_taken,
                "step": steps_taken,
                "stage": "early",
                "probe_accuracy": 0.5,
                "hidden_accuracy": 0.2,
                "kept": None if steps_taken == 0 else 0.25,
                "acm_middle": acm,
                "next_step": next_step,
                "next_stage": "stage 1" if trap else "early",
                "steps": 8,
                "rate_stem": 0.0 if trap else 1.0,
                "rate_middle": 0.0 if trap else 1.0,
                "rate_head": 1.0,
            }
        )
    rows = [
        {"steps_taken": i, "step": s, "test_accuracy": a, "acm_middle": 0.4, "probe_accuracy": 0.8}
        for i, s, a in ((2, 2, 30.0), (6, 4, 40.0), (10, 8, 60.0))
    ]
    rolled_back = [{"steps_taken": 4, "step": 4, "test_accuracy": 10.0, "acm_middle": 0.9, "probe_accuracy": 0.5}]
    method = {"use": "pst", "kept_trapped": 0.4}
    settings = {"train": {"lr": 0.2, "warmup_steps": 0, "schedule": "cosine"}, "method": method}
    run = {
        "cell": cell,
        "settings": settings,
        "steps_taken": 10,
        "steps": 8,
        "rolled_back": rolled_back,
        "verdict": {"group": "middle"},
    }
    return pandas.DataFrame(probes), pandas.DataFrame([{**cell, **row} for row in rows]), {CELLS[1]: run}


CLASSES = {"toy": 10}


def draw(name, *frame, **settings):
    return registry.load("figures", name)(*frame, **settings)


def titles(figure):
    return [axis.get_title() or axis.get_title(loc="left") for axis in figure.axes]


def words(axis):
    return [text.get_text() for text in axis.texts]


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
    figure = draw("trap_curves", histories[histories["poison"] == "tap"], {}, methods=["pst", "absent"])
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


def test_acm_curves_repeat_nothing_else_where_erm_did_not_run():
    """An architecture with gray alone, which uses erm too: it is no plain training there either."""
    histories = frames(archs=("resnet18", "vit"))[1]
    vit = (histories["arch"] == "vit") & (histories["method"] == "erm")
    histories.loc[vit, "method"] = "gray"
    figure = draw("acm_curves", histories, methods=["pst", "gray"])
    lines = [[line.get_linestyle() for axis in part.axes for line in axis.lines] for part in figure.subfigs]
    assert [part.count(":") > 0 for part in lines] == [True, False]


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
    for methods in (["erm"], ["half"]):
        with pytest.raises(UserError, match=r"no cell of the grid uses transplant or random_frozen and is one of \["):
            draw("shallow_study", records, histories, methods=methods)


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


def test_errors():
    histories = frames()[1]
    for name, more in (("trap_curves", [CLASSES]), ("acm_curves", [])):
        with pytest.raises(UserError, match=r"methods \['pts'\]; known: erm, pst \(did you mean 'pst'\?\)"):
            draw(name, histories, *more, methods=["pts"])
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
