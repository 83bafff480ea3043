"""redraw FOLDER: the figures of published records and histories, without the grid they come from."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from PIL import Image

from relearn import params, registry
from relearn.errors import UserError, listed, shown
from relearn.reporting.rendering import save_figure
from relearn.rules.plot import GATHERED
from relearn.runtime import files
from relearn.runtime.yaml_loader import read_yaml

FILE = "figures.yaml"
KEYS = ("figures", "classes")


def run(folder: Path, wanted: Iterable[str] = (), suffix: str = "png") -> list[Path]:
    """Draw the figures that FOLDER/figures.yaml lists, or those of `wanted`, into FOLDER, and return their paths.

    Its section `figures` is as in params.yaml; `classes` gives the number of classes of each dataset, for figures that
    ask for it. Records and histories are records.csv and histories.csv beside it, as `relearn aggregate` writes them.
    Raises UserError for what is missing or wrong in any of these, and for a figure that needs more.
    """
    content = _content(folder / FILE)
    known = params.Params(content)
    for name in wanted or known.names("figures"):
        if name not in known.names("figures"):
            raise UserError(f"{folder / FILE} has no figure '{name}'; {registry.suggest(name, known.names('figures'))}")
        needs = known.entry("figures", name).arguments
        if more := [need for need in needs if need not in (*GATHERED, "classes")]:
            raise UserError(
                f"{folder / FILE}: {name} is drawn from {', '.join(more)}, which are not published; take it out"
            )
    done = []
    for name in wanted or known.names("figures"):
        given = [_given(folder, content, need) for need in known.entry("figures", name).arguments]
        done.append(folder / f"{name}.{suffix}")
        save_figure(known.build("figures", name, *given), done[-1])
        if suffix == "png":
            _shrink(done[-1])
    return done


def _shrink(path: Path) -> None:
    """Write a PNG again with fewer bytes for the same pixels: published ones are part of every clone and page."""
    with Image.open(path) as image, files.atomic(path) as temporary:
        image.convert("RGB").save(temporary, optimize=True, dpi=image.info["dpi"])


def _given(folder: Path, content: dict, need: str) -> dict | pd.DataFrame:
    if need == "classes":
        return content.get("classes") or {}
    return pd.DataFrame(files.read_rows(folder / f"{need}.csv", GATHERED[need]))


def _content(path: Path) -> dict:
    """What figures.yaml says. Raises UserError that lists every error in it."""
    if not path.exists():
        raise UserError(f"{path} does not exist; it lists the figures, as the section `figures` of params.yaml does")
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("figures"), dict):
        raise UserError(f"{path} must be a mapping with the section `figures`, found {shown(content)}")
    found = [f"unknown section '{key}'; {registry.suggest(key, KEYS)}" for key in content if key not in KEYS]
    for name, settings in content["figures"].items():
        found += params.entry_errors("figures", name, settings, content)
    classes = content.get("classes") or {}
    if not isinstance(classes, dict):
        found.append(f"classes must be a mapping of datasets to numbers, found {shown(classes)}")
    else:
        words, accepts = registry.TYPES["PositiveInt"]
        found += [f"classes.{key}: must be {words}, found {shown(n)}" for key, n in classes.items() if not accepts(n)]
    if found:
        many = f"{path} has {len(found)} errors: {listed(found)}"
        raise UserError(f"{path}: {found[0]}" if len(found) == 1 else many)
    return content
