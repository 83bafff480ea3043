"""The parts of `python -m benchmarks`, on sizes so small that their numbers mean nothing."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "repeats": 2,
    "batch": 8,
    "piece": 0.0,
    "images": 16,
    "matrix": 16,
    "probe_size": 20,
    "attacked": 8,
    "attack": {"batch": 8, "steps": 1},
    "images_in_memory": 40,
    "streamed": (40, 16),
    "streamed_batch": 8,
    "streamed_network": ("cnn", {"width": 4}),
    "cells": (1,),
    "small": {"cnn w4": ("cnn", {"width": 4})},
    "large": {"speednet w4": ("speednet", {"width": 4})},
    "growth": ((40, 10, 32), (40, 20, 16)),
}


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the package, which lies beside src."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def options(load):
    return load("options").Options(**SIZES)


def tables(lines: list[str]) -> list[list[str]]:
    """The rows of all tables, split into cells, without their heads."""
    rows = [line.strip("| ").split(" | ") for line in "\n".join(lines).splitlines() if line.startswith("| ")]
    return [row for row in rows if any(cell[:1].isdecimal() for cell in row[1:])]


@pytest.mark.parametrize("part, rows", [("plain", 1), ("pst", 1), ("crafting", 6), ("memory", 1), ("growth", 2)])
def test_a_part_prints_its_table(load, options, part, rows):
    found = tables(list(load(part).report(options)))
    assert len(found) == rows
    assert all(len(row) == len(found[0]) and all(row) for row in found)


def test_streaming_has_a_row_for_each_precision(load, options):
    found = tables(list(load("streaming").report(options)))
    assert [row[0] for row in found] == list(options.precisions) and all(len(row) == 4 for row in found)


def test_training_prints_two_tables(load, options):
    found = tables(list(load("training").report(options)))
    assert len(found) == len(options.precisions) * 3
    assert {row[0] for row in found} == {"cnn w4", "speednet w4"}


def test_grid_prints_what_the_commands_cost(load, options, monkeypatch):
    asked = []
    scale = load("scale")
    monkeypatch.setattr(scale.Clock, "measured", lambda self, command: asked.append(command) or (1.5, 0.5, 1.0))
    row = tables(list(load("grid").report(options)))[0]
    assert row[0] == "1" and row[2:] == ["1.50 (0.500)"] * 4
    assert [command for command in asked if "dvc" not in command] == [
        "relearn grid --write",
        "snakemake -n",
        "relearn adopt",
        "snakemake -n",
    ]


def test_the_report_begins_with_the_machine(load, options):
    lines = list(load("__main__").whole([], options))
    assert [
        word for word in ("date", "processor", "torch", "threads: 1", "n = 2") if word not in "\n".join(lines)
    ] == []


def test_all_parts_but_grid_by_default(load):
    main = load("__main__")
    assert set(main.PARTS) - set(main.DEFAULT) == {"grid"}


@pytest.mark.parametrize("arch, frozen", [("cnn", False), ("speednet", True)])
def test_only_what_is_computed_counts_as_flops(load, options, arch, frozen):
    """Of convolutions and the head: one product forward, two backward, but one less in the first layer."""
    runs = load("runs")
    run = runs.new_run((arch, {"width": 4}), runs.random_images(16), options)
    expected = 0

    def count(module, inputs, output):
        nonlocal expected
        first = inputs[0].shape[1] == 3
        weights = module.weight[0].numel()
        products = 1 + (0 if first and frozen else 1) + (0 if first else 1)
        expected += 2 * products * weights * output[0].numel()

    hooks = [
        module.register_forward_hook(count)
        for module in run.training.model.modules()
        if hasattr(module, "weight") and module.weight.ndim in (2, 4)
    ]
    found = runs.flops_per_image(run)
    for hook in hooks:
        hook.remove()
    # the layer after frozen filters needs no gradient of what it gets
    second = 2 * 24 * 9 * 4 * 31 * 31 if frozen else 0
    assert found == expected - second


def test_times_take_turns_and_ratios_are_of_one_round(load):
    timing = load("timing")
    order = []
    times = timing.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, 0.0)
    assert order[-6:] == ["a", "b"] * 3 and {len(values) for values in times.values()} == {3}
    assert timing.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert timing.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.00 (2.00–4.00)"
    assert [timing.number(value) for value in (1234.5, 99.94, 1.005, 0.01234, 0)] == [
        "1,234",
        "99.9",
        "1.00",
        "0.0123",
        "0.00",
    ]


def test_rates_of_check_come_with_intervals(load):
    """Wilson for 8 of 10: (8 + 1.92 ± 1.96 sqrt(8 * 2 / 10 + 0.96)) / 13.84."""
    rates = load("check_rates")
    assert rates.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert rates.wilson(0, 5)[0] == 0 and rates.wilson(5, 5)[1] == 1
    rows = [
        {
            "name": "em",
            "classes": "10",
            "without_clean_is": verdict,
            "plain_kept": kept,
            "pst_kept": "",
            "cpu_seconds": "9",
        }
        for verdict, kept in (("right", "0.1"), ("cannot tell", "0.24"))
    ]
    lines = rates.table([*rows, rows[0] | {"name": "clean", "classes": "2"}])
    assert lines[2].startswith("| clean | 2 | 1 | 1, 0, 0 (21 to 100 % right) | – | 0.10 | – | 9 |")
    assert lines[3].startswith("| em | 10 | 2 | 1, 0, 1 (9 to 91 % right) | – | 0.10 to 0.24 | – | 9 |")
    assert lines[4].startswith("| all |  | 3 | 2, 0, 1 ") and len(lines) == 5


def test_the_peak_of_a_command_is_not_that_of_the_benchmark(load, tmp_path):
    held = b"x" * (300 * 2**20)
    wall, cpu, peak = load("scale").Clock(tmp_path).measured("true")
    assert len(held) > 0 and 0 < peak < 100 and 0 <= cpu <= wall + 0.1


def test_a_command_that_fails_ends_the_benchmark_with_what_it_printed(load, tmp_path):
    with pytest.raises(SystemExit, match=r"cat missing failed:\n.*missing"):
        load("scale").Clock(tmp_path).measured("cat missing")
    with pytest.raises(SystemExit, match="no_such_command failed"):
        load("scale").Clock(tmp_path).measured("no_such_command")
