"""WebDataset: tars whose members share a key make a sample; indexed by their headers, read in place."""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.addresses import legible
from pipelines.contents import Content
from pipelines.items import InputError, Item, list_items, member_id, open_item, read_span
from pipelines.limits import Limits
from pipelines.sources import Opened, SourceError, check_size, faulty, place

TAR = (".tar",)
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_HEADER = 1 << 20  # bytes: what is read ahead of a header, and what it may ask for, such as a name
_SMALL = 32 << 20  # bytes of a member that is read at once
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)


@dataclass(frozen=True)
class WebDataset:
    """A sample is an item, called by its key; members are read in place, by the offsets that the plan has."""

    uris: tuple[str, ...]
    contents: tuple[Content, ...]
    suffixes: Mapping[str, str]  #: of contents' names, where the job says which suffix they have
    kept: pa.Schema  #: of suffixes
    limits: Limits
    others: tuple[str, ...] = ()  #: of files that may not lie beside them

    def files(self) -> Iterator[Item]:
        return list_items(self.uris, TAR, self.others)

    def items(self, files: Iterable[Item] | None = None) -> Iterator[Item]:
        some = False
        for file in self.files() if files is None else files:
            for item in self._samples(file):
                some = True
                yield item
        if not some:
            raise InputError(
                f"No samples in {', '.join(self.uris)}: the tars there hold no files with a suffix."
            )

    def reader(self) -> "WebDatasetReader":
        return WebDatasetReader(self)

    def _samples(self, file: Item) -> Iterator[Item]:
        seen: set[int] = set()
        after = None
        sample: _Sample | None = None
        try:
            for member, size in _members(file, self.limits):
                named = _NAME.fullmatch(member.name)
                if member.isdir() or not named:
                    continue
                key, suffix = named[1], named[2].lower()
                if sample and sample.key != key:
                    yield self._item(file, sample, seen)
                    after, sample = sample.key, None
                sample = sample or _Sample(key, member.offset)
                if member.isreg() and size < member.size:
                    raise tarfile.ReadError(
                        f"it is truncated: of {member.name!r} it has {size:,} of {member.size:,} bytes"
                    )
                sample.add(member, suffix)
            if sample:
                yield self._item(file, sample, seen)
        # What can't be read further is one bad item, whatever a stranger's file raises.
        except Exception as error:
            where = f"after {legible(after)}" if after is not None else "from its start"
            yield faulty(file, f"the tar can't be read {where}: {error}", f"({where})")

    def _item(self, file: Item, sample: "_Sample", seen: set[int]) -> Item:
        member = sample.key
        if hash(member) in seen:  # an id is one item's
            member = f"{member} (at {sample.offset})"
            sample.fault(
                f"its key {sample.key} comes twice in the tar: members of a sample must follow each other"
            )
        seen.add(hash(member))
        spans = {}
        for content in self.contents:
            try:
                spans[content.name] = sample.members[self._suffix(content, sample)]
            except SourceError as error:
                sample.fault(str(error))
        if sample.error:
            return faulty(file, sample.error, member)
        kept = {name: sample.members[name] for name in self.kept.names if name in sample.members}
        size = sum(size for _, size in spans.values())
        at = json.dumps({"members": spans, "kept": kept})
        return replace(file, item_id=member_id(file, member), member=legible(member), at=at, size=size)

    def _suffix(self, content: Content, sample: "_Sample") -> str:
        """Of a sample's suffixes, the content's."""
        known = ", ".join(sample.members) or "none"
        chosen = self.suffixes.get(content.name)
        if chosen is not None:
            if chosen in sample.members:
                return chosen
            raise SourceError(
                f"expected a member {sample.key}.{chosen} as the {content.name}; its suffixes are: {known}"
            )
        fitting = [
            suffix for suffix in sample.members if _fits(suffix, content, alone=len(self.contents) == 1)
        ]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise SourceError(
                f"several of its members may be the {content.name}: {', '.join(fitting)}. "
                f"Say which by input.columns, such as {content.name}: {fitting[0]}"
            )
        raise SourceError(
            f"no member of it is the {content.name}: expected a suffix such as "
            f"{_example(content, len(self.contents) == 1)}; its suffixes are: {known}"
        )


class WebDatasetReader:
    """Opens samples: small members as their bytes, large ones as a view of the tar."""

    def __init__(self, source: WebDataset) -> None:
        self.source = source

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        at = place(item)
        uri = item["uri"]
        for content in self.source.contents:
            check_size(content, at["members"][content.name][1], self.source.limits)
        kept = {}
        for column in self.source.kept:
            data = None
            if column.name in at["kept"]:
                offset, size = at["kept"][column.name]
                self.source.limits.check("text", size, f"bytes of the {column.name}")
                data = read_span(uri, offset, size)
            kept[column.name] = _typed(data, column)
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for content in self.source.contents:
                offset, size = at["members"][content.name]
                if size <= _SMALL:
                    files[content.name] = io.BytesIO(read_span(uri, offset, size))
                else:
                    tar = stack.enter_context(open_item(uri))
                    files[content.name] = io.BufferedReader(_View(tar, offset, size))
            yield Opened(files, kept)

    def close(self) -> None:
        pass


