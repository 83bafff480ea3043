"""What the evidence rests on: transplanted layer groups, embeddings, and what a run leaves of the steps it went back on."""

from pathlib import Path

import pytest
import torch
from conftest import coloured, same

from relearn import __main__, fit, grid, models, params, probe
from relearn.data import split
from relearn.errors import Fault
from relearn.methods.erm import ERM
from relearn.methods.transplant import Transplant
from relearn.records import write_json, write_rows
from relearn.seeding import Seeds

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ["block1", "block2", "block3", "block4", "head"]
RECIPE = {setting.name: setting.default for setting in params.schema(params.Recipe)} | {
    "epochs": 3,
    "batch": 16,
    "warmup_steps": 2,
    "crop_pad": 2,
}


def drawn(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(train, seed: int = 2, width: int = 8) -> models.Normalised:
    return models.build(
        "cnn", {"width": width}, images=train.images, classes=10, generator=drawn(seed), device="cpu"
    ).train()


def surrogate_of(train, width: int = 8) -> dict[str, torch.Tensor]:
    """Weights of another model, whose batch-norm statistics have moved too."""
    model = model_of(train, seed=9, width=width)
    model(train.images.permute(0, 3, 1, 2).float() / 255)
    return models.weights(model)


def run_of(train, method, model=None) -> fit.Run:
    return fit.Run(
        model or model_of(train), method, train, RECIPE, Seeds("test"), probe.Probe.draw(train, 40, drawn()), "float32"
    )


# Transplanted layer groups


@pytest.mark.parametrize("groups", [1, 3, 4])
def test_transplant_copies_and_freezes_exactly_the_groups_asked_for(groups, tiny):
    method, surrogate, model = Transplant(surrogate="clean_model", groups=groups), surrogate_of(tiny), model_of(tiny)
    taken = tuple(f"network.{name}." for name in GROUPS[:groups])
    fresh = models.weights(model_of(tiny))
    method.initialise(model, surrogate)
    begin = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in begin.items():
        assert torch.equal(tensor, (surrogate if name.startswith(taken) else fresh)[name]), name
    # the two sources differ wherever something was drawn or has moved
    assert all(
        not torch.equal(surrogate[f"network.block1.{name}"], fresh[f"network.block1.{name}"])
        for name in ("0.weight", "1.running_mean")
    )
    run = run_of(tiny, method, model)
    for _ in range(3):
        run.advance()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, begin[name]) == name.startswith(taken), name
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, begin[name]) == (name in ("mean", "spread")), (
            name
        )  # batch-norm statistics stay live everywhere


def test_transplant_from_a_model_that_does_not_fit(tiny):
    before = models.weights(model_of(tiny))
    for surrogate, found in ((surrogate_of(tiny, width=4), r"\(4, 3, 3, 3\)"), ({}, "none")):
        model = model_of(tiny)
        with pytest.raises(
            Fault, match=rf"'block1' of surrogate 'narrow' .* \(0.weight: {found}, the victim has \(8, 3, 3, 3\)\)"
        ):
            Transplant(surrogate="narrow", groups=2).initialise(model, surrogate)
        assert same(models.weights(model), before)


@pytest.mark.parametrize("groups", [5, 9])
def test_transplant_that_leaves_nothing_to_train(groups, tiny):
    with pytest.raises(Fault, match=f"groups: {groups} leaves nothing to train; the architecture has 5: block1, "):
        run_of(tiny, Transplant(surrogate="clean_model", groups=groups))


# Embeddings


def test_principal_axes_of_known_points():
    """A long line along the fifth dimension, a short one along the eighth."""
    points = torch.full((4, 10), 7.0, dtype=torch.float64)
    points[0, 4] += 10
    points[1, 4] -= 10.5
    points[2, 7] += 3
    points[3, 7] -= 2
    axes = probe.principal_axes(points)
    assert torch.allclose(axes.T @ axes, torch.eye(2, dtype=torch.float64))
    assert (
        axes[4, 0] < -0.99 and axes[7, 1] > 0.99
    )  # the farthest points are the second and the third: they lie on the positive side
    assert torch.allclose(probe.principal_axes(-points), -axes)


