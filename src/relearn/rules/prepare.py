"""prepare DATASET: make or fetch a dataset and write its splits."""

import sys
from pathlib import Path

from relearn import grid
from relearn.data import check_dataset, count_in_both, save_split
from relearn.params import Params
from relearn.runtime import files
from relearn.runtime.run_report import run_report

DOWNLOADS = Path("data/downloads")  # outside results/: what is fetched, or put there by hand, outlives `make clean`


def run(params: Params, dataset: str) -> None:
    """Write the train and test split of a dataset, and data.json: sizes, classes, counts, settings."""
    settings = grid.settings(params, "prepare", dataset=dataset)
    made_here = grid.path("prepare", "info", dataset=dataset)
    with run_report(grid.sidecar("prepare", "run.json", dataset=dataset), "cpu", made_here):
        made = params.build("datasets", dataset, DOWNLOADS / dataset)
        check_dataset(dataset, made)
        shared = count_in_both(made)
        if shared:
            print(
                f"prepare {dataset}: {shared} of {len(made.test)} test images are training images too; "
                "accuracy on them says nothing about new images",
                file=sys.stderr,
                flush=True,
            )
        facts = {"classes": made.classes, "settings": settings}
        counts = {}
        for name, split in (("train", made.train), ("test", made.test)):
            save_split(grid.path("prepare", name, dataset=dataset), split, facts)
            counts[name] = split.labels.bincount(minlength=len(made.classes)).tolist()
        size = list(made.train.images.shape[1:3])
        listed = {"files": made.files} if made.files else {}
        info = facts | {"image_size": size, "images_per_class": counts} | listed
        files.write_json(made_here, info)
