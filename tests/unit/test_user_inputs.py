"""The user's own files and folders: what changes their digest, what is read again, and what is refused."""

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest

from helpers.params_text import edited
from helpers.projects import copy_project, link_sources
from relearn import __main__, grid, params
from relearn.engines import bridge, dvc
from relearn.errors import UserError
from relearn.grid import inputs
from relearn.rules import inputs as rule
from relearn.runtime import image_files
from relearn.runtime.hashing import settings_hash

IMAGES = ("digits: {copies: 1}", "digits: {copies: 1}\n  images: {use: folder, path: data/mine}")
OUTSIDE = ("clean: {}", "clean: {}\n  outside: {use: external, file: data/noise.npy}")
GRID = ("[digits], poisons: [clean, hypo]", "[images, digits], poisons: [clean, outside]")
OLD = 1_000_000_000  # seconds


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A folder of two classes and a file beside it, all old, in a project whose params.yaml names them."""
    copy_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    Path("params.yaml").write_text(edited(IMAGES, OUTSIDE, GRID))
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        write(Path("data/mine", name), name)
    write(Path("data/noise.npy"), "noise")
    return Path("data/mine")


def write(path: Path, text: str, time: float = OLD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time, time))


def digest(path="data/mine") -> str:
    return inputs.digest(inputs._sums(str(path)))


def settled(monkeypatch) -> list[str]:
    """Let no file count as recent; the names of the files that are read from here on."""
    read: list[str] = []
    sum_of = inputs._sum
    monkeypatch.setattr(inputs, "RECENT", -1.0)
    monkeypatch.setattr(inputs, "_sum", lambda path: read.append(Path(path).name) or sum_of(path))
    return read


def overwrite(file: Path) -> None:
    """Other content of the same size under the same times, as an archive unpacked in place leaves it."""
    was = file.stat()
    file.write_text(file.read_text().swapcase())
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def replace(file: Path) -> None:
    """An older file in its place, as `cp -p` and rsync leave it."""
    write(file.with_name("older"), file.read_text().swapcase(), OLD - 1000)
    os.replace(file.with_name("older"), file)


CHANGES = {
    "a file added": lambda mine: write(mine / "train/a/2.png", "x"),
    "a file deleted": lambda mine: (mine / "train/a/1.png").unlink(),
    "a file overwritten": lambda mine: overwrite(mine / "train/a/1.png"),
    "a file replaced by an older one": lambda mine: replace(mine / "train/a/1.png"),
    "two files exchanged": lambda mine: [
        (mine / "x").write_text((mine / "train/a/1.png").read_text()),
        os.replace(mine / "train/b/1.png", mine / "train/a/1.png"),
        os.replace(mine / "x", mine / "train/b/1.png"),
    ],
    "a class renamed": lambda mine: (mine / "train/a").rename(mine / "train/c"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_content_is_seen(mine, change, monkeypatch):
    settled(monkeypatch)
    before = digest()
    assert digest() == before
    CHANGES[change](mine)
    assert digest() != before


def test_what_has_not_moved_is_not_read_again(mine, monkeypatch):
    read = settled(monkeypatch)
    before = digest()
    assert len(read) == 4
    assert digest() == before and len(read) == 4
    os.utime(mine / "train/a/1.png")
    assert digest() == before and len(read) == 5  # read again, and its content is what counts


def test_a_file_that_has_just_changed_is_read_again(mine, monkeypatch):
    """Within the resolution of its time it could change once more, and nothing but its content would tell."""
    read = settled(monkeypatch)
    monkeypatch.setattr(inputs, "RECENT", 3600.0)
    digest()
    digest()
    assert len(read) == 8


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 100_000, '{"train/a/1.png": 3}', '{"train/a/1.png": [[], 3]}']
)
def test_a_damaged_cache_is_made_again(mine, content, monkeypatch):
    settled(monkeypatch)
    before = digest()
    (cache,) = inputs.CACHE.iterdir()
    cache.write_text(content)
    assert digest() == before
    assert len(json.loads(cache.read_text())) == 4


def test_a_folder_is_the_same_wherever_it_lies_and_whatever_it_is_called(mine, tmp_path):
    before = digest()
    shutil.copytree(mine, tmp_path / "elsewhere")
    assert digest(tmp_path / "elsewhere") == before
    write(tmp_path / "other.npy", "noise")
    assert digest(tmp_path / "other.npy") == digest("data/noise.npy")


def test_links_are_followed(mine, tmp_path):
    before = digest()
    shutil.move(mine / "train/a", tmp_path / "a")
    (mine / "train/a").symlink_to(tmp_path / "a")
    (mine / "test/a/1.png").rename(tmp_path / "1.png")
    (mine / "test/a/1.png").symlink_to(tmp_path / "1.png")
    assert digest() == before
    write(tmp_path / "a/2.png", "x")
    assert digest() != before


def test_what_desktops_leave_is_no_content(mine):
    before = digest()
    for name in ("train/a/.DS_Store", "train/Thumbs.db", "__MACOSX/x", ".git/config"):
        write(mine / name, "x")
    assert digest() == before
    assert inputs.HIDDEN == image_files.HIDDEN  # or a change of an image that is read would go unseen


@pytest.mark.parametrize("name", [b"\xff.png", b"two\nlines.png", b"back\\slash.png", "é {x} $y.png".encode()])
def test_every_name_is_a_line(mine, name):
    before = digest()
    file = os.path.join(os.fsencode(mine / "train/a"), name)
    with open(file, "wb"):
        pass
    found = inputs._sums("data/mine")
    assert len(inputs.manifest(found).splitlines()) == 5 and inputs.manifest(found).encode() and digest() != before


def test_what_cannot_be_followed_is_one_line(mine):
    def refused(words: str, path="data/mine"):
        with pytest.raises(UserError, match=words):
            digest(path)

    (mine / "train/a/loop").symlink_to(mine.absolute())
    refused("loop is a link to a folder around it, which has no end; remove the link")
    (mine / "train/a/loop").unlink()
    (mine / "train/a/2.png").symlink_to("nowhere")
    refused("2.png is a link to nothing; remove or correct it")
    (mine / "train/a/2.png").unlink()
    os.mkfifo(mine / "train/a/pipe")
    refused("pipe is neither a file nor a folder")
    refused("does not exist", "data/none")
    refused("null character", "data/\0")


def test_settings_have_the_content_and_not_the_path(mine):
    def identity() -> str:
        checked = params.load()
        return settings_hash(grid.settings(checked, "train", cell=grid.Cell.parse("images/outside/cnn/erm/0")))

    checked = params.load()
    cell = grid.Cell.parse("images/outside/cnn/erm/0")
    settings = grid.settings(checked, "train", cell=cell)
    assert settings["dataset"]["path"] == f"sha256:{digest()}"
    assert settings["poison"]["file"] == f"sha256:{digest('data/noise.npy')}"
    assert "data/" not in json.dumps(settings) and "noise" not in json.dumps(settings)
    before = identity()
    write(Path("data/other/noise.npy"), "other")  # the last part of the path is the same
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("data/noise.npy", "data/other/noise.npy"))
    assert identity() != before
    write(Path("data/other/noise.npy"), "noise")
    assert identity() == before


def test_both_engines_depend_on_the_list_of_what_a_job_reads(mine):
    checked = params.load()
    jobs = {job.command: job for job in grid.jobs(checked)}
    lists = [command for command in jobs if command.startswith("relearn inputs")]
    assert lists == ["relearn inputs datasets/images", "relearn inputs poisons/outside"]
    read = {command: [name for name in job.inputs if "/inputs/" in name] for command, job in jobs.items()}
    assert {command: found for command, found in read.items() if found} == {
        "relearn prepare images": ["results/inputs/datasets/images.sha256"],
        "relearn poison images/outside": ["results/inputs/poisons/outside.sha256"],
        "relearn poison digits/outside": ["results/inputs/poisons/outside.sha256"],
    }
    assert grid.digests(checked, jobs[lists[1]]) == {"poisons.outside.file": digest("data/noise.npy")}
    stages = dvc.yaml.safe_load(dvc.render(checked))["stages"]
    assert [name for name, stage in stages.items() if stage.get("always_changed")] == [
        "inputs-datasets-images",
        "inputs-poisons-outside",
    ]
    watched = {dep for stage in stages.values() for dep in stage["deps"]}
    assert not {"data/mine", "data/noise.npy"} & watched
    assert grid.listing(checked, "poisons", "outside") == f"{digest('data/noise.npy')}  file\n"
    assert grid.listing(checked, "datasets", "images").splitlines()[0].endswith("  path/test/a/1.png")


@pytest.mark.parametrize(
    "argument, words",
    [
        ("dataset/images", "unknown section 'dataset'; known: .*did you mean 'datasets'"),
        ("datasets/image", "unknown dataset 'image' in params.yaml"),
        ("datasets/digits", "datasets.digits names no file or folder of yours"),
        ("images", "relearn inputs takes SECTION/NAME, found 'images'"),
        ("surrogates/small", "unknown section 'surrogates'"),
    ],
)
def test_a_wrong_argument_is_one_line(mine, argument, words):
    with pytest.raises(UserError, match=words):
        grid.job(params.load(), "inputs", argument)


def test_a_job_whose_input_changes_under_it_fails(mine, monkeypatch, capsys):
    """What it wrote is of neither content; an engine then deletes or does not record it."""
    link_sources(Path())
    assert __main__.main(["inputs", "poisons/outside"]) == 0
    monkeypatch.setattr(rule, "run", lambda params, **given: overwrite(Path("data/noise.npy")))
    assert __main__.main(["inputs", "poisons/outside"]) == 2
    assert capsys.readouterr().err == (
        "relearn: files of yours changed while `relearn inputs poisons/outside` read them; run it again\n"
    )


def test_a_job_whose_sources_change_under_it_fails(mine, monkeypatch, capsys):
    """It ran the old code, but its result is newer than the new, so no engine would see that."""
    link_sources(Path())
    source = mine.absolute().parent / "source.py"
    source.write_text("old")
    monkeypatch.setattr(importlib.import_module("relearn.registry.sources"), "rule_sources", lambda rule: (source,))
    monkeypatch.setattr(rule, "run", lambda params, **given: None)
    assert __main__.main(["inputs", "poisons/outside"]) == 0
    for change in (lambda: source.write_text("new"), source.unlink):
        monkeypatch.setattr(rule, "run", lambda params, change=change, **given: change())
        assert __main__.main(["inputs", "poisons/outside"]) == 2
        assert capsys.readouterr().err == (
            "relearn: source files changed while `relearn inputs poisons/outside` ran; run it again\n"
        )


def test_dvc_does_not_record_new_files_beside_old_results(mine, monkeypatch):
    """Snakemake sees them, too, but by a trigger that a profile can switch off."""
    dvc.write(params.load())
    for job in grid.jobs(params.load()):
        for name in job.outputs:
            write(Path(name), name)
    for entry in (("datasets", "images"), ("poisons", "outside")):
        write(Path(f"results/inputs/{'/'.join(entry)}.sha256"), grid.listing(params.load(), *entry))
    ran = []
    monkeypatch.setattr(bridge, "_run", lambda *command: ran.append(command[:2]) or "Nothing to be done")
    monkeypatch.setattr(bridge, "_foreign", lambda jobs: [])
    monkeypatch.setattr(bridge, "_has_settings", lambda *arguments: True)
    assert "outputs recorded by DVC" in bridge.record_in_dvc(params.load())
    assert ("dvc", "commit") in ran
    ran.clear()
    overwrite(mine / "train/a/1.png")
    with pytest.raises(UserError, match="images.sha256 is not the list of your files as they are"):
        bridge.record_in_dvc(params.load())
    assert ("dvc", "commit") not in ran