def test_principal_axes_of_points_on_a_line():
    axes = probe.principal_axes(torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]], dtype=torch.float64))
    assert (
        torch.allclose(axes[:, 0].abs(), torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)) and (axes[:, 1] == 0).all()
    )


class Colours(torch.nn.Module):
    """A model whose only group gives back the image."""

    def __init__(self):
        super().__init__()
        self.pixels = torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pixels(x).mean((2, 3))

    def layer_groups(self) -> dict:
        return {"pixels": self.pixels}


def test_embedding_of_known_clusters():
    """Three classes at the corners of a triangle of colours: in the plane they are as far apart as in all dimensions."""
    generator, labels = drawn(), torch.arange(3).repeat(80)
    corners = torch.tensor([[60, 60, 60], [200, 60, 60], [60, 200, 200]])
    images = (corners[labels].view(-1, 1, 1, 3) + torch.randint(-5, 6, (240, 8, 8, 3), generator=generator)).to(
        torch.uint8
    )
    points = probe.Probe.draw(split(images, labels), 240, generator).embedding(Colours(), lambda x: x, "pixels")
    assert [point["label"] for point in points] == [label for label in range(3) for _ in range(30)] and {
        point["group"] for point in points
    } == {"pixels"}
    plane = torch.tensor([[point["x"], point["y"]] for point in points]).view(3, 30, 2)
    means, within = plane.mean(1), plane.std(1).max()
    apart = torch.cdist(means, means)
    assert apart[0, 1] > 20 * within and apart[0, 2] > 20 * within and apart[1, 2] > apart[0, 1]
    shuffled = labels[torch.randperm(240, generator=generator)]
    mixed = probe.Probe.draw(split(images, shuffled), 240, generator).embedding(Colours(), lambda x: x, "pixels")
    plane = torch.tensor([[point["x"], point["y"]] for point in mixed]).view(3, 30, 2)
    assert torch.pdist(plane.mean(1)).max() < plane.std(1).max()  # labels that say nothing make no clusters


def test_embedding_shows_the_same_scored_images_of_ten_classes():
    train = coloured([80] * 12, (32, 32), seed=3)
    model, found = (
        models.build("cnn", {"width": 8}, images=train.images, classes=12, generator=drawn(), device="cpu"),
        probe.Probe.draw(train, 960, drawn()),
    )
    before = models.weights(model)
    points = found.embedding(model, lambda x: x, "block2")
    assert [point["label"] for point in points] == [label for label in range(10) for _ in range(30)]
    assert points == found.embedding(model, lambda x: x, "block2") and same(before, models.weights(model))
    # what is drawn is in none of the means: other drawn images leave the plane as it is
    scored = torch.nonzero(~found.reference).flatten()
    others = probe.Probe(found.images.clone(), found.labels, found.reference)
    others.images[scored] = found.images[scored.flip(0)]
    moved = others.embedding(model, lambda x: x, "block2")
    spots = {(round(point["x"], 3), round(point["y"], 3)) for point in points}
    assert points != moved and len(spots & {(round(point["x"], 3), round(point["y"], 3)) for point in moved}) > 100


# What a run leaves


def fitted(train, method) -> fit.Fitted:
    found = probe.Probe.draw(train, 40, drawn())
    return fit.fit(
        model_of(train), method, train, train, RECIPE, Seeds("test"), probe=found, precision="float32", label="test"
    )


def test_a_run_is_embedded_after_its_first_epoch_and_at_its_end(tiny):
    done = fitted(tiny, ERM())
    assert [row["epoch"] for row in done.embeddings] == [1] * 20 + [3] * 20 and done.struck == []
    assert {row["group"] for row in done.embeddings} == {"block2"}
    first, last = ([(row["x"], row["y"]) for row in done.embeddings if row["epoch"] == epoch] for epoch in (1, 3))
    assert first != last


class Late(ERM):
    """Goes back once, from step 12 to step 4, which lies in the first epoch, and trains only the head from there."""

    def __init__(self):
        super().__init__()
        self.kept = None

    def ticks(self, step: int, steps_per_epoch: int) -> bool:
        return step in (4, 12)

    def on_tick(self, run) -> None:
        if run.step == 4:
            self.kept = run.snapshot()
        elif run.stage == "early":
            run.restore(self.kept)
            run.set_rates({name: float(name == "head") for name in run.rates})
            run.stage = "stage 1"


