"""Checkpoints from web servers, with secrets or without, and from the hub."""

import base64
import functools
import http.server
import inspect
import shutil
import subprocess
import sys
import threading
import traceback
from typing import ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import huggingface_hub
import pytest

from perceiver_core import CheckpointError, PerceiverConfig, checkpoint, sources
from perceiver_core.sources import DEMO, checkpoint_folder
from tests.perceiver_core.fetching import Steps, refuses

pytestmark = pytest.mark.usefixtures("cache")


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
