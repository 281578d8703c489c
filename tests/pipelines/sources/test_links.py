"""Where links in data may lead: nowhere but into the input's own roots."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import SourceError
from pipelines.sources.links import resolve

SEGMENTS = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "b.jpg",
        "%2e%2e",
        "..%2f",
        "...",
        "~",
        "in",
        "out",
        "secret",
        "link",
        "\\..\\",
        "a b",
        "é",
        "?",
        "#",
    ]
)
SCHEMES = st.sampled_from(
    ["", "/", "file://", "FILE:///", "s3://bucket/in/", "s3://bucket/", "s3://other/in/", "http://h/in/"]
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    (folder / "in/a").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "in/a/b.jpg").touch()
    (folder / "out/secret").touch()
    (folder / "in/link").symlink_to(folder / "out")
    (folder / "in/a/link").symlink_to(folder / "in/a")
    return folder


@given(scheme=SCHEMES, parts=st.lists(SEGMENTS, max_size=8), absolute=st.booleans())
def test_what_resolves_locally_is_inside(tree: Path, scheme: str, parts: list[str], absolute: bool) -> None:
    inside = os.path.realpath(tree / "in")
    link = scheme + (f"{tree}/in/" if absolute and "s3" not in scheme else "") + "/".join(parts)
    try:
        found = resolve(link, f"{tree}/in", [f"{tree}/in"])
    except SourceError:
        return
    assert found == os.path.realpath(found)
    assert found.startswith(inside + "/")
    assert "::" not in found


@given(scheme=SCHEMES, parts=st.lists(SEGMENTS, max_size=8), web=st.booleans())
def test_what_resolves_remotely_is_inside(scheme: str, parts: list[str], web: bool) -> None:
    root = "http://h/in" if web else "s3://bucket/in"
    try:
        found = resolve(scheme + "/".join(parts), f"{root}/tables", [root])
    except SourceError:
        return
    path = found.partition("?")[0] if web else found
    assert path.startswith(f"{root}/")
    assert not {".", ".."} & set(path.split("/"))
    assert not (web and ("%2e%2e" in path.lower() or "\\" in path))


@given(st.text(max_size=30))
def test_any_text_resolves_inside_or_is_refused(tree: Path, text: str) -> None:
    try:
        found = resolve(text, f"{tree}/in", [f"{tree}/in"])
    except SourceError:
        return
    assert found.startswith(os.path.realpath(tree / "in") + "/")


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("a.jpg", "s3://bucket/in/tables/a.jpg"),
        ("../media/a.jpg", "s3://bucket/in/media/a.jpg"),
        ("s3://bucket/in/a//b.jpg", "s3://bucket/in/a//b.jpg"),
        ("S3A://bucket/in/a.jpg", "s3://bucket/in/a.jpg"),
        ("https://h:8443/shared/a.jpg?w=2", "https://h:8443/shared/a.jpg?w=2"),
    ],
)
def test_what_is_allowed_remotely(link: str, found: str) -> None:
    assert resolve(link, "s3://bucket/in/tables", ["s3://bucket/in", "https://h:8443/shared/"]) == found


def test_local_links(tree: Path) -> None:
    at = os.path.realpath(tree / "in/a/b.jpg")
    folder, roots = f"{tree}/in/a", [f"{tree}/in"]
    for link in ("b.jpg", "../a/b.jpg", at, f"file://{at}", "link/b.jpg"):
        assert resolve(link, folder, roots) == at
    assert resolve("not/there.jpg", folder, roots) == f"{os.path.realpath(tree)}/in/a/not/there.jpg"


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("", "expected a path or URI; got ''"),
        ("a\0b", "expected a path or URI"),
        ("a\nb", "expected a path or URI"),
        ("zip://a::s3://bucket/in/b", "is a chain of file systems (::)"),
        ("/etc/passwd", "is a path of this machine, but the input is at s3://bucket/in"),
        ("file:///etc/passwd", "leads to 'file:///etc/passwd', outside of the input: s3://bucket/in"),
        (
            "../out/a",
            "outside of the input: s3://bucket/in. If it is to be trusted, add its folder to input.roots",
        ),
        ("../../../a", "leads out of the input by its '..'"),
        ("s3://other/in/a", "outside of the input"),
        ("s3://bucket/inside", "outside of the input"),
        ("s3://bucket/in", "outside of the input"),
        ("http://169.254.169.254/latest/meta-data", "outside of the input"),
        ("http://user:word@bucket/in/a", "outside of the input"),
    ],
)
def test_what_is_refused_remotely(link: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        resolve(link, "s3://bucket/in", ["s3://bucket/in"])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "link", ["http://h/in/%2e%2e/x", "http://h/in/..%2Fx", "http://h/in/a%2fb", "http://h/in/..\\x"]
)
def test_web_addresses_hide_no_dots(link: str) -> None:
    with pytest.raises(SourceError, match=r"may not hold \.\., .* or %2F"):
        resolve(link, "http://h/in", ["http://h/in"])


def test_links_and_pipes_on_disk(tree: Path, tmp_path: Path) -> None:
    roots = [f"{tree}/in"]
    with pytest.raises(
        SourceError, match=r"'link/secret' leads out of the input by a symbolic link, to '.*/out/secret'"
    ):
        resolve("link/secret", f"{tree}/in", roots)
    with pytest.raises(SourceError, match="expected a regular file; it is a folder or a device"):
        resolve("a", f"{tree}/in", roots)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(SourceError, match="expected a regular file"):
        resolve("pipe.jpg", str(tmp_path), [str(tmp_path)])
