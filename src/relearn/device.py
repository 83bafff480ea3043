"""Which device a step runs on."""

import os

import torch

from relearn.errors import Fault


def choose() -> str:
    """The device named in RELEARN_DEVICE, else a GPU when there is one, else "cpu". Raises Fault when it is not there."""
    wanted = os.environ.get("RELEARN_DEVICE", "")
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if wanted in ("cpu", *gpus):
        return wanted
    if wanted in ("", "cuda") and (gpus or not wanted):
        return gpus[0] if gpus else "cpu"
    raise Fault(f"RELEARN_DEVICE is '{wanted}', which is not here; known: {', '.join(['cpu', *gpus])}")
