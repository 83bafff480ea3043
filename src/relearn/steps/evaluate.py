"""evaluate CELL: the victim's accuracy on clean test images, as a record that explains itself."""

from relearn import device as devices
from relearn import grid, metrics, models, records, registry
from relearn.data import load_split, load_tensors
from relearn.errors import Fault
from relearn.methods import erm  # noqa: F401, see steps/train.py
from relearn.params import Params
from relearn.seeding import deterministic


def run(params: Params, dataset: str, poison: str, arch: str, method: str, seed: str) -> None:
    """Write record.json: settings and their hash, accuracy of the last epoch, the oracle's best epoch, work, verdict.

    The accuracy is computed anew from the stored weights. Raises Fault when it is not that of the history's last row:
    then weights and history are not of one run.
    """
    coords = {"dataset": dataset, "poison": poison, "arch": arch, "method": method, "seed": seed}
    deterministic(params.compute["threads"])
    device = devices.choose()
    test, facts = load_split(grid.path("prepare", "test", dataset=dataset))
    info = records.read_json(grid.path("train", "info", **coords))
    history = [float(row["test_accuracy"]) for row in records.read_rows(grid.path("train", "history", **coords))]
    with records.provenance(grid.beside("evaluate", "run.json", **coords), device):
        tensors, _ = load_tensors(grid.path("train", "model", **coords))
        use, settings = params.architectures[arch]
        chosen = registry.load("methods", params.entry("methods", method).name)(**params.settings("methods", method))
        model = models.rebuild(
            use,
            settings,
            tensors,
            classes=len(facts["classes"]),
            size=chosen.seen(test.images.shape[1:3]),
            device=device,
        )
        test = test.to(device)
        accuracy = metrics.accuracy(metrics.logits(model, test.images, chosen.view), test.labels)
        if abs(accuracy - history[-1]) > 0.05:
            raise Fault(
                f"{grid.Cell(**coords)}: the stored weights reach {accuracy:.2f} %, the history ends with {history[-1]:.2f} %; run train again"
            )
        verdict = info["verdict"]
        result = {
            "accuracy": accuracy,
            "oracle_accuracy": max(history),
            "oracle_epoch": history.index(max(history)) + 1,
            "passes": info["iterations"] / info["steps"],
            "acm": verdict["acm"],
            "ratio": verdict["acm"] / max(verdict["probe_accuracy"], 1e-9),
            "trapped": verdict["trapped"],
        }
        hashed = {"settings": info["settings"], "settings_hash": records.settings_hash(info["settings"])}
        records.write_json(grid.path("evaluate", "record", **coords), {"cell": info["cell"], "result": result} | hashed)
