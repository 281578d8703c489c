"""Where a checkpoint comes from: a folder, "demo", an fsspec URL or a hub id, each as a folder on this machine.

Imports no torch; fsspec and huggingface_hub are imported where they fetch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from perceiver_core.errors import PerceiverError
from perceiver_core.references import UnresolvedError, as_written, names_in, resolved

DEMO = Path(__file__).parent / "demo"  #: the checkpoint that comes with the package, by the name "demo"

#: A checkpoint's files beside its weights.
_SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?")
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "hf": "hub",
    "http": "http",
    "https": "http",
}
#: What file systems call a version, the surest first.
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "blob_id",
    "Content-MD5",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "mtime",
    "created",
)
_ABANDONED_S = 24 * 3600.0  # a download in which nothing was written for this long is dead


class CheckpointError(PerceiverError, ValueError):
    """A checkpoint that cannot be used."""


class Progress(Protocol):
    """What is told how far a download is."""

    def stage(self, name: str, total: int) -> None: ...

    def at(self, done: int) -> None: ...


def checkpoint_folder(path: str | Path, *, weights: bool = True, progress: Progress | None = None) -> Path:
    """The folder on this machine that holds a checkpoint's files.

    `path` is a folder, taken as it is; "demo"; a URL that fsspec knows, fetched once per version into the cache
    ($PERCEIVER_CACHE, by default ~/.cache/perceiver-batch); or a hub id, "owner/name" or "owner/name@revision", where
    there is no such folder. Without `weights` only the small files are fetched. Raises CheckpointError.
    """
    if path == "demo":  # a folder of that name is ./demo
        return DEMO
    text = str(path)
    if isinstance(path, str) and "://" in path:
        protocol, _, place = path.partition("://")
        if protocol not in ("file", "local"):
            return _fetch_url(path, weights, progress)
        text = place
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(path, str) and is_hub_id(path):
        return _fetch_hub(path, weights, progress)
    raise CheckpointError(
        f'A checkpoint must be a folder, "demo", a URL or a hub id such as owner/name; got {str(path)!r}, '
        f"which is {'a file' if folder.is_file() else 'none of these here'}. Check the path."
    )


def is_hub_id(text: str) -> bool:
    """Whether this reads as "owner/name" or "owner/name@revision"."""
    return _HUB_ID.fullmatch(text) is not None


def first_names(names: Iterable[str], limit: int = 3) -> str:
    """The first few names, for an error's text."""
    every = sorted(names)
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return (", ".join(every[:limit]) or "nothing") + rest


def digest_of(files: Iterable[Path]) -> str:
    """The SHA-256 over files: their names, sizes and bytes."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def shards_of(index: str, origin: str) -> list[str]:
    """The files that the JSON of a weights' index names; CheckpointError if it is none or they lie elsewhere."""
    try:
        shards = sorted(set(json.loads(index)["weight_map"].values()))
        elsewhere = [shard for shard in shards if PurePosixPath(shard).name != shard or shard in ("", "..")]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{origin} must be an index of weights; got: {error!r}.") from error
    if elsewhere:
        raise CheckpointError(f"{origin} must name files of its own folder; got {first_names(elsewhere)}.")
    return shards


def _fetch_hub(path: str, weights: bool, progress: Progress | None) -> Path:
    """A snapshot in the hub's own cache, with its own bars where progress is asked for."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import tqdm
    except ImportError as error:
        raise CheckpointError(
            f"{path!r} is no folder here, and as a hub id it needs huggingface_hub; got none. "
            "Check the path, or pip install 'perceiver-batch[hub]'."
        ) from error

    class Silent(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    match = _HUB_ID.fullmatch(path)
    assert match is not None
    name, revision = match.groups()

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*_SMALL_FILES, *patterns],
                ignore_patterns=["*/*"],  # a pattern's star crosses folders
                tqdm_class=Silent if progress is None else None,
            )
        )

    try:
        folder = fetch(("*.safetensors", "*.safetensors.index.json") if weights else ())
        if weights and not any(folder.glob("*.safetensors")):
            folder = fetch(("pytorch_model*.bin", "pytorch_model*.bin.index.json"))
    except (OSError, ValueError) as error:  # what huggingface_hub documents: its HTTP errors are OSErrors
        raise CheckpointError(
            f"{path!r} is no folder here and could not be had from the hub; got {_told(error)}. "
            "Check the name and the connection, or give a folder."
        ) from error
    return folder


@dataclass(frozen=True)
class _Remote:
    """A checkpoint's files at a URL: their names, sizes and versions there."""

    url: str  #: as it was written, with its references
    fs: Any
    root: str  #: for the driver only: what the references stand for is in it
    query: str  #: after each file's name, of web addresses; so is it here
    sizes: Mapping[str, int | None]
    versions: Mapping[str, str | None]


