"""DVC remotes with real parts: a folder, an sshd and a web server of the tests' own, and what happens when they fail.

The project is that of the bridge, with a made-up file for every artifact; all ways lead to one folder of objects. The
commands are those of docs/sharing.md. Whatever fails has to end with an exit code and a line, leave in results/ what
was there, and succeed once the cause is mended. Where DVC takes bad bytes for good ones, relearn verify and adopt must
not.
"""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.engines import GIT, PRESET, RECORD, artifacts, copy, run
from helpers.remotes import MISSING, corrupt, fails, follow, named, port_of, served, there
from relearn import grid, params
from relearn.engines import dvc

VICTIM = "results/runs/digits/lsp/cnn/erm/0/history.csv"
PART = "evaluate-digits-lsp-cnn-erm-0"
needs_sshd = [pytest.mark.ssh, pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")]
SSH = pytest.param("ssh", marks=needs_sshd)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A home and a place for DVC's notes of their own: nothing of the user's keys and settings counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
        yield


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository whose dvc.lock has a made-up file for every artifact; they are in its results/ and cache."""
    folder = copy(tmp_path_factory.mktemp("remotes") / "origin", PRESET)
    for name in (name for item in grid.jobs(params.load(folder / "params.yaml")) for name in item.outputs):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the right content of {name}\n")
    run(folder, "dvc", "commit", "--force", "--quiet")
    run(folder, *GIT, "add", "-A")
    run(folder, *GIT, "commit", "-q", "-m", "Results")
    return folder


@pytest.fixture(scope="module")
def pushed(origin):
    """A remote in a folder, with all objects."""
    configure(origin, {"url": origin.parent / "pushed"})
    run(origin, "dvc", "push", "-q")
    return origin.parent / "pushed"


@pytest.fixture
def store(pushed, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(pushed, tmp_path / "store")


def configure(folder: Path, settings: dict) -> None:
    """What `dvc remote add --default --local` and `modify --local` write."""
    lines = "".join(f"    {key} = {value}\n" for key, value in settings.items())
    (folder / ".dvc/config.local").write_text(f"[core]\n    remote = mine\n['remote \"mine\"']\n{lines}")


def clone(origin: Path, folder: Path, settings: dict | None = None) -> Path:
    subprocess.run([*GIT, "clone", "-q", str(origin), str(folder)], check=True)
    if settings:
        configure(folder, settings)
    return folder


def entry(base: Path, origin: Path, name: str = VICTIM) -> Path:
    """The object of an artifact, in a remote or a cache."""
    md5 = next(outs[name] for outs in locked(origin).values() if name in outs)
    return base / "files/md5" / md5[:2] / md5[2:]


def locked(folder: Path) -> dict:
    with contextlib.chdir(folder):
        return dvc.read_lock()


def is_complete(folder: Path, origin: Path) -> None:
    assert artifacts(folder) == artifacts(origin)
    assert "up to date" in run(folder, "dvc", "status")
    assert " 0 different, 0 missing here, 0 missing there" in run(folder, "relearn", "verify")


# ---- what the docs say


def replacements(way: str, settings: dict) -> dict:
    """The words of the docs, and what stands for them here."""
    if way == "ssh":
        words = {
            "ssh://server/srv/relearn": "{url}",
            "alice": "{user}",
            "port 22": "port {port}",
            "~/.ssh/id_ed25519": "{keyfile}",
        }
        return {ours: theirs.format(**settings) for ours, theirs in words.items()}
    return {{"folder": "/mnt/share/relearn", "http": "https://example.org/relearn"}[way]: settings["url"]}


@pytest.mark.parametrize("way", ["folder", SSH])
def test_what_is_pushed_is_pulled_in_a_fresh_clone(origin, tmp_path, way):
    heading = {"folder": "A folder", "ssh": "SSH"}[way]
    ours = shutil.copytree(origin, tmp_path / "ours")
    (ours / ".dvc/config.local").unlink(missing_ok=True)
    with served(way, tmp_path / "store") as settings:
        follow(ours, heading, replacements(way, settings))
        run(ours, "dvc", "push")
        assert (tmp_path / "store/files/md5").is_dir()
        theirs = clone(origin, tmp_path / "theirs")
        assert "No remote provided" in fails(theirs, "dvc", "pull")
        follow(theirs, heading, replacements(way, settings))
        run(theirs, "dvc", "pull")
        assert "in sync" in run(theirs, "dvc", "status", "--cloud")
    is_complete(theirs, origin)
    assert run(theirs, "git", "status", "--porcelain") == ""  # --local: nothing of it gets into git


def test_http_gives_and_does_not_take(origin, store, tmp_path):
    theirs = clone(origin, tmp_path / "theirs")
    with served("http", store) as settings:
        follow(theirs, "HTTP, read-only", replacements("http", settings))
        run(theirs, "dvc", "pull")
        is_complete(theirs, origin)
        (theirs / VICTIM).write_text("new\n")
        run(theirs, "dvc", "commit", "--force", "--quiet")
        assert "Unsupported method ('POST')" in fails(theirs, "dvc", "push")


def test_the_settings_for_s3_are_known_to_dvc(origin, tmp_path):
    folder = clone(origin, tmp_path / "copy")
    follow(folder, "S3", {'pip install "dvc[s3]"\n': ""})
    assert "s3://bucket/relearn" in run(folder, "dvc", "remote", "list")


# ---- what goes wrong


@pytest.mark.parametrize("way", ["http", SSH])
def test_a_remote_out_of_reach_changes_nothing_and_a_partial_pull_goes_on(origin, store, tmp_path, way):
    with served(way, store) as settings:
        folder = clone(origin, tmp_path / "copy", settings)
        run(folder, "dvc", "pull", "-q", PART)
    before = there(folder)
    assert list(before) == [folder / RECORD]
    output = fails(folder, "dvc", "pull")
    assert "failed to pull data from the cloud" in output
    assert "Connect call failed" in output if way == "ssh" else "Missing cache files" in output
    assert there(folder) == before
    pusher = shutil.copytree(origin, tmp_path / "pusher")
    configure(pusher, settings)
    assert "Connect call failed" in fails(pusher, "dvc", "push")
    assert artifacts(pusher) == artifacts(origin)
    with served(way, store, port_of(settings)):
        run(folder, "dvc", "pull")
    is_complete(folder, origin)
    assert there(folder)[folder / RECORD] == before[folder / RECORD]


@pytest.mark.parametrize("way", [SSH])
def test_a_key_the_server_does_not_know_is_named(origin, store, tmp_path, way):
    with served(way, store) as settings:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
        folder = clone(origin, tmp_path / "copy", settings | {"keyfile": tmp_path / "other"})
        assert "Permission denied for user root" in fails(folder, "dvc", "pull")
        assert there(folder) == {}
        configure(folder, settings)
        run(folder, "dvc", "pull")
    is_complete(folder, origin)


@pytest.mark.parametrize("way", ["http", SSH])
def test_a_missing_object_is_named_and_the_rest_is_there(origin, store, tmp_path, way):
    entry(store, origin).unlink()
    with served(way, store) as settings:
        folder = clone(origin, tmp_path / "copy", settings)
        output = fails(folder, "dvc", "pull")
        assert named(output) == [VICTIM] and "Missing cache files" in output
        before = there(folder)
        assert len(before) == len(artifacts(origin)) - 1
        mend(origin, store)
        run(folder, "dvc", "pull")
    is_complete(folder, origin)
    assert before.items() <= there(folder).items()


@pytest.mark.parametrize("way", ["folder", "http", SSH])
def test_a_corrupt_object_does_not_get_into_results_from_a_verified_remote(origin, store, tmp_path, way):
    corrupt(entry(store, origin))
    with served(way, store) as settings:
        folder = clone(origin, tmp_path / "copy", settings)
        for _ in range(2):  # it is not taken for good the second time either
            output = fails(folder, "dvc", "pull")
            assert named(output) == [VICTIM] and "Missing cache files" not in output
            before = there(folder)
            assert len(before) == len(artifacts(origin)) - 1
        mend(origin, store)  # is not enough: it is there
        fails(folder, "dvc", "pull")
        entry(store, origin).unlink()
        mend(origin, store)
        run(folder, "dvc", "pull")
    is_complete(folder, origin)
    assert before.items() <= there(folder).items()


def mend(origin: Path, store: Path) -> None:
    configure(origin, {"url": store})
    run(origin, "dvc", "push", "-q")


@pytest.mark.parametrize("way", ["folder", SSH])
def test_what_dvc_takes_from_a_remote_unseen_is_seen_by_verify_and_adopt(origin, store, tmp_path, way):
    corrupt(entry(store, origin))
    with served(way, store) as settings:
        folder = clone(origin, tmp_path / "copy", settings | {"verify": "false"})
        run(folder, "dvc", "pull")
        assert "up to date" in run(folder, "dvc", "status")  # DVC sees nothing
        is_seen(folder, origin)
        entry(store, origin).unlink()
        mend(origin, store)
        follow(folder, "What goes wrong")
    is_complete(folder, origin)


def test_what_dvc_takes_from_a_corrupt_cache_is_seen_by_verify_and_adopt(origin, store, tmp_path):
    folder = clone(origin, tmp_path / "copy", {"url": store, "verify": "true"})
    run(folder, "dvc", "pull", "-q")
    (folder / VICTIM).unlink()
    corrupt(entry(folder / ".dvc/cache", origin))
    run(folder, "dvc", "checkout")
    assert "up to date" in run(folder, "dvc", "status")
    is_seen(folder, origin)
    follow(folder, "What goes wrong")
    is_complete(folder, origin)


def is_seen(folder: Path, origin: Path) -> None:
    assert (folder / VICTIM).read_text() == "bad\n"
    lines = run(folder, "relearn", "verify", fails=True).splitlines()
    bad = [f"different     {VICTIM}", f"corrupt       {entry(Path('.dvc/cache'), origin)}"]
    assert [line for line in lines if line.startswith(("different", "corrupt"))] == bad
    # all of that training's
    assert "5 outputs to run again: not the files that DVC recorded" in run(folder, "relearn", "adopt")


def test_of_a_file_of_ones_own_nothing_is_lost(origin, store, tmp_path):
    folder = clone(origin, tmp_path / "copy", {"url": store, "verify": "true"})
    (folder / VICTIM).parent.mkdir(parents=True)
    (folder / VICTIM).write_text("by hand\n")
    assert "Can't remove the following unsaved files" in fails(folder, "dvc", "pull")
    assert (folder / VICTIM).read_text() == "by hand\n"
    run(folder, "dvc", "pull", "--force")
    is_complete(folder, origin)


def test_an_older_version_taken_away_for_a_missing_newer_one_comes_back(origin, store, tmp_path):
    folder = clone(origin, tmp_path / "copy", {"url": store, "verify": "true"})
    run(folder, "dvc", "pull", "-q")
    older = (folder / "dvc.lock").read_text()
    newer = older.replace(entry(store, origin).parent.name + entry(store, origin).name, "a" * 32)
    assert newer != older
    (folder / "dvc.lock").write_text(newer)
    assert named(fails(folder, "dvc", "pull")) == [VICTIM]
    assert not (folder / VICTIM).exists()
    (folder / "dvc.lock").write_text(older)
    run(folder, "dvc", "checkout")
    is_complete(folder, origin)