def test_what_a_roll_back_undid_is_kept_apart(tiny):
    done, plain = fitted(tiny, Late()), fitted(tiny, ERM())
    assert [(row["epoch"], row["iterations"]) for row in done.struck] == [(1, 5), (2, 10)]
    assert [(row["epoch"], row["iterations"]) for row in done.history] == [(1, 13), (2, 18), (3, 23)]
    assert done.struck == plain.history[:2] and done.history[0] != plain.history[0]
    # the first epoch is embedded as it stands in the history, not as it was before
    assert [row["epoch"] for row in done.embeddings] == [1] * 20 + [3] * 20
    assert done.embeddings[:20] != plain.embeddings[:20]


def test_ticks_say_which_rates_hold_from_there_on(tiny):
    rates = [tuple(row[f"rate_{name}"] for name in GROUPS) for row in fitted(tiny, Late()).ticks]
    assert rates == [(1.0,) * 5, (0.0,) * 4 + (1.0,), (0.0,) * 4 + (1.0,)]  # at steps 4, 12, and 12 once more


# Figures of single runs, through the command line


@pytest.fixture
def figure(project, monkeypatch, capsys):
    """A function that gives `embedding` these cells and runs a command; the project is that of tests/mini.yaml."""
    monkeypatch.chdir(project.folder)
    text = (ROOT / "tests/mini.yaml").read_text()

    def run(cells: str, *command: str) -> tuple[int, str]:
        written = text.replace("[digits/clean/cnn/erm/0, digits/lsp/cnn/pst/0]", cells)
        assert written != text
        (project.folder / "params.yaml").write_text(written)
        return __main__.main(list(command)), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "cells, words",
    [
        (
            "[digits/clean/cnn/emr/0]",
            "figures.embedding: 'digits/clean/cnn/emr/0' is not a cell of the grid; known: digits/clean/cnn/erm/0, ",
        ),
        ("[digits/lsp/cnn/erm/7]", "(did you mean 'digits/lsp/cnn/erm/0'?)"),
        ("[]", "figures.embedding names no cell; known: digits/clean/cnn/erm/0, "),
        ("[7]", "figures.embedding.cells: must be the name of a cell, found 7"),
        ("digits/clean/cnn/erm/0", "figures.embedding.cells: must be a list, found 'digits/clean/cnn/erm/0'"),
    ],
)
def test_a_figure_of_cells_that_are_not_there(cells, words, figure):
    code, err = figure(cells, "check-params")
    assert code == 2 and words in err and err.count("\n") == 1


def test_a_figure_reads_the_runs_of_its_cells_only(figure):
    figure("[digits/lsp/cnn/pst/0]", "check-params")
    node = grid.node(params.load(), "plot", figure="embedding")
    runs = {f"results/runs/digits/lsp/cnn/pst/0/{name}" for name in ("train.json", "embeddings.csv")}
    assert set(node.inputs) == {"results/summary/histories.csv", "results/sources/plot.sha256"} | runs


def test_a_figure_refuses_a_run_of_other_settings(figure, project):
    folder = project.folder / "results/runs/digits/clean/cnn/erm/0"
    figure("[digits/clean/cnn/erm/0]", "check-params")
    settings = grid.settings(params.load(), "train", dataset="digits", poison="clean", arch="cnn", method="erm", seed=0)
    write_rows(folder / "embeddings.csv", [{"epoch": 1, "group": "block2", "label": 0, "x": 0.0, "y": 0.0}])
    write_json(folder / "train.json", {"settings": settings})
    code, err = figure("[digits/clean/cnn/erm/0]", "plot", "embedding")
    assert code == 2 and "results/summary/histories.csv does not exist" in err  # what was checked so far is good
    write_json(folder / "train.json", {"settings": settings | {"train": settings["train"] | {"lr": 0.2}}})
    code, err = figure("[digits/clean/cnn/erm/0]", "plot", "embedding")
    assert code == 2 and "digits/clean/cnn/erm/0 was made with other settings than params.yaml now has" in err
