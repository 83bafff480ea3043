"""The commands `import`, `export` and `protect`: arguments only, so that the command line answers without torch."""

import argparse
import sys

from relearn.engines.arguments import Commands
from relearn.errors import UserError
from relearn.runtime import files, memory

FORMATS = ("safetensors", "npz", "pt", "png", "parquet", "imagefolder")


def add(commands: Commands, group: str) -> None:
    """Add the three commands to a group of those of the command line."""
    _add_protect(commands, group)
    _add_import(commands, group)
    export = commands.add(
        group,
        "export",
        "Write a poisoned training set for others, with a data card and checksums.",
        "relearn export digits/lsp --format npz",
        "The poison is one of a grid that was run, so this works in the folder of its results.",
    )
    export.add_argument("poison", metavar="POISON", help="DATASET/POISON, or a cell that uses the poison")
    export.add_argument("--format", choices=FORMATS, required=True, help="the file format")
    export.add_argument("--out", metavar="FOLDER", help="default: exports/DATASET-POISON-FORMAT")
    export.set_defaults(run=_export)


def _add_protect(commands: Commands, group: str) -> None:
    protect = commands.add(
        group,
        "protect",
        "Poison a folder of images in one command.",
        "relearn protect photos --with lsp --out protected --set epsilon=6",
        "Images may have any size; params.yaml is not read. `relearn list poisons` lists the poisons.",
    )
    protect.add_argument(
        "folder", metavar="FOLDER", help="a folder with one subfolder per class, or with the images of one class"
    )
    protect.add_argument("--with", dest="poison", metavar="POISON", required=True, help="lsp, ar, ops, cuda, ...")
    protect.add_argument("--out", metavar="FOLDER", required=True, help="a new folder for the poisoned images")
    protect.add_argument("--size", type=int, metavar="PIXELS", default=32, help="crafted at this size (default 32)")
    protect.add_argument("--set", dest="given", metavar="NAME=VALUE", action="append", default=[], help="a setting")
    protect.set_defaults(run=_protect)


def _add_import(commands: Commands, group: str) -> None:
    parser = commands.add(
        group,
        "import",
        "Read a published poison, and write a file for the poison `external`.",
        "relearn import perturbation.pt --dataset cifar10",
        "No code in the file is run.",
    )
    parser.add_argument("path", metavar="PATH", help="a file or a folder; docs/formats.md has the layouts")
    parser.add_argument(
        "--dataset", metavar="NAME", help="the prepared dataset it belongs to (default none: images as they are)"
    )
    parser.add_argument("--out", metavar="FILE", help="default: imported/NAME.safetensors")
    parser.add_argument("--labels", metavar="FILE", help="a file with the labels, if they are separate")
    parser.add_argument("--kind", choices=("images", "perturbation"), default="auto", help="what the file holds")
    parser.add_argument("--unit", choices=("pixels", "unit"), default="auto", help="values up to 255, or up to 1")
    parser.add_argument("--axes", choices=("last", "first"), default="auto", help="where the channels are")
    parser.add_argument(
        "--rounding", choices=("half_up", "truncate", "em_legacy"), help="how the file's loader rounds values"
    )
    parser.add_argument(
        "--order", choices=("dataset", "class", "match"), default="auto", help="of its rows, see docs/formats.md"
    )
    parser.add_argument("--rest", choices=("clean",), help="keep training images clean that the file lacks")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> None:
    path = files.expanded(options.path)
    out = files.expanded(options.out or f"imported/{path.stem or 'poison'}.safetensors")
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out} must end in .safetensors, which the poison external reads")
    if out.exists():
        raise UserError(f"{out} exists; remove it, or choose another --out")
    memory.keep_freed()
    from relearn.crafting.exchange.importing import Choices, import_poison  # it needs torch

    choices = Choices(
        dataset=None if options.dataset == "none" else options.dataset,
        labels=files.expanded(options.labels) if options.labels else None,
        **{name: getattr(options, name) for name in ("kind", "unit", "axes", "rounding", "order", "rest")},
    )
    with memory.explained(f"relearn import {path}"):
        manifest = import_poison(path, out, choices)
    for name in ("layout", "kind", "shape", "axes", "unit", "rounding", "order", "labels"):
        print(f"{name}: {manifest[name]}")
    measured = manifest.get("measured")
    if measured:
        print(f"change: L-inf {measured['linf_max']:g} at most, {measured['linf_mean']:.2f} in the mean (1/255)")
        print(f"in params.yaml: {{use: external, file: {out}, {_budget(measured)}}}")
    print(f"wrote {out}")


def _budget(measured: dict) -> str:
    """The settings of `external` that hold for what was measured."""
    if measured["linf_max"] <= 32:
        return f"norm: linf, epsilon: {measured['linf_max']:g}"
    return f"norm: l0, epsilon: {measured['l0_max']:g}" if measured["l0_max"] <= 16 else "norm: none"


def _export(options: argparse.Namespace) -> None:
    name = "-".join([*options.poison.split("/")[:2], options.format])
    out = files.expanded(options.out or f"exports/{name}")
    from relearn.crafting.exchange.exporting import export_poison  # it needs torch

    manifest = export_poison(options.poison, options.format, out)
    print(f"wrote {manifest['images'][0]} images to {out}")


def _protect(options: argparse.Namespace) -> None:
    if not 4 <= options.size <= 1024:
        raise UserError(f"--size is a number of pixels from 4 to 1024, found {options.size}")
    path = files.expanded(options.folder)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give one with images, or with a folder per class")
    memory.keep_freed()
    from relearn.crafting.exchange.protecting import protect  # it needs torch

    with memory.explained("relearn protect"):
        manifest = protect(path, options.poison, files.expanded(options.out), options.size, tuple(options.given))
    change = manifest["measured"]["root_mean_square_mean"]
    print(f"wrote {manifest['images']} images to {options.out}; change {change:.2f}/255 (root mean square)", flush=True)
    print("no perturbation is safe: docs/formats.md says what undoes it", file=sys.stderr)
