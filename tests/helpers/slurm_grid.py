"""The grid that the tests run on Slurm, and a method of theirs that takes long or fails."""

CONTENT = {
    "train": {"epochs": 5, "probe_size": 200, "warmup_steps": 5, "checkpoint_epochs": 1},
    "datasets": {"digits": {"copies": 1}},
    "poisons": {
        "clean": {},
        "hypo": {"surrogate": "small", "steps": 1},
        "theirs": {"use": "external", "file": "data/theirs.npy"},
    },
    "surrogates": {"small": {"arch": "cnn", "epochs": 1}},
    "architectures": {"cnn": {"width": 4}},
    "methods": {"erm": {}, "slow": {}},
    "grid": {
        "main": {
            "datasets": ["digits"],
            "poisons": ["hypo", "theirs"],
            "architectures": ["cnn"],
            "methods": ["erm"],
            "seeds": [0],
        },
        "slow": {
            "datasets": ["digits"],
            "poisons": ["clean"],
            "architectures": ["cnn"],
            "methods": ["slow"],
            "seeds": [0, 1],
        },
    },
    "tables": {"summary": {}},
    "figures": {"trap_curves": {}},
}
METHOD = '''"""Plain training that stops before its fourth epoch until there is a file `awake`; notes where it was."""

import os
import time
from pathlib import Path

from relearn.methods.erm import ERM
from relearn.registry import register


@register
class Slow(ERM):
    """Plain training, with a pause."""

    def __init__(self):
        super().__init__()

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        return step % steps_per_epoch == 0

    def on_probe(self, training) -> None:
        epoch = training.step // training.steps_per_epoch
        with open(f"epochs.{os.environ.get('SLURM_JOB_ID')}", "a") as file:
            print(epoch, file=file)
        while epoch == 3 and not Path("awake").exists():
            time.sleep(0.5)
'''
