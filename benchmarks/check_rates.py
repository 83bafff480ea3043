"""How often is `relearn check` right? On poisoned and clean sets, with clean test images and without.

`python benchmarks/check_rates.py results/poisons/cifar10 --test results/data/cifar10/test.safetensors --names clean em
--out rates.csv` reads ROOT/NAME/train.safetensors, draws `--classes` classes of each for every seed, and appends a row
per run to `--out`. One run gives both verdicts: they differ only in what is concluded from the same trainings. A
verdict is right for `--harmless` sets when it says "no sign of protection", for all others when it says "protected";
"cannot tell" is neither. Whether PST gets past a poison is to be read from the accuracies on clean images beside it.
`--table` prints what is in `--out` as a table, with 95 % intervals (Wilson), and runs nothing.
"""

import argparse
import csv
import itertools
import math
import tempfile
import time
from pathlib import Path

import torch

from relearn.data import Split, load_split, save_split
from relearn.pst.check import run
from relearn.pst.check.conclusion import NO_SIGN, UNKNOWN, conclude, on_hidden
from relearn.pst.check.found import Found, Options
from relearn.runtime.seeding import Seeds


def part(path: Path, kept: list[int], to: Path) -> Path:
    """The images of some classes of a split, as a file of their own."""
    whole, facts = load_split(path)
    rows = torch.nonzero(torch.isin(whole.labels, torch.tensor(kept))).flatten()
    chosen = whole.pick(rows)
    labels = torch.searchsorted(torch.tensor(kept), chosen.labels)
    names = [facts["classes"][label] for label in kept]
    save_split(to, Split(chosen.images, labels, torch.arange(len(rows))), {"classes": names, "settings": {}})
    return to


def judged(answer: str, harmless: bool) -> str:
    """Whether an answer is right."""
    if answer == UNKNOWN:
        return "cannot tell"
    return "right" if (answer == NO_SIGN) == harmless else "wrong"


def row(found: Found, harmless: bool) -> dict:
    """Both verdicts of a run, and the numbers they rest on."""
    plain, pst, probe = found.trials["plain training"], found.trials["PST"], found.untrained
    held_out = found.sizes.held_out
    chance = 1 / len(found.source.classes)
    without = conclude(plain, pst, probe, chance, held_out, 0)
    columns = {"without_clean": without.answer, "without_clean_is": judged(without.answer, harmless)}
    if found.clean_images:
        columns |= {"with_clean": found.conclusion.answer, "with_clean_is": judged(found.conclusion.answer, harmless)}
    for name, trial in (("plain", plain), ("pst", pst)):
        kept = on_hidden(trial, chance, held_out)
        columns |= {
            f"{name}_kept": kept.kept,
            f"{name}_kept_error": kept.error,
            f"{name}_held_out": trial.held_out,
            f"{name}_held_out_hidden": trial.held_out_hidden,
            f"{name}_held_out_blurred": trial.held_out_blurred,
            f"{name}_clean": trial.clean,
        }
    columns |= {"pst_stage": pst.stage, "fine": probe.fine, "coarse": probe.coarse, "fine_by_class": probe.by_class}
    sizes = found.sizes
    return columns | {"images": sizes.images, "epochs": sizes.epochs, "width": sizes.width, "threads": found.threads}


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """The 95 % interval of a rate in 0..1 after so many hits in so many runs. Wilson, 1927."""
    z = 1.96
    middle, spread = hits + z**2 / 2, z * math.sqrt(hits * (runs - hits) / runs + z**2 / 4)
    return max(0.0, (middle - spread) / (runs + z**2)), min(1.0, (middle + spread) / (runs + z**2))


def table(rows: list[dict]) -> list[str]:
    """The lines of a Markdown table of rows of the file: a line per set and number of classes, then one of them all."""
    lines = [
        "| set | classes | runs | without clean images: right, wrong, cannot tell | with | share kept, plain | PST "
        "| seconds of a core |",
        "|:--|--:|--:|:--|:--|:--|:--|:--|",
    ]

    def line(name: str, classes: str, some: list[dict]) -> str:
        cells = [name, classes, str(len(some)), *(_counts(some, column) for column in ("without", "with"))]
        for column, digits in (("plain_kept", 2), ("pst_kept", 2), ("cpu_seconds", 0)):
            found = sorted(float(row[column]) for row in some if row[column])
            ends = dict.fromkeys(f"{value:.{digits}f}" for value in (found[0], found[-1])) if found else ["–"]
            cells.append(" to ".join(ends))
        return "| " + " | ".join(cells) + " |"

    def of(row: dict) -> tuple[str, int]:
        return row["name"], -int(row["classes"])

    for (name, classes), some in itertools.groupby(sorted(rows, key=of), of):
        lines.append(line(name, str(-classes), list(some)))
    return [*lines, line("all", "", rows)]


def _counts(rows: list[dict], column: str) -> str:
    """How often the verdict is right, wrong and neither, and the interval of the rate of right ones."""
    found = [row[f"{column}_clean_is"] for row in rows if row.get(f"{column}_clean_is")]
    if not found:
        return "–"
    low, high = wilson(found.count("right"), len(found))
    counts = ", ".join(str(found.count(kind)) for kind in ("right", "wrong", "cannot tell"))
    return f"{counts} ({100 * low:.0f} to {100 * high:.0f} % right)"


def main() -> None:
    """Append a row per set, number of classes and seed, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--names", nargs="+", default=[])
    parser.add_argument("--harmless", nargs="*", default=["clean", "random"])
    parser.add_argument("--test", type=Path)
    parser.add_argument("--classes", nargs="+", type=int, default=[10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    for name in ("images", "epochs", "width", "threads"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        with given.out.open(encoding="utf-8") as file:
            print("\n".join(table(list(csv.DictReader(file)))))
        return
    for name in given.names:
        for count in given.classes:
            for seed in given.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    _one(given, name, count, seed, Path(folder))


def _one(given: argparse.Namespace, name: str, count: int, seed: int, folder: Path) -> None:
    source = given.root / name / "train.safetensors"
    classes = len(load_split(source)[1]["classes"])
    generator = Seeds("check rates", seed, count).generator("classes")
    kept = torch.randperm(classes, generator=generator)[:count].sort().values.tolist()
    options = Options(
        str(part(source, kept, folder / "train.safetensors")),
        clean=str(part(given.test, kept, folder / "test.safetensors")) if given.test else None,
        minutes=given.minutes,
        seed=seed,
        epochs=given.epochs,
        images=given.images,
        width=given.width,
        threads=given.threads,
    )
    key = {"name": name, "classes": count, "seed": seed}
    begin, busy = time.monotonic(), time.process_time()
    found = key | row(run.look(options), name in given.harmless)
    found |= {"seconds": time.monotonic() - begin, "cpu_seconds": time.process_time() - busy}
    found = {column: f"{value:.4f}" if isinstance(value, float) else value for column, value in found.items()}
    new = not given.out.exists()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(found)
    print(found, flush=True)


if __name__ == "__main__":
    main()
