"""The bridge between the engines and the comparison of results, over files that no engine made."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.bridge import filled, record, remember
from helpers.engines import GIT, POISON, RECORD
from relearn import grid, params
from relearn.engines import bridge, dvc, verify
from relearn.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a tiny grid, its dvc.yaml, and a file for every artifact."""
    monkeypatch.chdir(filled(tmp_path / "copy"))
    return tmp_path / "copy"


def test_without_dvc_lock_adopt_is_refused_and_changes_nothing(folder):
    before = {name: os.stat(name).st_mtime for job in grid.jobs(params.load()) for name in job.outputs}
    with pytest.raises(UserError, match="there is no dvc.lock here"):
        bridge.adopt(params.load())
    assert before == {name: os.stat(name).st_mtime for name in before}


def test_both_directions_want_the_current_dvc_yaml(folder):
    (folder / "dvc.yaml").write_text("stages: {}\n")
    for act in (bridge.adopt, bridge.record_in_dvc):
        with pytest.raises(UserError, match="relearn grid --write"):
            act(params.load())


@pytest.mark.parametrize("program", ["dvc", "snakemake"])
def test_a_missing_engine_is_an_error(folder, monkeypatch, program):
    monkeypatch.setenv("PATH", str(folder / "nowhere"))
    with pytest.raises(UserError, match=f"{program} is not installed here"):
        bridge._run(program, "--version")


def test_snakemake_is_stopped_only_by_files_it_does_not_know(folder):
    jobs = grid.jobs(params.load())
    bridge.check_results(jobs)  # no dvc.lock: not DVC's doing
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    for name in (name for job in jobs for name in job.outputs):
        remember(name)
    bridge.check_results(jobs)
    os.utime(RECORD, (2, 2))
    with pytest.raises(UserError, match=f"{RECORD} is not as Snakemake left it.*relearn adopt"):
        bridge.check_results(jobs)
    os.utime(RECORD, (bridge.OLD, bridge.OLD))
    with pytest.raises(UserError, match=RECORD):
        bridge.check_results(jobs)  # with a record Snakemake would go by the content of its inputs
    bridge._snakemake_file("metadata", RECORD).unlink()
    bridge.check_results(jobs)  # marked to run again
    Path(RECORD).unlink()
    bridge.check_results(jobs)  # a missing one Snakemake makes again


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not: [yaml",
        "stages: 3",
        "stages: {a: {outs: [{path: x}]}}",
        "stages: {a: {outs: 3}}",
        "stages: {a: 3}",
        "- stages",
        "stages: " + "[" * 200_000 + "]" * 200_000,  # crashes the loader in C
        "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nstages: {<<: [*b, *b]}",
        "stages: {a: &a {outs: [{path: x, md5: " + "0" * 32 + "}]}, b: *a}",
        "\xff",
    ],
    ids=lambda content: content[:20],
)
def test_a_corrupt_lock_is_an_error(folder, content):
    (folder / "dvc.lock").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="dvc.lock is not what DVC writes; restore it with: git checkout HEAD dvc.lock"):
        dvc.read_lock()


@pytest.mark.parametrize(
    "md5", ["../../../../outside", "0" * 31, "0" * 33, "0" * 31 + "G", "0" * 32 + "\\n", "'" + "0" * 32 + ".dir/'", "3"]
)
def test_only_a_hash_is_taken_for_one(folder, md5):
    """It is part of a path in DVC's cache, and that of a stranger's dvc.lock could lead anywhere."""
    (folder / "dvc.lock").write_text(f"stages: {{train: {{outs: [{{path: {RECORD}, md5: {md5}}}]}}}}")
    for act in (dvc.read_lock, lambda: verify.compare(params.load(), None), lambda: bridge.adopt(params.load())):
        with pytest.raises(UserError, match="not an MD5 of 32 hex digits"):
            act()
    with pytest.raises(UserError):
        dvc.cached(md5)


