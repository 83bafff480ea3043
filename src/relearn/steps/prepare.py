"""prepare DATASET: make or fetch a data set and write its splits."""

from pathlib import Path

from relearn import grid, records, registry
from relearn.data import save_split
from relearn.params import Params

DOWNLOADS = Path("data/downloads")  # outside results/: what is fetched, or put there by hand, outlives `make clean`


def run(params: Params, dataset: str) -> None:
    """Write the train and test split of a data set, and data.json: sizes, classes, counts, settings."""
    out = {name: grid.path("prepare", name, dataset=dataset) for name in grid.STEPS["prepare"].outputs}
    settings = grid.settings(params, "prepare", dataset=dataset)
    with records.provenance(grid.beside("prepare", "run.json", dataset=dataset), "cpu"):
        load = registry.load("datasets", params.entry("datasets", dataset).name)
        made = load(DOWNLOADS / dataset, **params.settings("datasets", dataset))
        facts = {"classes": made.classes, "settings": settings}
        save_split(out["train"], made.train, facts)
        save_split(out["test"], made.test, facts)
        counts = {
            part: split.labels.bincount(minlength=len(made.classes)).tolist()
            for part, split in (("train", made.train), ("test", made.test))
        }
        records.write_json(
            out["info"], facts | {"image_size": list(made.train.images.shape[1:3]), "images_per_class": counts}
        )
