"""What reads the images of other jobs: a poison that mixes others, and a method that is given clean images."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from helpers.params_text import edited
from relearn import __main__, grid, params
from relearn.crafting.perturbation import apply
from relearn.data import load_split
from relearn.errors import UserError
from relearn.methods.clean_added import CleanAdded
from relearn.poisons.mixture import mixture

MIXED = edited(
    ("  em: {arch: cnn}\n", "  em: {arch: cnn, rounds: 1}\n  mix: {use: mixture, poisons: [hypo, deep]}\n"),
    ("  clean: {}\n", "  clean: {}\n  deep: {use: mixture, poisons: [clean, noise]}\n  noise: {use: random}\n"),
    ("  pst: {}\n", "  some: {use: clean_added, images: 40}\n"),
    ("[clean, hypo]", "[mix]"),
)


TABLES = "  benchmark: {}\n  paired: {}\n  published: {file: theirs.csv}\n"
THEIRS = """\
dataset,poison,method,network,accuracy,n,clean,paper,place,note
digits,mix,some,a network,50,,,A paper,Table 1,
"""


def loaded(text: str, folder: Path) -> params.Params:
    (folder / "params.yaml").write_text(text)
    return params.load(folder / "params.yaml")


# The grid


def test_poisons_come_after_those_they_mix(tmp_path):
    found = loaded(MIXED, tmp_path)
    jobs = {job.command.removeprefix("relearn "): job for job in grid.jobs(found)}
    wanted = [command for command in jobs if command.split()[0] in ("surrogate", "poison")]
    assert wanted == [
        "surrogate digits/small",
        *(f"poison digits/{name}" for name in ("hypo", "clean", "noise", "deep", "mix")),
    ]
    inputs = jobs["poison digits/mix"].inputs
    assert [name for name in inputs if "/poisons/" in name] == [
        f"results/poisons/digits/{name}/train.safetensors" for name in ("hypo", "deep")
    ]
    assert jobs["poison digits/mix"].keys == ("compute", "poisons.mix")
    made: set[str] = set()
    for job in jobs.values():
        assert all(name in made for name in job.inputs if name.startswith("results")), job.command
        made |= set(job.outputs)


def test_only_a_method_that_is_given_clean_images_reads_them(tmp_path):
    found = loaded(MIXED, tmp_path)
    reads = {
        method: "results/data/digits/train.safetensors" in grid.job(found, "train", f"digits/mix/cnn/{method}/0").inputs
        for method in ("erm", "some")
    }
    assert reads == {"erm": False, "some": True}


def test_the_settings_of_a_cell_reach_back_to_all_poisons_that_are_mixed(tmp_path):
    found = loaded(MIXED, tmp_path)
    settings = grid.settings(found, "train", cell=grid.Cell.parse("digits/mix/cnn/erm/0"))["poison"]["mixed_settings"]
    assert settings["hypo"] == grid.settings(found, "poison", dataset="digits", poison="hypo")
    assert settings["deep"]["poison"]["mixed_settings"]["noise"]["poison"]["use"] == "random"
    weaker = loaded(MIXED.replace("use: random", "use: random, epsilon: 4"), tmp_path)
    assert grid.settings(weaker, "poison", dataset="digits", poison="mix")["poison"]["mixed_settings"] != settings


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("[clean, noise]", "[clean, mix]", "poisons.deep: it mixes itself, deep > mix > deep; take one of them out"),
        ("[clean, noise]", "[deep]", "poisons.deep: it mixes itself, deep > deep; take one of them out"),
        ("[clean, noise]", "[noise, noise]", "poisons.deep: it mixes 'noise' twice; name each poison once"),
        ("[clean, noise]", "[nois]", r"poisons.deep.poisons: 'nois' is not in poisons; .*did you mean 'noise'"),
        ("[clean, noise]", "[]", "poisons.deep.poisons: must be a list of at least one, found"),
        ("[clean, noise]", "noise", "poisons.deep.poisons: must be a list, found 'noise'"),
        ("[clean, noise]", "[1]", "poisons.deep.poisons: must be the name of a poison, found 1"),
        (", poisons: [clean, noise]", "", "poisons.deep: setting 'poisons' is missing"),
        ("images: 40", "images: 0", "methods.some.images: must be a whole number from 1 to 1,000,000, found 0"),
    ],
)
def test_mixtures_that_cannot_be_made_are_one_line(old, new, words, tmp_path):
    assert old in MIXED
    with pytest.raises(UserError, match=words) as error:
        loaded(MIXED.replace(old, new), tmp_path)
    assert "\n" not in str(error.value) and " errors: " not in str(error.value)


# The images


def test_a_mixture_has_each_image_of_one_of_its_poisons(odd, craft):
    made = craft("mixture", odd)
    poisoned, _ = apply(odd.images, mixture(odd, made, poisons=["one", "two"]))
    of = torch.stack([(poisoned == part.images).flatten(1).all(1) for part in made.mixed.values()])
    assert (of.sum(0) == 1).all() and 0.3 < of[0].float().mean() < 0.7
    swapped, _ = apply(odd.images, mixture(odd, made, poisons=["two", "one"]))
    assert not torch.equal(poisoned, swapped)


def test_a_mixture_of_other_images_is_refused(tiny, odd, craft):
    made = craft("mixture", tiny)
    for other in (odd, tiny.pick(torch.arange(79, -1, -1))):
        made.mixed["two"] = other
        with pytest.raises(UserError, match="test: two was made from other images; run its poison job again"):
            mixture(tiny, made, poisons=["one", "two"])


def clean_rows(train, clean) -> torch.Tensor:
    return (train.images == clean.images).flatten(1).all(1)


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_clean_images_stand_in_the_place_of_poisoned_ones(tiny):
    poisoned = tiny.with_images(255 - tiny.images)
    found = {count: CleanAdded(images=count).with_clean(poisoned, tiny, drawn()) for count in (10, 40, 80)}
    for count, train in found.items():
        rows = clean_rows(train, tiny)
        assert rows.sum() == count and torch.equal(train.labels, tiny.labels)
        assert torch.equal(tiny.labels[rows].bincount(), torch.full((10,), count // 10))
        assert torch.equal(train.images[~rows], poisoned.images[~rows])
    assert (clean_rows(found[40], tiny) >= clean_rows(found[10], tiny)).all()
    assert torch.equal(poisoned.images, 255 - tiny.images)  # it writes on nothing that it is given
    with pytest.raises(UserError, match="clean_added: images is 81, but the training set has 80; give fewer"):
        CleanAdded(images=81).with_clean(poisoned, tiny, drawn())


def test_clean_images_alone_are_repeated(tiny):
    poisoned = tiny.with_images(255 - tiny.images)
    train = CleanAdded(images=30, alone=True).with_clean(poisoned, tiny, drawn())
    among = clean_rows(CleanAdded(images=30).with_clean(poisoned, tiny, drawn()), tiny)
    assert len(train) == 80 and torch.equal(train.images[:30], tiny.images[among])
    assert torch.equal(train.images[30:60], train.images[:30]) and torch.equal(train.labels[60:], train.labels[:20])


# Jobs


@pytest.fixture
def made(tmp_path, monkeypatch) -> params.Params:
    """A project in which every job of MIXED up to the records of one seed is done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    Path("theirs.csv").write_text(THEIRS)
    text = (
        MIXED.replace("  accuracy: {}\n", TABLES)
        .replace("epochs: 2, batch: 64", "epochs: 1, batch: 64, probe_size: 100")
        .replace("[0, 1]", "[0]")
    )
    Path("params.yaml").write_text(text.replace("hypo: {surrogate: small}", "hypo: {surrogate: small, steps: 1}"))
    for job in grid.jobs(params.load()):
        if job.rule != "plot":
            assert __main__.main(job.command.split()[1:]) == 0, job.command
    return params.load()


