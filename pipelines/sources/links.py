"""URIs found in data: opened only inside the input's own roots and schemes."""

import os
import re
from collections.abc import Sequence
from urllib.parse import unquote

from pipelines.sources import SourceError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_SAME = {"s3a": "s3", "gcs": "gs"}
_WEB = ("http", "https")
_LOCAL = ("file", "local")


def resolve(link: str, folder: str, roots: Sequence[str]) -> str:
    """Where a link leads that was found in a file of `folder`, as a URI that lies in one of `roots`.

    A relative link is relative to the folder. Raises SourceError for all else: a link with `..` or a symbolic link out
    of the roots, another scheme, host or bucket, a chain of file systems.
    """
    if not link or any(ord(char) < 32 or ord(char) == 127 for char in link):
        raise SourceError(f"expected a path or URI; got {_shown(link)}.")
    if "::" in link:
        raise SourceError(f"{_shown(link)} is a chain of file systems (::), which data may not ask for.")
    scheme, absolute, _ = link.partition("://")
    if absolute and not _SCHEME.fullmatch(scheme):
        raise SourceError(f"expected a path or URI; got {_shown(link)}.")
    remote = "://" in folder
    if absolute:
        whole = link
    elif link.startswith("/"):
        if remote:
            raise SourceError(
                f"{_shown(link)} is a path of this machine, but the input is at {folder}. Use relative paths."
            )
        whole = link
    else:
        whole = f"{folder.rstrip('/')}/{link}"
    place, path, query = _parts(whole)
    if not any(_holds(root, place, path) for root in roots):
        raise SourceError(
            f"{_shown(link)} leads to {whole.partition('?')[0]!r}, outside of the input: {', '.join(roots)}. "
            "If it is to be trusted, add its folder to input.roots."
        )
    if place:
        return "/".join([place, *path]) + query
    return _unlinked("/" + "/".join(path), link, roots)


def _holds(root: str, place: str, path: list[str]) -> bool:
    at, inside, _ = _parts(root)
    if inside[-1:] == [""]:
        inside = inside[:-1]
    return at == place and path[: len(inside)] == inside and len(path) > len(inside)


def _parts(uri: str) -> tuple[str, list[str], str]:
    """A URI's scheme and host ("" of a local path), its path without dots, and its query."""
    scheme, absolute, rest = uri.partition("://")
    scheme = _SAME.get(scheme.lower(), scheme.lower())
    if not absolute or scheme in _LOCAL:
        path = rest if absolute else os.path.abspath(uri)
        if not path.startswith("/"):
            raise SourceError(f"{_shown(uri)}: expected file:/// and an absolute path.")
        return "", [part for part in _undotted(path, uri) if part], ""
    query = ""
    if scheme in _WEB:
        rest, mark, query = rest.partition("#")[0].partition("?")
        query = mark + query
        if "\\" in rest or "%2f" in rest.lower() or ".." in unquote(rest).replace("\\", "/").split("/"):
            raise SourceError(f"{_shown(uri)}: a web address may not hold .., \\ or %2F.")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host.lower() if scheme in _WEB else host}", _undotted(path, uri), query


def _undotted(path: str, link: str) -> list[str]:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not kept:
                raise SourceError(f"{_shown(link)} leads out of the input by its '..'.")
            kept.pop()
        elif part != ".":
            kept.append(part)
    return kept


def _unlinked(path: str, link: str, roots: Sequence[str]) -> str:
    """A local path with its symbolic links followed, which stays inside and is a regular file if it is anything."""
    real = os.path.realpath(path)
    for root in roots:
        at, inside, _ = _parts(root)
        if at:
            continue
        base = os.path.realpath("/" + "/".join(inside))
        if os.path.commonpath([base, real]) == base:
            break
    else:
        raise SourceError(f"{_shown(link)} leads out of the input by a symbolic link, to {real!r}.")
    if os.path.exists(real) and not os.path.isfile(real):
        raise SourceError(f"{_shown(link)}: expected a regular file; it is a folder or a device.")
    return real


def _shown(link: str) -> str:
    return repr(link if len(link) <= 200 else link[:200] + "...")