def test_conflict_markers_have_a_remedy_that_works_in_a_merge(folder):
    """`git checkout dvc.lock` fails there: the path is unmerged."""

    def git(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run([*GIT, *command], capture_output=True, text=True, check=False)

    git("init", "-q", "-b", "one")
    for branch, lock in (("one", "stages: {}"), ("two", "stages: {b: {}}"), ("one", "stages: {a: {}}")):
        git("checkout", "-q", "-B", branch) if branch == "two" else git("checkout", "-q", branch)
        (folder / "dvc.lock").write_text(f"{lock}\n")
        git("add", "dvc.lock")
        git("commit", "-q", "-m", lock)
    assert git("merge", "two").returncode != 0
    with pytest.raises(UserError, match="dvc.lock has conflict markers of a merge") as caught:
        dvc.read_lock()
    remedy = str(caught.value).partition("git ")[2].split(" (")[0]
    assert git(*remedy.split()).returncode == 0
    assert dvc.read_lock() == {"a": {}}


def test_files_that_carry_other_settings_are_seen(folder):
    checked = params.load()
    job = next(job for job in grid.jobs(checked) if job.rule == "evaluate" and "lsp" in job.argument)
    settings = grid.settings(checked, "train", **grid.parse("evaluate", job.argument))
    Path(RECORD).write_text(json.dumps({"settings": settings}))
    assert bridge._has_settings(checked, job, RECORD)
    Path(RECORD).write_text(json.dumps({"settings": settings | {"train": settings["train"] | {"lr": 0.2}}}))
    assert not bridge._has_settings(checked, job, RECORD)
    Path(RECORD).write_text("{")
    assert not bridge._has_settings(checked, job, RECORD)
    poison = next(job for job in grid.jobs(checked) if job.rule == "poison" and "lsp" in job.argument)
    assert not bridge._has_settings(checked, poison, POISON)  # no safetensors at all
    header = json.dumps(
        {
            "__metadata__": {
                "facts": json.dumps({"settings": grid.settings(checked, "poison", dataset="digits", poison="lsp")})
            }
        }
    )
    Path(POISON).write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert bridge._has_settings(checked, poison, POISON)


def test_results_that_are_links_to_the_cache_are_refused(folder, monkeypatch):
    """Their times are those of the cache: adopt and Snakemake would send the user from one to the other for ever."""
    record(folder)
    before = (folder / "dvc.lock").read_bytes()
    for kind in ("symlink", "reflink,hardlink,symlink,copy"):
        monkeypatch.setattr(bridge, "_run", lambda *arguments, kind=kind: kind)
        for act in (bridge.adopt, bridge.record_in_dvc):
            with pytest.raises(
                UserError, match="links to DVC's cache.*dvc config cache.type reflink,copy && dvc checkout"
            ):
                act(params.load())
    monkeypatch.setattr(bridge, "_run", lambda *arguments: "")
    Path(RECORD).rename(folder / "elsewhere")
    Path(RECORD).symlink_to(folder / "elsewhere")
    with pytest.raises(UserError, match="cache.type was symlink"):
        bridge.adopt(params.load())
    assert (folder / "dvc.lock").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"endtime": "now"}', "[" * 100_000])
def test_a_damaged_record_of_snakemake_is_none(folder, content):
    """Snakemake deletes it and runs the job again; nothing here may take the file for one it knows."""
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    for name in (name for job in grid.jobs(params.load()) for name in job.outputs):
        remember(name)
    bridge._snakemake_file("metadata", RECORD).write_text(content)
    with pytest.raises(UserError, match=f"{RECORD} is not as Snakemake left it"):
        bridge.check_results(grid.jobs(params.load()))


def test_verify_names_what_is_corrupt_in_the_cache(folder):
    sums = record(folder)
    cached = dvc.cached(sums[RECORD])
    cached.parent.mkdir(parents=True)
    cached.write_bytes(Path(RECORD).read_bytes())
    lines, equal = verify.compare(params.load(), None)
    assert equal and lines[-1] == "35 equal, 0 different, 0 missing here, 0 missing there, compared with dvc.lock"
    cached.write_text("corrupt")
    lines, equal = verify.compare(params.load(), None)
    assert not equal and lines[-2:] == [
        f"corrupt       {cached}",
        "delete these and what is different above with: relearn verify --delete; then: dvc pull",
    ]


def test_verify_deletes_what_differs_and_nothing_else(folder):
    sums = record(folder)
    good, bad = dvc.cached(sums[POISON]), dvc.cached(sums[RECORD])
    for path, content in ((good, Path(POISON).read_bytes()), (bad, b"corrupt")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    Path(RECORD).write_text("changed")
    before = {path for path in folder.rglob("*") if path.is_file()}
    lines, equal = verify.compare(params.load(), None, delete=True)
    assert not equal
    assert lines[-1] == "deleted 2 files that are different or corrupt; fetch them again: dvc pull"
    assert before - {path for path in folder.rglob("*") if path.is_file()} == {folder / RECORD, folder / bad}
    with pytest.raises(UserError, match="--delete goes by dvc.lock"):
        verify.compare(params.load(), str(folder), delete=True)


def clone(folder: Path) -> Path:
    shutil.copytree(folder, folder.parent / "other")
    return folder.parent / "other"


def test_verify_compares_with_another_clone(folder):
    other = clone(folder)
    lines, equal = verify.compare(params.load(), str(other))
    assert equal and lines[-1] == f"35 equal, 0 different, 0 missing here, 0 missing there, compared with {other}"
    assert lines[0] == "equal         results/sources/prepare.sha256"
    (other / RECORD).write_text("else")
    (other / POISON).unlink()
    Path("results/tables/accuracy.csv").unlink()
    beside = Path("results/runs/digits/lsp/cnn/erm/0/train.run.json")
    for root, torch in ((folder, "2.12"), (other, "2.13")):
        (root / beside).write_text(json.dumps({"seconds": 3.0, "torch": torch}))
    lines, equal = verify.compare(params.load(), str(other))
    assert not equal
    assert {f"different     {RECORD}", f"missing there {POISON}", "missing here  results/tables/accuracy.csv"} <= set(
        lines
    )
    assert lines[-4:] == [
        f"32 equal, 1 different, 1 missing here, 1 missing there, compared with {other}",
        "5 artifacts were made in two environments:", "  here:  torch 2.12", "  there: torch 2.13",
    ]  # fmt: skip


def test_verify_has_exit_codes(project, tmp_path):
    code, _, error = project.run("verify")
    assert code == 2 and error.startswith("relearn: there is no dvc.lock here")
    for other, words in ((".", "this very folder"), (str(tmp_path), "not a clone of the project")):
        code, _, error = project.run("verify", other)
        assert code == 2 and words in error
    (project.folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    code, output, _ = project.run("verify")
    assert code == 1 and "0 equal" in output