def test_the_jobs_of_a_mixture_run(made):
    splits = {
        name: load_split(grid.path("poison", "train", dataset="digits", poison=name))[0]
        for name in ("hypo", "deep", "mix")
    }
    same = {name: clean_rows(splits["mix"], splits[name]) for name in ("hypo", "deep")}
    assert (same["hypo"] | same["deep"]).all() and all(0.3 < rows.float().mean() < 0.7 for rows in same.values())
    record = json.loads(Path("results/metrics/digits/mix/cnn/some/0/record.json").read_text())
    assert list(record["settings"]["poison"]["mixed_settings"]) == ["deep", "hypo"]
    histories = [Path(f"results/runs/digits/mix/cnn/{method}/0/history.csv").read_text() for method in ("erm", "some")]
    assert histories[0] != histories[1]
    seconds = Path("results/summary/aggregate.seconds.csv").read_text().splitlines()
    assert [line.split(",")[-4] for line in seconds] == ["method", "erm", "some"]
    tables = {name: Path(f"results/tables/{name}.md").read_text() for name in ("benchmark", "paired", "published")}
    assert "| digits | cnn | some | " in tables["benchmark"] and "none of one pair" in tables["paired"]
    assert "| 50.00 | – | – | a network | A paper, Table 1 |" in tables["published"]
    assert Path("results/inputs/tables/published.sha256").read_text().endswith("  file\n")
    # a run that was fetched has no report; then there is nothing to say
    for path in itertools.chain(Path("results/runs").rglob("train.run.json")):
        path.unlink()
    assert __main__.main(["aggregate"]) == 0 and not Path("results/summary/aggregate.seconds.csv").exists()
