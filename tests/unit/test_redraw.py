"""relearn redraw: the figures of published records, in their folder, and what is wrong with what it reads."""

import shutil

import pytest

from helpers.projects import ROOT
from relearn import __main__

PUBLISHED = sorted(path.parent for path in (ROOT / "docs/results").glob("*/figures.yaml"))


@pytest.fixture
def folder(tmp_path):
    for name in ("records.csv", "histories.csv"):
        shutil.copy(ROOT / "docs/results/defences" / name, tmp_path / name)
    return tmp_path


def redraw(capsys, *arguments) -> tuple[int, str, str]:
    code = __main__.main(["redraw", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_figures_are_drawn_beside_their_records(folder, capsys):
    (folder / "figures.yaml").write_text(
        "classes: {cifar10_jpeg: 10}\nfigures:\n  half: {use: accuracy_matrix, relative: true}\n  trap_curves: {}\n"
    )
    code, out, _ = redraw(capsys, folder)
    assert code == 0 and out.split() == [str(folder / "half.png"), str(folder / "trap_curves.png")]
    first = (folder / "half.png").read_bytes()
    assert redraw(capsys, folder, "half", "--format", "pdf")[1].split() == [str(folder / "half.pdf")]
    assert first.startswith(b"\x89PNG") and (folder / "half.pdf").read_bytes().startswith(b"%PDF")
    redraw(capsys, folder, "half")
    assert (folder / "half.png").read_bytes() == first


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda path: path.name)
def test_what_is_published_lists_its_figures(published, tmp_path, capsys):
    """One of them is drawn, which reads all of the list; the picture of every one is there and small."""
    for name in ("figures.yaml", "records.csv", "histories.csv"):
        shutil.copy(published / name, tmp_path / name)
    names = [line.split(":")[0].strip() for line in (published / "figures.yaml").read_text().splitlines()]
    names = names[names.index("figures") + 1 :]
    assert names and redraw(capsys, tmp_path, names[0])[0] == 0
    sizes = {name: (published / f"{name}.png").stat().st_size for name in names}
    assert max(sizes.values()) < 200_000, sizes


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "figures.yaml does not exist; it lists the figures"),
        ("[]", "must be a mapping with the section `figures`, found []"),
        ("figures: {acm_curve: {}}", "unknown figure 'acm_curve' in figures; known:"),
        ("figures: {trap_curves: {colour: red}}", "figures.trap_curves: unknown setting 'colour'"),
        ("figures: {gallery: {}}", "gallery is drawn from examples, which are not published; take it out"),
        ("figures: {trap_curves: {}}\nclass: {}", "unknown section 'class'; known: classes, figures"),
        ("figures: {trap_curves: {}}\nclasses: {a: 0}", "classes.a: must be a whole number from 1 to 1,000,000"),
        ("figures: {a: {use: b}, c: {use: d}}", "figures.yaml has 2 errors"),
    ],
)
def test_what_is_wrong_with_the_list(folder, text, words, capsys):
    if text is not None:
        (folder / "figures.yaml").write_text(text)
    code, _, err = redraw(capsys, folder)
    assert code == 2 and words in err


def test_what_is_missing(folder, capsys):
    (folder / "figures.yaml").write_text("figures: {accuracy_matrix: {}}")
    code, _, err = redraw(capsys, folder, "matrix")
    assert code == 2 and "figures.yaml has no figure 'matrix'; known: accuracy_matrix" in err
    (folder / "records.csv").unlink()
    code, _, err = redraw(capsys, folder)
    assert code == 2 and "records.csv does not exist" in err
