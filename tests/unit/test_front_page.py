"""The numbers of README.md are those of the results that it names."""

import re

import pandas

from helpers.projects import ROOT

RESULTS = ROOT / "docs/results/pst_gpu"
ROW = re.compile(
    r"^\| (\w+) \| ([\d.]+)[^|]* \| ([\d.]+)[^|]* \| (\d+) % \| ([\d, ]+) \| ([\d.]+)(?: to ([\d.]+))? \| ([^|]*) \|$",
    re.M,
)
PAPERS = {"UEraser-Max": "ueraser_max", "JPEG": "jpeg_10", "D-VAE": "d_vae", "RSK and frequency filter": "rsk_ff"}
NEEDS_MORE = ("avatar", "le_jcdp", "bridgepure_500", "bridgepure_4000", "eclipse")  # clean images, or a model of others
CLEAN = 94.0  # where a source does not say


def test_the_table_is_that_of_the_records():
    rows = ROW.findall((ROOT / "README.md").read_text())
    assert len(rows) == 14
    found = pandas.read_csv(RESULTS / "records.csv")
    found = found[found["arch"] == "speednet"]
    clean = found[(found["method"] == "erm") & (found["poison"] == "clean")]["accuracy"].mean()
    for poison, erm, pst, share, seeds, least, most, _ in rows:
        of = {name: found[(found["poison"] == poison) & (found["method"] == name)] for name in ("erm", "pst")}
        counts = [len(of[name]) for name in of]
        assert [int(n) for n in seeds.split(", ")] in (counts, [counts[0]] if len(set(counts)) == 1 else counts), poison
        for name, shown in (("erm", erm), ("pst", pst)):
            assert f"{of[name]['accuracy'].mean():.1f}" == shown, (poison, name)
        assert round(100 * of["pst"]["accuracy"].mean() / clean) == int(share), poison
        passes = of["pst"]["passes"] / of["erm"]["passes"].mean()
        expected = [passes.min(), passes.max()] if most else [passes.mean()]
        assert [f"{count:.1f}" for count in expected] == [least, most][: len(expected)], poison
        assert most or passes.max() - passes.min() < 0.15, poison


def test_the_published_figures_are_the_best_of_the_file_without_outside_data():
    figures = pandas.read_csv(ROOT / "workflow/published/cifar10.csv")
    figures = figures[~figures["method"].isin([*NEEDS_MORE, "erm"])]
    figures["share"] = 100 * figures["accuracy"] / figures["clean"].fillna(CLEAN)
    for poison, *_, said in ROW.findall((ROOT / "README.md").read_text()):
        best = figures[figures["poison"] == poison.removesuffix("_fast")].nlargest(1, "share")
        if best.empty or poison == "clean":
            assert "%" not in said, poison
            continue
        share, method = re.fullmatch(r"(\d+) % ([\w\- ]+?)(?: \(\w+\))?", said).groups()
        assert (round(best["share"].item()), best["method"].item()) == (int(share), PAPERS[method]), poison


def test_the_means_of_other_defences_are_those_of_their_records():
    text = " ".join((ROOT / "README.md").read_text().split())
    said = {
        "defences": "`erm` {erm}, grayscale (`gray`) {gray}, orthogonal projection (`oproj`) {oproj}, 4,000 clean "
        "images mixed in {clean_4000}, JPEG compression {jpeg}, PST {pst}, its augmentation alone {view}.",
        "defences_cpu": "JPEG has {jpeg}, 4,000 clean images {clean_4000} and PST {pst}.",
    }
    for name, words in said.items():
        found = pandas.read_csv(ROOT / "docs/results" / name / "records.csv")
        found = found[found["poison"] != "clean"].groupby(["method", "poison"])["accuracy"].mean()
        assert words.format(**found.groupby("method").mean().map("{:.1f}".format)) in text, name