def suffixes_of_first(uris: tuple[str, ...], limits: Limits, others: tuple[str, ...]) -> list[str]:
    """The suffixes of the first sample that there is, to see what the tars hold."""
    for file in list_items(uris, TAR, others):
        key, found = None, []
        try:
            for member, _ in _members(file, limits):
                named = _NAME.fullmatch(member.name)
                if member.isfile() and named:
                    if key not in (None, named[1]):
                        break
                    key = named[1]
                    found.append(named[2].lower())
        except Exception:
            continue  # the listing says what is wrong with it
        if found:
            return found
    return []


def has(contents: tuple[Content, ...], suffixes: list[str]) -> bool:
    """Whether a sample with these suffixes has these contents, by their kinds."""
    alone = len(contents) == 1
    return all(any(_fits(suffix, content, alone) for suffix in suffixes) for content in contents)


def kept_suffixes(keep: tuple[str, ...]) -> pa.Schema:
    """The columns that members of these suffixes become: whole numbers of cls, text of all else."""
    return pa.schema([(name.lower(), pa.int64() if name.lower() == "cls" else pa.string()) for name in keep])


@dataclass
class _Sample:
    """What a sample's members are, as they come."""

    key: str
    offset: int
    members: dict[str, tuple[int, int]] = field(default_factory=dict)  #: offset and size, by suffix
    error: str | None = None

    def add(self, member: tarfile.TarInfo, suffix: str) -> None:
        name = member.name
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            self.fault(f"its member {name!r} has an absolute name, or one with '..'")
        elif not member.isreg() or member.issparse():
            self.fault(f"its member {name!r} is {_what(member)}: expected a file")
        elif suffix in self.members:
            self.fault(f"it has two members {name!r}: a suffix may come once in a sample")
        self.members.setdefault(suffix, (member.offset_data, member.size))

    def fault(self, message: str) -> None:
        """What is wrong with the sample; the first is told."""
        self.error = self.error or f"{message}."


class _View(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self.file, self.offset, self.size, self.at = file, offset, size, 0

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self.at)
        if wanted <= 0:
            return 0
        self.file.seek(self.offset + self.at)
        data = self.file.read(wanted)
        if len(data) != wanted:
            raise SourceError("the tar is shorter than it was when the run was planned.")
        buffer[:wanted] = data
        self.at += wanted
        return wanted

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _Headers:
    """A tar as tarfile sees it, which reads headers of any claimed length whole."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER:
            raise tarfile.ReadError(f"a header asks for {size:,} bytes; at most {_HEADER:,} are read")
        return self.file.read(size)


def _members(file: Item, limits: Limits) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """A tar's members in order, and how many bytes of each there are. Raises TarError, LimitError or OSError."""
    with open_item(file.uri, _HEADER) as source:
        end = source.seek(0, io.SEEK_END)
        source.seek(0)
        try:
            tar = tarfile.TarFile(fileobj=_Headers(source), mode="r", errors="surrogateescape")  # type: ignore[arg-type]
        except tarfile.ReadError as error:
            raise tarfile.ReadError(f"expected an uncompressed tar; {error}") from error
        count = 0
        while member := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # they add up
            count += 1
            limits.check("members", count, "members of the tar")
            yield member, min(member.size, end - member.offset_data)
        # What tarfile takes for the end may be a damaged header: a tar ends with a block of zeros.
        source.seek(tar.offset)
        if source.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(
                f"no header and no end of the archive at byte {tar.offset:,}: it is truncated or damaged"
            )


def _fits(suffix: str, content: Content, alone: bool) -> bool:
    if f".{suffix}" in content.suffixes:
        return alone
    name, _, last = suffix.partition(".")
    return name == content.name and (not last or f".{last}" in content.suffixes)


def _example(content: Content, alone: bool) -> str:
    return content.suffixes[0][1:] if alone else f"{content.name}{content.suffixes[0]}"


def _what(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a sparse file" if member.issparse() else "a device, a pipe or of no known type"


def _typed(data: bytes | None, column: pa.Field) -> pa.Scalar:
    try:
        text = None if data is None else data.decode()
        return pa.scalar(
            int(text) if text is not None and pa.types.is_int64(column.type) else text, column.type
        )
    except (ValueError, pa.ArrowInvalid, OverflowError) as error:
        expected = "a whole number" if pa.types.is_int64(column.type) else "text in UTF-8"
        raise SourceError(
            f"its member {column.name}: expected {expected}; got {(data or b'')[:80]!r}."
        ) from error
