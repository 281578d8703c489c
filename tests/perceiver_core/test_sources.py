"""Where checkpoints come from: folders, and URLs, with what is fetched of them."""

import json
import os
import shutil
import time
from pathlib import Path

import fsspec
import pytest

from perceiver_core import PerceiverConfig
from perceiver_core.sources import DEMO, checkpoint_folder
from tests.perceiver_core.fetching import Steps, refuses

pytestmark = pytest.mark.usefixtures("cache")
FILES = {
    "config.json": b'{"num_latents": 3}',
    "model.safetensors": b"weights",
    "tokenizer_config.json": b"{}",
}


@pytest.fixture
def memory():
    """An empty bucket in memory, and its URL."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def fill(fs, folder="bucket/model", **changes):
    """Writes FILES, those with content, into a folder of the bucket."""
    for name, content in (FILES | {n.replace("__", "."): c for n, c in changes.items()}).items():
        if content is not None:
            fs.pipe_file(f"/{folder}/{name}", content)
    return f"memory://{folder}"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folders_are_taken_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "owner/name").mkdir(parents=True)
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkpoint_folder(tmp_path) == tmp_path
    assert checkpoint_folder(f"file://{tmp_path}") == tmp_path
    assert checkpoint_folder("~/owner") == tmp_path / "owner"
    assert checkpoint_folder("owner/name") == Path("owner/name")  # not the hub's
    assert checkpoint_folder("demo") == DEMO
    assert checkpoint_folder("./demo") == Path("demo")


@pytest.mark.parametrize(
    "path", ["nowhere", "/no/where", "./owner/name", "a/b/c", "file:///no/where", ".a/b"]
)
def test_what_is_nothing(path):
    refuses(
        rf'A checkpoint must be a folder, "demo", a URL or a hub id such as owner/name; got \'{path}\', '
        "which is none of these here. Check the path.",
        path,
    )


def test_a_path_is_no_hub_id(tmp_path):
    refuses("which is none of these here", Path("owner/name"))


def test_a_url_is_fetched_once_per_version(memory, cache):
    url = fill(memory, notes__txt=b"x", tf_model__h5=b"x")
    folder = checkpoint_folder(url)
    assert contents(folder) == FILES
    assert folder.parent == cache
    (folder / "mark").touch()
    assert checkpoint_folder(url + "/") == folder
    assert (folder / "mark").exists()  # not fetched again
    fill(memory, model__safetensors=b"others!")
    changed = checkpoint_folder(url)
    assert changed != folder
    assert contents(changed) == FILES | {"model.safetensors": b"others!"}
    assert sorted(cache.iterdir()) == sorted([folder, changed])  # nothing half done is left


def test_only_the_small_files(memory):
    url = fill(memory)
    assert contents(checkpoint_folder(url, weights=False)).keys() == {"config.json", "tokenizer_config.json"}
    assert PerceiverConfig.from_pretrained(url, num_labels=3).num_latents == 3
    assert contents(checkpoint_folder(url)) == FILES


def test_shards_and_pickles(memory):
    index = json.dumps({"weight_map": {"a": "p-1.bin", "b": "p-2.bin", "c": "p-1.bin"}}).encode()
    shards = {"p-1.bin": b"1", "p-2.bin": b"2", "pytorch_model.bin.index.json": index}
    url = fill(memory, model__safetensors=None, **shards)
    expected = {name: content for name, content in FILES.items() if name != "model.safetensors"} | shards
    assert contents(checkpoint_folder(url)) == expected
    memory.pipe_file("/bucket/model/pytorch_model.bin", b"whole")
    assert "p-1.bin" not in contents(checkpoint_folder(url))
    memory.pipe_file("/bucket/model/model.safetensors", b"safe")  # before any pickle
    assert contents(checkpoint_folder(url)) == FILES | {"model.safetensors": b"safe"}


@pytest.mark.parametrize("shard", ["../../x.safetensors", "/etc/passwd", "..", ""])
def test_an_index_cannot_point_elsewhere(memory, cache, shard):
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    url = fill(memory, model__safetensors=None, **{"model.safetensors.index.json": index})
    refuses("index.json must name files of its own folder; got", url)
    assert not cache.exists()


def test_incomplete_urls(memory):
    refuses(
        "^memory://bucket/model must have a config.json; got none there. Check the URL.",
        "memory://bucket/model",
    )
    url = fill(memory, model__safetensors=None)
    refuses(
        "must have model.safetensors or pytorch_model.bin; got config.json, tokenizer_config.json. Copy", url
    )
    memory.pipe_file("/bucket/model/model.safetensors.index.json", b'{"weight_map": {"a": "1.safetensors"}}')
    refuses(r"index.json must name files that are there; got 1.safetensors\.", url)
    refuses(
        "must be the URL of a checkpoint's folder; got ValueError: Protocol not known: nope. Check",
        "nope://a/b",
    )


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("s3://bucket/model", r"pip install 'perceiver-batch\[s3\]'"),
        ("abfs://bucket/model", r"pip install 'perceiver-batch\[azure\]'"),
        ("gs://bucket/model", r"pip install 'perceiver-batch\[gcs\]'"),
        ("https://host/model", r"pip install 'perceiver-batch\[http\]'"),
        ("sftp://host/model", "Install the driver that fsspec asks for"),
    ],
)
def test_missing_drivers(url, advice, monkeypatch):
    def none(*arguments, **options):
        raise ImportError("Install what is missing")

    monkeypatch.setattr(fsspec.core, "url_to_fs", none)
    refuses(rf"{url} needs a driver that is not installed; got: Install what is missing\. {advice}\.", url)


def test_progress_counts_to_the_total(memory):
    url = fill(memory, model__safetensors=bytes(3_500_000), tokenizer__json=bytes(2_500_000))
    steps = Steps()
    folder = checkpoint_folder(url, progress=steps)
    assert steps.total == 6
    assert steps.seen == sorted(steps.seen)
    assert steps.seen[-1] == 6
    assert {2, 3} & set(steps.seen)
    assert checkpoint_folder(url, progress=Steps()) == folder


def test_a_failed_download_leaves_nothing(memory, cache, monkeypatch):
    url = fill(memory)
    fetch = type(memory).get_file

    def breaks(self, source, target, **options):
        fetch(self, source, target, **options)
        if source.endswith("model.safetensors"):
            raise TimeoutError("the line is dead")

    monkeypatch.setattr(type(memory), "get_file", breaks)
    refuses("got TimeoutError: the line is dead. Check the URL, the credentials and the connection.", url)
    assert list(cache.iterdir()) == []

    def cuts(self, source, target, **options):
        fetch(self, source, target, **options)
        Path(target).write_bytes(Path(target).read_bytes()[:-1])

    monkeypatch.setattr(type(memory), "get_file", cuts)
    refuses("config.json must have 18 bytes; got 17. Fetch it again.", url)

    def overtaken(self, source, target, **options):
        fetch(self, source, target, **options)
        fill(self)

    monkeypatch.setattr(type(memory), "get_file", overtaken)
    refuses("must stay as it is while it is fetched; got other files at the end than at the start", url)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(type(memory), "get_file", fetch)
    assert contents(checkpoint_folder(url)) == FILES


def test_a_listing_that_is_remembered_is_asked_for_again(memory, monkeypatch):
    """s3fs and its like keep what they listed, for as long as the process lives."""
    url, known = fill(memory), {}
    info = type(memory).info

    def remembered(self, path, **options):
        if path not in known:
            known[path] = info(self, path, **options)
        return known[path]

    monkeypatch.setattr(type(memory), "info", remembered)
    monkeypatch.setattr(type(memory), "invalidate_cache", lambda self, path=None: known.clear())
    first = checkpoint_folder(url)
    fill(memory, model__safetensors=b"changed")
    assert contents(checkpoint_folder(url)) == FILES | {"model.safetensors": b"changed"}
    assert contents(first) == FILES


def test_two_at_once(memory, cache, monkeypatch):
    """Whoever is second finds the folder there and leaves its own."""
    url = fill(memory)
    rename = Path.rename

    def late(self, target):
        shutil.copytree(self, target)  # the other one was quicker
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    folder = checkpoint_folder(url)
    assert list(cache.iterdir()) == [folder]
    assert contents(folder) == FILES


def test_what_killed_downloads_left_goes(memory, cache):
    url = fill(memory)
    old, new = cache / ".partial-old", cache / ".partial-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    for path in (old / "model.safetensors", old):
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    folder = checkpoint_folder(url)
    assert sorted(cache.iterdir()) == sorted([folder, new])  # that one may be another process's, at work


def test_cache_without_the_variable(memory, monkeypatch, tmp_path):
    monkeypatch.delenv("PERCEIVER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert checkpoint_folder(fill(memory)).parent == tmp_path / "xdg/perceiver-batch/checkpoints"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert checkpoint_folder(fill(memory)).parent == tmp_path / "home/.cache/perceiver-batch/checkpoints"
