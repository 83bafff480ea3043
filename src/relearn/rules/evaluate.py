"""evaluate CELL: the victim's accuracy on clean test images, as a record that explains itself."""

from relearn import grid
from relearn.data import load_beside, load_tensors
from relearn.errors import UserError
from relearn.methods import erm  # noqa: F401, see rules/train.py
from relearn.params import Params
from relearn.probing import metrics
from relearn.runtime import device as devices
from relearn.runtime import files, structures
from relearn.runtime.hashing import settings_hash
from relearn.runtime.run_report import run_report
from relearn.runtime.seeding import deterministic
from relearn.training import models

#: percent by which two evaluations of the same weights may differ, on two kinds of processor
TOLERANCES = {"float32": 0.05, "bfloat16": 0.5}


def run(params: Params, cell: grid.Cell) -> None:
    """Write record.json: settings and their hash, accuracy of the last epoch, the oracle's best epoch, work, verdict.

    The accuracy is computed again from the stored weights. Raises UserError when it is not that of the history's last
    row: then weights and history are not of one run.
    """
    deterministic(params.compute["threads"])
    device = devices.choose()
    info = files.read_json_of(vars(cell), cell.path("train", "info"), structures.TRAIN_INFO)
    test, facts = load_beside(cell.path("prepare", "test"), info["settings"])
    history = files.read_rows(cell.path("train", "history"), structures.HISTORY)
    record = cell.path("evaluate", "record")
    with run_report(grid.sidecar("evaluate", "run.json", **vars(cell)), device, record):
        weights, found = load_tensors(cell.path("train", "model"))
        if settings_hash(found["settings"]) != settings_hash(info["settings"]):
            raise UserError(f"{cell}: model.safetensors and train.json are not of one run: run train again")
        arch, settings = params.architectures[cell.arch]
        method = params.build("methods", cell.method)
        method.at_stage(history[-1]["stage"])
        size = method.input_size(tuple(test.images.shape[1:3]))
        how = {"device": device, "precision": info["precision"]}
        model = models.rebuild(arch, settings, weights, classes=len(facts["classes"]), size=size, **how)
        test = test.to(device)
        accuracy = metrics.accuracy(metrics.logits(model, test.images, method.eval_transform), test.labels)
        if abs(accuracy - history[-1]["test_accuracy"]) > TOLERANCES[info["precision"]]:
            raise UserError(
                f"{cell}: the stored weights reach {accuracy:.2f} %, the history ends with "
                f"{history[-1]['test_accuracy']:.2f} %; "
                "they are not of one run: run train again"
            )
        result = _result(accuracy, history, info)
        hashed = {"settings": info["settings"], "settings_hash": settings_hash(info["settings"])}
        files.write_json(record, {"cell": info["cell"], "result": result} | hashed)


def _result(accuracy: float, history: list[dict], info: dict) -> dict:
    verdict, best = info["verdict"], max(history, key=lambda row: row["test_accuracy"])
    return {
        "accuracy": accuracy,
        "oracle_accuracy": best["test_accuracy"],
        "oracle_epoch": best["epoch"],
        "passes": info["passes"],
        "acm": verdict["acm"],
        "kept": verdict["kept"],
        "verdict": verdict["verdict"],
    }
