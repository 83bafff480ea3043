"""torchvision, also next to a build of torch that its compiled operators do not fit."""

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []  # a schema goes when its Library is collected


def torchvision():
    """The torchvision package, imported when asked for.

    A torchvision built for CUDA cannot load its operators beside a CPU build of torch, and then fails to import because
    it describes two of them, `nms` and `qnms`, unasked. Only in that case both are declared here, without a body:
    networks, transforms and datasets work, calling the operators themselves does not.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported: a second import would take these as they are
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _kept.append(library)
    return importlib.import_module("torchvision")
