"""Made-up inputs of the figures, and what is read off a drawn one."""

import numpy
import pandas

from relearn import registry

POISONS, METHODS, EPOCHS = ("tap", "clean"), ("erm", "pst"), 6


def frames(archs=("resnet18",), seeds=(0, 1)):
    """Records and histories of a small grid; only resnet18 has a stem."""
    records, histories = [], []
    grid = (
        (arch, poison, method, seed) for arch in archs for poison in POISONS for method in METHODS for seed in seeds
    )
    for arch, poison, method, seed in grid:
        cell = {"dataset": "toy", "poison": poison, "arch": arch, "method": method, "seed": seed}
        cell |= {"method_use": method, "poison_use": poison}
        final = 25.0 if (poison, method) == ("tap", "erm") else 80.0 + seed
        records.append({**cell, "accuracy": final, "passes": 1.0})
        for epoch in range(1, EPOCHS + 1):
            stage = "" if method == "erm" else "early" if epoch < 3 else f"stage {epoch // 3}"
            groups = {"acm_stem": 0.2 if arch == "resnet18" else numpy.nan, "acm_deep": 0.1 * epoch}
            histories.append(
                {**cell, "epoch": epoch, "test_accuracy": final * epoch / EPOCHS, "stage": stage, **groups}
            )
    return pandas.DataFrame(records), pandas.DataFrame(histories)


def examples(poisons=POISONS):
    clean = numpy.full((3, 8, 8, 3), 100, "uint8")
    example = {"clean": clean, "poisoned": clean + numpy.uint8(20), "labels": ["cat", "dog", "fire_engine"]}
    return {("toy", poison): example | {"use": poison} for poison in poisons}


CELLS = ["toy/clean/cnn/erm/0", "toy/tap/cnn/pst/0"]
STUDY = {"erm": ("erm", 0), "half_1": ("transplant", 1), "half_2": ("transplant", 2), "random_1": ("random_frozen", 1)}


def study(seeds=(0, 1), **more):
    """Records and histories of a study of shallow groups.

    The accuracy is 20 for erm on tap, then 10 more for each frozen group.
    """
    cells = [("clean", "erm", 90.0)] + [
        ("tap", method, 20.0 + 10 * frozen) for method, (_, frozen) in (STUDY | more).items()
    ]
    records, histories = [], []
    for poison, method, accuracy in cells:
        use, frozen = (STUDY | more)[method]
        for seed in seeds:
            cell = {"dataset": "toy", "poison": poison, "arch": "cnn", "method": method, "seed": seed}
            cell |= {"method_use": use, "poison_use": poison}
            records.append({**cell, "accuracy": accuracy + seed})
            rates = {f"rate_{name}": float(k >= frozen) for k, name in enumerate(("stem", "middle", "head"))}
            # by the second epoch every method slows its groups: only what is frozen from the first step counts
            histories += [{**cell, "epoch": 1, **rates}, {**cell, "epoch": 2, **dict.fromkeys(rates, 0.0)}]
    return pandas.DataFrame(records), pandas.DataFrame(histories)


def embedded():
    """The embeddings and histories of two cells: two classes of three images, epochs 1 and 7, apart in the end."""
    points = [
        {"cell": cell, "epoch": epoch, "group": "middle", "label": label, "x": epoch * side + k / 10, "y": k / 10}
        for cell in CELLS
        for epoch in (1, 7)
        for label, side in (("cat", -1), ("dog", 1))
        for k in range(3)
    ]
    rows = []
    for cell in CELLS:
        coords = dict(zip(("dataset", "poison", "arch", "method", "seed"), cell.split("/"), strict=True))
        rows += [
            {**coords, "seed": 0, "epoch": epoch, "acm_middle": 0.1 * epoch, "test_accuracy": 10.0 * epoch}
            for epoch in (1, 7)
        ]
    return pandas.DataFrame(points), pandas.DataFrame(rows)


def timeline():
    """Probes, history and train.json of a run of 8 steps in epochs of 2: a trap at step 4, and back to step 2."""
    probes, cell = [], {"dataset": "toy", "poison": "tap", "arch": "cnn", "method": "pst", "seed": 0}
    for steps_taken, acm, next_step in ((0, 0.1, 0), (2, 0.4, 2), (4, 0.9, 2)):
        trap = steps_taken != next_step
        probes.append(
            {
                "cell": CELLS[1],
                "steps_taken": steps_taken,
                "step": steps_taken,
                "stage": "early",
                "probe_accuracy": 0.5,
                "hidden_accuracy": 0.2,
                "kept": None if steps_taken == 0 else 0.25,
                "acm_middle": acm,
                "next_step": next_step,
                "next_stage": "stage 1" if trap else "early",
                "steps": 8,
                "rate_stem": 0.0 if trap else 1.0,
                "rate_middle": 0.0 if trap else 1.0,
                "rate_head": 1.0,
            }
        )
    rows = [
        {"steps_taken": i, "step": s, "test_accuracy": a, "acm_middle": 0.4, "probe_accuracy": 0.8}
        for i, s, a in ((2, 2, 30.0), (6, 4, 40.0), (10, 8, 60.0))
    ]
    rolled_back = [{"steps_taken": 4, "step": 4, "test_accuracy": 10.0, "acm_middle": 0.9, "probe_accuracy": 0.5}]
    method = {"use": "pst", "kept_trapped": 0.4}
    settings = {"train": {"lr": 0.2, "warmup_steps": 0, "schedule": "cosine"}, "method": method}
    run = {
        "cell": cell,
        "settings": settings,
        "steps_taken": 10,
        "steps": 8,
        "rolled_back": rolled_back,
        "verdict": {"group": "middle"},
    }
    return pandas.DataFrame(probes), pandas.DataFrame([{**cell, **row} for row in rows]), {CELLS[1]: run}


CLASSES = {"toy": 10}


def draw(name, *frame, **settings):
    return registry.load("figures", name)(*frame, **settings)


def titles(figure):
    return [axis.get_title() or axis.get_title(loc="left") for axis in figure.axes]


def words(axis):
    return [text.get_text() for text in axis.texts]
