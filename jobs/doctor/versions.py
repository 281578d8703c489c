"""Versions: what is installed, against what the package's own metadata says that it supports."""

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from jobs.doctor.check import Check, told

PACKAGE = "perceiver-batch"
#: Those that have a line of their own; the others share one.
_NAMED = ("torch", "ray", "pyarrow", "av", "pillow")
_OF_DEVELOPERS = "dev"


def packages(package: str = PACKAGE) -> Iterator[Check]:
    """Python, this package, what it needs, and which of its extras are there."""
    try:
        about = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        found = "It is not installed as a package, so what versions it supports isn't known."
        yield Check(package, "warning", found, "Install it: pip install perceiver-batch.")
        return
    yield _python(about.metadata["Requires-Python"] or "")
    yield Check(package, "ok", f"{about.version}.")
    needed = [Requirement(text) for text in about.requires or ()]
    always = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in always:
        if one.name.lower() in _NAMED:
            wrong = _wrong(one)
            yield (
                Check(one.name, "failed", wrong, _install([one]))
                if wrong
                else Check(one.name, "ok", _there(one))
            )
    yield _others([one for one in always if one.name.lower() not in _NAMED])
    yield _extras(needed, about.metadata.get_all("Provides-Extra") or [])


def _python(supported: str) -> Check:
    version = platform.python_version()
    if SpecifierSet(supported).contains(version, prereleases=True):
        return Check("python", "ok", f"{version} ({supported or 'any'} is supported).")
    advice = f"Make the environment anew with a Python that is {supported}."
    return Check("python", "failed", f"{version}, but {supported} is supported.", advice)


def _wrong(needed: Requirement) -> str | None:
    """What is wrong with an installed package, if anything is."""
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return f"{needed.name} is not installed, but {needed.specifier or 'any version'} is needed."
    if not needed.specifier.contains(version, prereleases=True):
        return f"{needed.name} {version} is installed, but {needed.specifier} is supported."
    return None


def _there(needed: Requirement) -> str:
    version = metadata.version(needed.name)
    if needed.name.lower() == "av":
        try:
            import av
        except ImportError as error:
            return f"{version}, which can't be imported ({told(error)})"  # the codecs' check says what to do
        version += f" with FFmpeg {av.ffmpeg_version_info}"
    return f"{version} ({needed.specifier} is supported)."


def _install(needed: list[Requirement]) -> str:
    asked = " ".join(f"'{one.name}{one.specifier}'" for one in needed)
    return f"Install what is supported: pip install {asked}."


def _others(needed: list[Requirement]) -> Check:
    wrong = {one.name: said for one in needed if (said := _wrong(one))}
    if wrong:
        bad = [one for one in needed if one.name in wrong]
        return Check("other packages", "failed", " ".join(wrong.values()), _install(bad))
    names = ", ".join(f"{one.name} {metadata.version(one.name)}" for one in needed)
    return Check("other packages", "ok", f"{names}.")


def _extras(needed: list[Requirement], extras: list[str]) -> Check:
    """Extras that are not there are no fault: a job that needs one is told so."""
    there, missing, wrong = [], [], []
    for extra in extras:
        if extra == _OF_DEVELOPERS:
            continue
        mine = [
            one
            for one in needed
            if one.marker and not one.marker.evaluate({"extra": ""}) and one.marker.evaluate({"extra": extra})
        ]
        bad = [one for one in mine if _wrong(one)]
        if not bad:
            there.append(extra)
        elif any(_is_installed(one) for one in bad):
            wrong += bad
        else:
            missing.append(extra)
    lacking = f"{', '.join(missing)} (pip install '{PACKAGE}[{','.join(missing)}]')" if missing else "none"
    found = f"There: {', '.join(there) or 'none'}; not there: {lacking}."
    if wrong:
        said = " ".join(filter(None, map(_wrong, wrong)))
        return Check("extras", "failed", f"{found} {said}", _install(wrong))
    return Check("extras", "ok", found)


def _is_installed(needed: Requirement) -> bool:
    try:
        metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return False
    return True