def _fetch_url(url: str, weights: bool, progress: Progress | None) -> Path:
    try:
        remote = _look(url, weights)
        key = _key(remote)
        if key and (cache_folder() / key).is_dir():
            return cache_folder() / key
        return _download(remote, weights, progress)
    except CheckpointError:
        raise
    except UnresolvedError as error:
        raise CheckpointError(str(error)) from error
    except ImportError as error:
        extra = _EXTRAS.get(url.partition("://")[0])
        what = (
            f"pip install 'perceiver-batch[{extra}]'" if extra else "Install the driver that fsspec asks for"
        )
        raise CheckpointError(f"{url} needs a driver that is not installed; got: {error}. {what}.") from error
    # Each driver has errors of its own: credentials, time-outs, a protocol that nobody knows.
    except Exception as error:
        raise CheckpointError(
            f"{url} must be the URL of a checkpoint's folder; got {as_written(_told(error), url)}. "
            "Check the URL, the credentials and the connection."
        ) from (None if names_in(url) else error)  # a driver's traceback shows the address with its secrets


def _look(url: str, weights: bool) -> _Remote:
    """Finds the files by asking for each by name: not every store or web server can list a folder."""
    from fsspec.core import url_to_fs

    address = resolved(url)
    query = ""
    if address.startswith(("http://", "https://")):
        address, mark, query = address.partition("?")
        query = mark + query
    fs, root = url_to_fs(address.rstrip("/"))
    fs.invalidate_cache()
    found: dict[str, dict[str, Any]] = {}
    why = ""  # fsspec says of a dead server, too, that the file is not there

    def there(name: str) -> bool:
        nonlocal why
        try:
            info = fs.info(f"{root}/{name}{query}")
        except FileNotFoundError as error:
            why = f" ({as_written(_told(error.__cause__), url)})" if error.__cause__ else ""
            return False
        if info["type"] == "file":
            found[name] = info
        return name in found

    for name in _SMALL_FILES:
        there(name)
    if "config.json" not in found:
        raise CheckpointError(f"{url} must have a config.json; got none there{why}. Check the URL.")
    if weights:
        for whole in ("model.safetensors", "pytorch_model.bin"):
            index = f"{whole}.index.json"
            if there(whole):
                break
            if there(index):
                shards = shards_of(fs.cat_file(f"{root}/{index}{query}").decode(), f"{url}/{index}")
                if missing := [shard for shard in shards if not there(shard)]:
                    raise CheckpointError(
                        f"{url}/{index} must name files that are there; got {first_names(missing)}."
                    )
                break
        else:
            raise CheckpointError(
                f"{url} must have model.safetensors or pytorch_model.bin; got {first_names(found, 9)}. "
                "Copy the weights next to config.json."
            )
    return _Remote(
        url,
        fs,
        root,
        query,
        {name: info["size"] for name, info in found.items()},
        {name: _version(info) for name, info in found.items()},
    )


def _version(info: Mapping[str, Any]) -> str | None:
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), None)


def _download(remote: _Remote, weights: bool, progress: Progress | None) -> Path:
    """Fetches all files into a folder of its own and renames it: a folder in the cache is a whole one."""
    from fsspec.callbacks import Callback

    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    _drop_abandoned(cache)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    try:
        total, done = sum(size or 0 for size in remote.sizes.values()), 0
        if progress is not None:
            progress.stage("MB of the checkpoint", total // 10**6)
        for name, size in remote.sizes.items():
            callback = Callback()
            if progress is not None:
                before, tell = done, progress.at
                callback = Callback(hooks={"at": lambda _, value, b=before, t=tell: t((b + value) // 10**6)})
            remote.fs.get_file(f"{remote.root}/{name}{remote.query}", str(partial / name), callback=callback)
            got = (partial / name).stat().st_size
            if size not in (None, got):
                raise CheckpointError(
                    f"{remote.url}/{name} must have {size} bytes; got {got}. Fetch it again."
                )
            done += got
        if _look(remote.url, weights).versions != remote.versions:
            raise CheckpointError(
                f"{remote.url} must stay as it is while it is fetched; got other files at the end than at the start. "
                "Fetch it again once they are written."
            )
        final = cache / (_key(remote) or digest_of(sorted(partial.iterdir()))[:32])
        try:
            partial.rename(final)
        except OSError:
            if not final.is_dir():  # by another process, which was quicker
                raise
        return final
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _key(remote: _Remote) -> str | None:
    """The name of these files in the cache; None for a server that tells no versions: there the content is the name."""
    if None in remote.versions.values():
        return None
    text = json.dumps([remote.url.rstrip("/"), dict(remote.sizes), dict(remote.versions)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """Where checkpoints that were fetched from URLs are kept."""
    root = os.environ.get("PERCEIVER_CACHE")
    if root:
        return Path(root).expanduser() / "checkpoints"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "perceiver-batch" / "checkpoints"


def _drop_abandoned(cache: Path) -> None:
    """Removes what killed downloads left."""
    for partial in cache.glob(".partial-*"):
        try:
            touched = max(path.stat().st_mtime for path in (partial, *partial.iterdir()))
        except OSError:  # its owner has just finished
            continue
        if touched < time.time() - _ABANDONED_S:
            shutil.rmtree(partial, ignore_errors=True)


def _told(error: BaseException) -> str:
    """An error's class and the first paragraph of what it says."""
    lines = takewhile(str.strip, str(error).strip().splitlines())
    return f"{type(error).__name__}: {' '.join(lines)}".rstrip(". :")
