"""The commands `list`, `preset` and `plan`, by which an experiment is chosen. Light: torch is imported when it runs."""

import argparse
import json
import shutil
import textwrap

from relearn import params, registry
from relearn.engines import presets
from relearn.engines.arguments import Commands
from relearn.errors import UserError
from relearn.registry import listing
from relearn.rules.planning import estimates
from relearn.runtime import cpu, memory

KINDS = (*registry.KINDS, "presets")
WIDTHS = (60, 120)  # characters of a line, at least and at most


def add_list(commands: Commands, group: str) -> None:
    """Add `relearn list`, which needs no project."""
    parser = commands.add(
        group,
        "list",
        "List what params.yaml can name, or show the settings and the cost of one of these.",
        "relearn list poisons em",
        "Without NAME it prints one sentence for each. With NAME it prints every setting: the allowed values, the "
        "default and the meaning.",
    )
    parser.add_argument("kind", metavar="KIND", nargs="?", help=", ".join(KINDS))
    parser.add_argument("name", metavar="NAME", nargs="?", help="one name of that kind")
    parser.add_argument("--json", action="store_true", help="for programs: JSON in place of text")
    parser.set_defaults(run=_list)


def add_preset(commands: Commands, group: str) -> None:
    """Add `relearn preset`."""
    parser = commands.add(
        group,
        "preset",
        "Choose an experiment: list the presets, or write one to params.yaml.",
        "relearn preset quickstart",
        "A params.yaml that is not a preset is saved first, as params.yaml.bak, then .bak2 and so on. In a clone of "
        "the project dvc.yaml is written too.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a preset; without it they are listed")
    parser.set_defaults(run=_preset)


def add_plan(commands: Commands, group: str) -> None:
    """Add `relearn plan`."""
    parser = commands.add(
        group,
        "plan",
        "Show what the grid will cost before anything runs: passes per image, hours and disk.",
        "relearn plan --speed 9000 --speed resnet50=3000",
        "Hours are at the speed of a few batches timed here, or at speeds that you give.",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"write {estimates.FILE} too: the time and memory that Snakemake then requests on a cluster",
    )
    parser.add_argument(
        "--speed",
        action="append",
        default=[],
        metavar="[ARCH=]NUMBER",
        help="images per second (forward and backward) of another device, for one architecture or for all others; "
        "can be given several times; nothing is measured here then",
    )
    parser.set_defaults(run=_plan)


def _list(options: argparse.Namespace) -> None:
    if options.kind is not None and options.kind not in KINDS:
        of = [kind for kind in registry.KINDS if options.kind in registry.entries(kind)]
        remedy = f"; it is a name: relearn list {of[0]} {options.kind}" if of else ""
        raise UserError(f"unknown kind '{options.kind}'{remedy}; {registry.suggest(options.kind, KINDS)}")
    if options.name is not None:
        found = _described(options.kind, options.name)
        print(json.dumps(found, indent=2) if options.json else _text(found))
        return
    kinds = [options.kind] if options.kind else KINDS
    listed = {kind: presets.summaries() if kind == "presets" else listing.summaries(kind) for kind in kinds}
    if options.json:
        print(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    for kind, summaries in listed.items():
        print(f"{kind} ({len(summaries)}):")
        width = max(map(len, summaries), default=0) + 2
        print("\n".join(_wrapped(summary, f"  {name:<{width}}") for name, summary in summaries.items()), end="\n\n")
    print(f"All settings of one of them: relearn list {options.kind or 'KIND'} NAME")


def _described(kind: str, name: str) -> dict:
    """All that is known of one thing, its cost with default settings included."""
    if kind == "presets":
        return presets.described(name)
    found = listing.described(kind, name)
    from relearn.rules.planning.declared import declared_cost  # it needs torch

    cost = declared_cost(kind, name)
    return found | ({"cost": {"number": cost[0], "unit": cost[1]}} if cost else {})


def _text(found: dict) -> str:
    """What `_described` has, for people."""
    lines = [_wrapped(found["summary"], f"{found['name']}: ", "  "), ""]
    if "settings" not in found:
        lines += [_wrapped(found["description"])] if found["description"] else []
        lines.append(f"{found['cells']} cells, {found['jobs']} jobs")
        return "\n".join([*lines, *(_wrapped(", ".join(found[axis]), f"{axis}: ") for axis in params.AXES)])
    lines += [_wrapped(part) + "\n" for part in found["description"].split("\n\n") if part]
    lines.append("Settings:" if found["settings"] else "No settings.")
    settings = found["settings"]
    for number, setting in enumerate(settings):
        default = "required" if setting["required"] else f"default {json.dumps(setting['default'])}"
        lines.append(_wrapped(f"{setting['accepts']}; {default}", f"  {setting['name']}: ", "      "))
        if number + 1 == len(settings) or settings[number + 1]["meaning"] != setting["meaning"]:
            lines.append(_wrapped(setting["meaning"], "      "))  # one sentence may explain several
    if found["layer_groups"]:
        lines += ["", _wrapped(", ".join(found["layer_groups"]), "Layer groups, shallow to deep: ")]
    if "cost" in found:
        lines += ["", _wrapped(_cost(found["cost"]), "Cost with these defaults: ")]
    return "\n".join([*lines, "", _wrapped(f"{found['file']}. {found['source']}", "Source: ")])


def _cost(cost: dict) -> str:
    if not cost["number"]:
        return "it declares no passes through a network."
    return f"{round(cost['number'], 1):,g} {cost['unit']}."


def _wrapped(text: str, head: str = "", indent: str | None = None) -> str:
    """`text` after `head`, in lines as wide as the terminal."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, WIDTHS[0]), WIDTHS[1])
    indent = " " * len(head) if indent is None else indent
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _preset(options: argparse.Namespace) -> None:
    print("\n".join(presets.names()) if options.name is None else presets.install(options.name))


def _plan(options: argparse.Namespace) -> None:
    checked = params.load()
    cpu.limit_cpu_instructions(checked.compute["isa"])
    memory.keep_freed()
    from relearn.rules.planning import plan  # it needs torch

    print(plan.plan(checked, options.write, options.speed))
