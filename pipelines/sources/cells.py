"""Cells of tables: media bytes, links to media, texts and tensors, each as the bytes of one file."""

import io
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa

from pipelines.contents import Content, Kind
from pipelines.items import InputError, open_item
from pipelines.limits import Limits
from pipelines.sources import SourceError, check_size
from pipelines.sources.links import resolve
from pipelines.tensors import is_tensor, packed_layout

Form = Literal["bytes", "string", "struct", "tensor"]

_MEDIA = "media bytes (binary), links to media (string), or a struct of bytes and path"
_EXPECTED: dict[Kind, tuple[tuple[Form, ...], str]] = {
    "video": (("bytes", "string", "struct"), _MEDIA),
    "image": (("bytes", "string", "struct"), _MEDIA),
    "text": (("bytes", "string"), "text (string, or binary that holds UTF-8)"),
    "tensor": (
        ("bytes", "string", "tensor"),
        "a fixed_shape_tensor, a tensor column of a perceive table, .npy bytes (binary), or links to .npy (string)",
    ),
}


@dataclass(frozen=True)
class Cells:
    """How a content is got out of a column's cells."""

    content: Content
    column: str
    roots: tuple[str, ...]  #: where links may lead
    limits: Limits

    def check(self, schema: pa.Schema, where: str) -> None:
        """Raise InputError if a table has no such column, or one of another type."""
        if self.column not in schema.names:
            raise InputError(
                f"{where} has no column {self.column}, which is to be the {self.content.name}. Its columns are: "
                f"{', '.join(schema.names)}. Name the right one by input.columns: {{{self.content.name}: NAME}}."
            )
        field = schema.field(self.column)
        forms, expected = _EXPECTED[self.content.kind]
        if _form(field) not in forms:
            raise InputError(
                f"{where}: column {self.column} has type {field.type}; as the {self.content.name} expected {expected}."
            )

    def open(self, cell: pa.Scalar, field: pa.Field, folder: str) -> BinaryIO:
        """A cell's content as a file; links are relative to `folder`. Raises SourceError, LimitError or OSError."""
        form = _form(field)
        if isinstance(cell, pa.DictionaryScalar):
            cell = cell.value
        if (
            form == "struct" and cell.is_valid
        ):  # as Hugging Face's datasets have it: what is not within is linked
            within = cell["bytes"].is_valid or not cell["path"].is_valid
            form, cell = ("bytes", cell["bytes"]) if within else ("string", cell["path"])
        if form == "tensor" and cell.is_valid:
            return _npy(cell, field)
        data = cell.as_buffer() if cell.is_valid else None
        if form == "bytes" and data is not None:
            check_size(self.content, data.size, self.limits)
            return io.BytesIO(data)
        return self.open_string(None if data is None else data.to_pybytes(), folder)

    def open_string(self, data: bytes | None, folder: str) -> BinaryIO:
        """What a string stands for: a text, or a link to all else."""
        if data is None:
            raise SourceError(
                f"column {self.column} is null in this row; as the {self.content.name} expected "
                f"{_EXPECTED[self.content.kind][1]}."
            )
        if self.content.kind != "text":
            return self._follow(data, folder)
        check_size(self.content, len(data), self.limits)
        return io.BytesIO(data)

    def _follow(self, link: bytes, folder: str) -> BinaryIO:
        try:
            text = link.decode()
        except UnicodeDecodeError as error:
            raise SourceError(
                f"column {self.column}: expected a link in UTF-8; got {link[:80]!r}."
            ) from error
        uri = resolve(text, folder, self.roots)
        file = open_item(uri, redirects=False)
        try:
            size = file.seek(0, io.SEEK_END)
            if not size and uri.startswith("http"):
                raise SourceError(
                    f"{uri} answers with nothing, or leads elsewhere, where links in data may not go."
                )
            check_size(self.content, size, self.limits)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


def kept_value(cell: pa.Scalar, type: pa.DataType) -> pa.Scalar:
    """A cell as it is passed through in flight: tensors as their bytes, all else under the column's type."""
    if isinstance(cell, pa.DictionaryScalar):
        cell = cell.value
    if is_tensor(type):
        data = np.ascontiguousarray(cell.to_numpy()).tobytes() if cell.is_valid else None
        return pa.scalar(data, pa.large_binary())
    return cell if cell.type == type else cell.cast(type)


def kept_field(schema: pa.Schema, name: str) -> pa.Field:
    """A column's field as the output has it: nullable, of plain values, without metadata of others."""
    field = schema.field(name)
    type = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    for is_it, plain in ((pa.types.is_string_view, pa.string()), (pa.types.is_binary_view, pa.binary())):
        type = plain if is_it(type) else type
    ours = {key: value for key, value in (field.metadata or {}).items() if key.startswith(b"perceive.")}
    return pa.field(name, type, nullable=True, metadata=ours or None)


def _form(field: pa.Field) -> Form | None:
    type = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if is_tensor(type) or packed_layout(field):
        return "tensor"
    if pa.types.is_struct(type):
        names = [type.field(i).name for i in range(type.num_fields)]
        whole = "bytes" in names and "path" in names
        return "struct" if whole and _bare(type.field("bytes").type) == "bytes" else None
    return _bare(type)


def _bare(type: pa.DataType) -> Form | None:
    if any(is_it(type) for is_it in _BINARY):
        return "bytes"
    return "string" if any(is_it(type) for is_it in _STRING) else None


_BINARY = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
_STRING = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def _npy(cell: pa.Scalar, field: pa.Field) -> BinaryIO:
    layout = packed_layout(field)
    if layout:
        dtype, shape = layout
        array = np.frombuffer(cell.as_buffer(), dtype).reshape(shape)
    else:
        array = cell.to_numpy()
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    file.seek(0)
    return file
