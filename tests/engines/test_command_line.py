"""Wrong params and wrong commands on the command line: one line says what, and nothing is made."""

import pytest
import torch

from helpers.images import coloured
from helpers.interruptible import is_free
from helpers.params_text import CELL, GOOD, edited
from helpers.projects import link_sources
from relearn import __main__
from relearn.data import save_split
from relearn.engines import locks
from relearn.runtime.files import write_json

EPOCH = ("{epochs: 2", "{epoch: 2")  # two of the errors in unit/test_params.py
TRUE_SEED = ("seeds: [0, 1]", "seeds: [true]")
SEED = "the seed of a cell is a whole number, 0 or more; "


def one_line(done: tuple[int, str, str], *parts: str) -> None:
    """A mistake of the user's: exit code 2, nothing on standard output, one line on standard error that says what."""
    code, out, err = done
    assert code == 2 and out == "" and "Traceback" not in err, (code, out, err)
    assert err.startswith("relearn: ") and err.endswith("\n") and err.count("\n") == 1, err
    assert all(part in err for part in parts), err


@pytest.fixture
def here(project):
    """The project with GOOD as its params.yaml, and nothing made."""
    (project.folder / "params.yaml").write_text(GOOD)
    return project


@pytest.fixture
def main(here, monkeypatch, capsys):
    """`here.run` without a new process, for rules that import torch."""
    link_sources(here.folder)
    monkeypatch.chdir(here.folder)
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = __main__.main(list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("command", [("check-params",), ("train", CELL)])
def test_cli_wrong_params(command, here):
    (here.folder / "params.yaml").write_text(edited(EPOCH))
    one_line(here.run(*command), "params.yaml: train: unknown setting 'epoch'", "did you mean 'epochs'?")
    assert not (here.folder / "results").exists()


def test_cli_several_errors(main, here):
    (here.folder / "params.yaml").write_text(edited(EPOCH, TRUE_SEED))
    code, out, err = main("train", CELL)
    assert (
        code == 2 and out == "" and err.startswith("relearn: params.yaml has 2 errors: (1) ") and err.count("\n") == 1
    )


def test_cli_without_params(main, here):
    (here.folder / "params.yaml").unlink()
    one_line(main("check-params"), "there is no params.yaml here", "relearn preset quickstart")


@pytest.mark.parametrize(
    "command, parts",
    [
        (
            ("train", "digits/clean/cnn/erm"),
            ["relearn train takes DATASET/POISON/ARCH/METHOD/SEED, found 'digits/clean/cnn/erm'"],
        ),
        (("train", f"{CELL}/"), ["relearn train takes DATASET/POISON/ARCH/METHOD/SEED, found"]),
        (("train", ""), ["relearn train takes DATASET/POISON/ARCH/METHOD/SEED, found ''"]),
        (("poison", "digits"), ["relearn poison takes DATASET/POISON, found 'digits'"]),
        (
            ("train", "digits/cleen/cnn/erm/0"),
            ["unknown poison 'cleen' in params.yaml; known: clean, em, hypo (did you mean 'clean'?)"],
        ),
        (
            ("train", "digits/clean/cnn/emr/0"),
            ["unknown method 'emr' in params.yaml; known: erm, pst (did you mean 'erm'?)"],
        ),
        (
            ("evaluate", "digit/clean/cnn/erm/0"),
            ["unknown dataset 'digit' in params.yaml; known: digits (did you mean 'digits'?)"],
        ),
        (("train", "digits/clean/cnn/erm/zero"), [SEED, "found 'zero' in 'digits/clean/cnn/erm/zero'"]),
        (("train", "digits/clean/cnn/erm/-1"), [SEED, "found '-1'"]),
        (("train", "digits/clean/cnn/erm/²"), [SEED, "found '²'"]),
        (("train", "digits/clean/cnn/erm/00"), [SEED, "found '00'"]),
        (("prepare", "mnist"), ["unknown dataset 'mnist' in params.yaml; known: digits"]),
        (
            ("surrogate", "digits/smal"),
            ["unknown surrogate 'smal' in params.yaml; known: small (did you mean 'small'?)"],
        ),
        (
            ("tabulate", "acuracy"),
            ["unknown table 'acuracy' in params.yaml; known: accuracy (did you mean 'accuracy'?)"],
        ),
        (("plot", "../gallery"), ["relearn plot takes FIGURE, found '../gallery'"]),
        (("preset", "quickstrat"), ["unknown preset 'quickstrat'", "did you mean 'quickstart'?"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_cli_wrong_arguments(command, parts, main, here):
    one_line(main(*command), *parts)
    assert not (here.folder / "results").exists()


@pytest.mark.parametrize("command", [("prepare", "images"), ("check-params",)])
def test_cli_missing_folder_of_images(command, main, here):
    images = ("digits: {copies: 1}", "digits: {copies: 1}\n  images: {use: folder, path: data/mine}")
    (here.folder / "params.yaml").write_text(edited(images, ("[digits]", "[images]")))
    one_line(main(*command), "params.yaml names data/mine, which does not exist; correct the path")
    assert not (here.folder / "results").exists()


@pytest.mark.parametrize(
    "command, missing",
    [
        (("surrogate", "digits/small"), "results/data/digits/train.safetensors"),
        (("poison", "digits/clean"), "results/data/digits/train.safetensors"),
        (("train", CELL), "results/poisons/digits/clean/train.safetensors"),
        (("evaluate", CELL), f"results/runs/{CELL}/train.json"),
        (("tabulate", "accuracy"), "results/summary/records.csv"),
        (("plot", "gallery"), "results/data/digits/train.safetensors"),
    ],
)
def test_cli_missing_upstream(command, missing, main, here):
    one_line(main(*command), f"{missing} does not exist; the job before this one makes it")
    made = [path.relative_to(here.folder) for path in (here.folder / "results").rglob("*") if path.is_file()]
    assert [path.parent for path in made] == [locks.FOLDER / command[0]] and is_free(here.folder / made[0])


def test_cli_aggregate_names_the_missing_cells(main):
    one_line(main("aggregate"), "8 of 8 cells have no record: digits/clean/cnn/erm/0, ", " and 3 more; run: snakemake")


@pytest.fixture
def upstream(here):
    """The splits that train, poison and plot read, made of noise."""
    content = coloured([4] * 10, (32, 32), seed=5)
    paths = [f"data/digits/{name}" for name in ("train", "test")] + [
        "poisons/digits/clean/train",
        "poisons/digits/hypo/train",
    ]
    for path in paths:
        save_split(
            here.folder / "results" / f"{path}.safetensors",
            content,
            {"classes": [str(k) for k in range(10)], "settings": {}},
        )
    write_json(here.folder / "results/data/digits/data.json", {"classes": [str(k) for k in range(10)], "settings": {}})
    return here.folder / "results"


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, -1])
def test_cli_truncated_upstream(kept, main, upstream):
    """A copy cut short by a full disk: no prefix of a file may pass for the whole."""
    path = upstream / "poisons/digits/clean/train.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else kept])
    one_line(
        main("train", CELL),
        "results/poisons/digits/clean/train.safetensors is corrupt or not written by relearn",
        "delete it and run again",
    )
    assert not list(upstream.glob("runs/**/*.*"))


def test_cli_truncated_image_for_a_figure(main, upstream):
    path = upstream / "poisons/digits/clean/train.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    one_line(
        main("plot", "gallery"), "results/poisons/digits/clean/train.safetensors is corrupt or not written by relearn"
    )


def test_cli_foreign_upstream(main, upstream):
    from safetensors.torch import save_file

    path = upstream / "data/digits/test.safetensors"
    save_file({"images": torch.zeros(1)}, path)
    one_line(main("train", CELL), "results/data/digits/test.safetensors is corrupt or not written by relearn")


def test_cli_stale_dvc_yaml(main, here):
    """DVC reads dvc.yaml: one that does not follow from params.yaml would run another experiment."""
    remedy = "dvc.yaml is not that of params.yaml; write it with: relearn grid --write"
    one_line(main("check-params"), remedy)
    assert main("grid", "--write") == (0, "", "")
    # a list of sources per rule, prepare, surrogate, two poisons, train and evaluate eight cells, aggregate, a table,
    # a figure
    jobs = 10 + 1 + 1 + 2 + 8 + 8 + 1 + 1 + 1
    assert main("check-params") == (0, f"params.yaml has no errors: 8 cells, {jobs} jobs\n", "")
    written = (here.folder / "dvc.yaml").read_text()
    (here.folder / "dvc.yaml").write_text(written.replace("relearn train", "relearn trian", 1))
    one_line(main("check-params"), remedy)
    (here.folder / "dvc.yaml").unlink()
    one_line(main("check-params"), remedy)


def test_cli_prints_the_cells(main):
    code, out, _ = main("grid")
    assert code == 0 and out.splitlines()[0] == CELL and len(out.splitlines()) == 8


def test_cli_preset_keeps_what_a_user_wrote(main, here):
    said = "relearn: saved params.yaml, which is not a preset, as params.yaml.bak"
    code, out, err = main("preset", "cifar10")
    assert (code, err) == (0, f"{said}\n")
    assert out == (
        "Wrote params.yaml and dvc.yaml, the preset cifar10: 183 cells, 410 jobs.\n"
        "Next: relearn plan shows the cost; snakemake --cores 2 runs it.\n"
    )
    assert (here.folder / "params.yaml").read_text() == (here.folder / "workflow/presets/cifar10.yaml").read_text()
    assert (here.folder / "params.yaml.bak").read_text() == GOOD
    assert main("preset", "quickstart")[::2] == (0, "")
    assert (here.folder / "params.yaml.bak").read_text() == GOOD  # a preset is no loss
    (here.folder / "params.yaml").write_text(f"{GOOD}# another\n")
    assert main("preset", "quickstart")[::2] == (0, f"{said}2\n")
    assert (here.folder / "params.yaml.bak").read_text() == GOOD  # what was saved before stays
    assert (here.folder / "params.yaml.bak2").read_text() == f"{GOOD}# another\n"
    (here.folder / "params.yaml").write_text(GOOD)
    assert main("preset", "quickstart")[::2] == (0, "")  # saved already
    code, out, _ = main("check-params")
    assert code == 0 and out.startswith("params.yaml has no errors: ")
    assert set(main("preset")[1].split()) == {path.stem for path in (here.folder / "workflow/presets").glob("*.yaml")}
