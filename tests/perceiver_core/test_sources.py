"""Where checkpoints come from: folders, URLs and hub ids, and what is fetched of them."""

import base64
import functools
import http.server
import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import fsspec
import huggingface_hub
import pytest

from perceiver_core import CheckpointError, PerceiverConfig, checkpoint, sources
from perceiver_core.sources import DEMO, checkpoint_folder

FILES = {
    "config.json": b'{"num_latents": 3}',
    "model.safetensors": b"weights",
    "tokenizer_config.json": b"{}",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


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


def refuses(text, path, **options):
    with pytest.raises(CheckpointError, match=text):
        checkpoint_folder(path, **options)


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


class Steps:
    """Remembers what it was told."""

    def __init__(self):
        self.total = 0
        self.seen = []

    def stage(self, name, total):
        assert name == "MB of the checkpoint"
        self.total = total

    def at(self, done):
        self.seen.append(done)


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


@pytest.fixture
def served(tmp_path):
    """The URL of a folder on this machine's own web server, and the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        dated = True

        def log_message(self, *arguments):
            pass

        def send_header(self, name, value):
            if name != "Last-Modified" or type(self).dated:
                super().send_header(name, value)

    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/demo", folder, Quiet
        server.shutdown()
        thread.join()


def test_a_web_server(served, cache):
    url, folder, handler = served
    refuses("must have a config.json; got none there .*404.*. Check the URL", url)
    shutil.copytree(DEMO, folder / "demo")
    found = checkpoint.inspect(url)
    assert found.digest == checkpoint.inspect("demo").digest
    assert found.path.parent == cache
    before = (found.path / "config.json").stat().st_ino
    assert checkpoint_folder(url) == found.path
    assert (found.path / "config.json").stat().st_ino == before

    handler.dated = False  # no versions at all: it is fetched each time, and known by its content
    unversioned = checkpoint_folder(url)
    assert unversioned != found.path
    assert checkpoint_folder(url) == unversioned
    config = folder / "demo/config.json"
    config.write_text(config.read_text().replace("0.02", "0.03"))  # of the same size
    assert checkpoint.inspect(url).config.initializer_range == 0.03
    assert len(list(cache.iterdir())) == 3


def test_a_dead_server(served):
    refuses(
        "must have a config.json; got none there .*Cannot connect to host 127.0.0.1:1", "http://127.0.0.1:1/x"
    )


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's own function replaced: what it was asked for, and the snapshot that it gives."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    asked = []

    real = inspect.signature(huggingface_hub.snapshot_download)

    def snapshot_download(repo_id, **options):
        real.bind(repo_id, **options)
        asked.append({"repo_id": repo_id, **options})
        if any(pattern.startswith("pytorch_model") for pattern in options["allow_patterns"]):
            (snapshot / "pytorch_model.bin").touch()
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return snapshot, asked


SMALL = [
    "config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def test_a_hub_id(hub):
    snapshot, asked = hub
    (snapshot / "model.safetensors").touch()
    assert checkpoint_folder("deepmind/language-perceiver", progress=Steps()) == snapshot
    assert asked == [
        {
            "repo_id": "deepmind/language-perceiver",
            "revision": None,
            "allow_patterns": [*SMALL, "*.safetensors", "*.safetensors.index.json"],
            "ignore_patterns": ["*/*"],
            "tqdm_class": None,
        }
    ]


def test_pickles_are_only_fetched_where_there_is_nothing_else(hub):
    snapshot, asked = hub
    assert checkpoint_folder("owner/name@refs/pr/2") == snapshot
    assert [one["repo_id"] for one in asked] == ["owner/name"] * 2
    assert [one["revision"] for one in asked] == ["refs/pr/2"] * 2
    assert asked[1]["allow_patterns"] == [*SMALL, "pytorch_model*.bin", "pytorch_model*.bin.index.json"]


def test_a_hubs_config_alone(hub):
    snapshot, asked = hub
    (snapshot / "config.json").write_text('{"num_latents": 5}')
    assert PerceiverConfig.from_pretrained("owner/name").num_latents == 5
    assert [one["allow_patterns"] for one in asked] == [SMALL]


def test_the_hub_is_quiet_unless_progress_is_asked_for(hub, capsys):
    _, asked = hub
    checkpoint_folder("owner/name")
    for _ in asked[0]["tqdm_class"](range(3), desc="Fetching"):
        pass
    assert capsys.readouterr() == ("", "")


def test_the_hub_says_no(monkeypatch):
    def snapshot_download(repo_id, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("It is not there.\nAnd more.\n\nNot this.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    refuses(
        "^'owner/name' is no folder here and could not be had from the hub; "
        "got LocalEntryNotFoundError: It is not there. And more. Check the name",
        "owner/name",
    )


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refuses(
        r"'owner/name' is no folder here, and as a hub id it needs huggingface_hub; got none\. "
        r"Check the path, or pip install 'perceiver-batch\[hub\]'\.",
        "owner/name",
    )


@pytest.mark.parametrize("text", ["a/b", "deepmind/multimodal-perceiver", "a.b/c_d@main", "a/b@refs/pr/1"])
def test_hub_ids(text):
    assert sources.is_hub_id(text)


@pytest.mark.parametrize(
    "text", ["a", "a/b/c", "/a/b", "./a", "../a", "a/", "s3://a/b", "a/b@", "a/b@x y", "~/a"]
)
def test_no_hub_ids(text):
    assert not sources.is_hub_id(text)


def test_fetching_needs_no_torch(served):
    url, folder, _ = served
    shutil.copytree(DEMO, folder / "demo")
    code = (
        "import sys; from perceiver_core import checkpoint; "
        f"assert checkpoint.inspect({url!r}).parameters == 1095075; "
        "assert not {'torch', 'transformers', 'ray'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def locked(tmp_path):
    """The address of a web server that wants a token in the query, or a password, and what it was asked for."""

    class Locked(http.server.SimpleHTTPRequestHandler):
        asked: ClassVar[list[str]] = []

        def log_message(self, *arguments):
            pass

        def do_GET(self):
            type(self).asked.append(self.path)
            basic = "Basic " + base64.b64encode(f"reader:{SECRET}".encode()).decode()
            query = parse_qs(urlsplit(self.path).query)
            if query.get("token") == [SECRET] or self.headers.get("Authorization") == basic:
                super().do_GET()
            else:
                self.send_error(403, f"no {self.path}")

        def do_HEAD(self):
            self.send_error(405)

    shutil.copytree(DEMO, tmp_path / "served/demo")
    handler = functools.partial(Locked, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{server.server_port}/demo", Locked.asked
        server.shutdown()
        thread.join()


SECRET = "s3cr3t-canary-0123"


@pytest.mark.parametrize(
    "form", ["http://{place}?token=${{env:A_TOKEN}}", "http://reader:${{env:A_TOKEN}}@{place}"]
)
def test_a_reference_is_resolved_when_it_is_fetched_and_kept_nowhere(form, locked, cache, monkeypatch):
    place, asked = locked
    url = form.format(place=place)
    monkeypatch.delenv("A_TOKEN", raising=False)
    refuses(r"refers to the environment variable A_TOKEN, which is not set here\. Set it where", url)
    monkeypatch.setenv("A_TOKEN", "short")
    refuses("expected a secret of at least 8 characters, got 5", url)
    assert asked == []
    monkeypatch.setenv("A_TOKEN", SECRET)
    found = checkpoint.inspect(url)
    assert found.digest == checkpoint.inspect("demo").digest
    assert found.path.parent == cache
    kept = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    "form",
    [
        "http://{place}/nowhere?token=${{env:A_TOKEN}}",
        "http://{place}?other=${{env:A_TOKEN}}",
        "http://writer:${{env:A_TOKEN}}@{place}",
        "http://127.0.0.1:1/x?token=${{env:A_TOKEN}}",
        "http://[::1/x?token=${{env:A_TOKEN}}",
    ],
)
@pytest.mark.parametrize("secret", [SECRET, "p@ss/w%rd+ä \"'", "?a=b&c#d12345"])
def test_no_error_tells_what_a_reference_stands_for(form, secret, locked, cache, monkeypatch):
    monkeypatch.setenv("A_TOKEN", secret)
    url = form.format(place=locked[0])
    with pytest.raises(CheckpointError) as caught:
        checkpoint_folder(url)
    whole = "".join(traceback.format_exception(caught.value))
    for said in (str(caught.value), whole):
        assert "${env:A_TOKEN}" in said
        assert not any(
            form in said for form in (secret, quote(secret, safe=""), quote(secret), repr(secret)[1:-1])
        )
