"""BatchEncoding: what the tokenizer returns. Torch is imported where tensors are made."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

Places = Sequence[
    tuple[int | None, int, int]
]  # for each token: text 0 or 1 or None, start and end of its character


class CharSpan(NamedTuple):
    """Characters of a text, from `start` to before `end`."""

    start: int
    end: int


class BatchEncoding(UserDict[str, Any]):
    """Lists, arrays or tensors by name: a mapping, so that model(**encoding) works, whose items are attributes too.

    `tensor_type` "pt" or "np" converts all items, as `convert_to_tensors` does. `encoding` has the places of the
    tokens of each sample, which token_to_chars, char_to_token and sequence_ids need; the tokenizer gives it with
    return_offsets_mapping=True.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Sequence[Places] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        super().__init__(data)
        self.encodings = encoding
        self.n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, item: str | slice) -> Any:
        """An item by its name; of a slice, the dict of all items cut by it."""
        if isinstance(item, slice):
            return {name: value[item] for name, value in self.data.items()}
        if item not in self.data:
            raise KeyError(
                f"The encoding has {list(self.data)}; got the key {item!r}. Use one of these or a slice."
            )
        return self.data[item]

    def __getattr__(self, name: str) -> Any:
        items = self.__dict__.get("data", {})  # without data while it is copied or unpickled
        if name not in items:
            raise AttributeError(f"The encoding has {list(items)} as attributes; got {name!r}.")
        return items[name]

    def convert_to_tensors(
        self, tensor_type: str | None = None, prepend_batch_axis: bool = False
    ) -> BatchEncoding:
        """Makes torch tensors ("pt") or NumPy arrays ("np") of all items, in place; None leaves them as they are.

        Raises ValueError where rows differ in length, NumPy included, for which transformers makes arrays of objects.
        """
        if tensor_type is None:
            return self
        if tensor_type not in ("pt", "np"):
            raise ValueError(
                f"return_tensors must be 'pt', 'np' or None; got {tensor_type!r}. Use one of these."
            )
        make = _torch_tensor if tensor_type == "pt" else _numpy_array
        for name, value in self.data.items():
            tensor = value if tensor_type_of(value) == tensor_type else make(name, value)
            self.data[name] = tensor[None] if prepend_batch_axis else tensor
        return self

    def to(
        self, device: str | int | torch.device | torch.dtype | None = None, *, non_blocking: bool = False
    ) -> BatchEncoding:
        """Moves all tensors to a device, in place; a dtype casts those that are floating point, never ids."""
        import torch

        for name, value in self.data.items():
            if not isinstance(value, torch.Tensor):
                continue
            if not isinstance(device, torch.dtype) or value.is_floating_point():
                self.data[name] = value.to(device, non_blocking=non_blocking)
        return self

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a sample 0 or 1, the first text or its pair; None for a token that was added."""
        return [sequence for sequence, _, _ in self._places(batch_index)]

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Characters that a token is of, (token) or (sample, token); None for a token that was added."""
        batch, token = (
            (0, batch_or_token_index) if token_index is None else (batch_or_token_index, token_index)
        )
        sequence, start, end = self._places(batch)[token]
        return None if sequence is None else CharSpan(start, end)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """First token of a character, (character) or (sample, character); None where no token is of it."""
        batch, character = (
            (0, batch_or_char_index) if char_index is None else (batch_or_char_index, char_index)
        )
        for token, (sequence, start, end) in enumerate(self._places(batch)):
            if sequence == sequence_index and start <= character < end:
                return token
        return None

    def _places(self, batch_index: int) -> Places:
        if self.encodings is None:
            raise ValueError(
                "The places of tokens must be in the encoding; got none. Tokenize with return_offsets_mapping=True."
            )
        return self.encodings[batch_index]


def tensor_type_of(value: Any) -> str | None:
    """ "pt" for a tensor, "np" for an array or number of NumPy, None for anything else; imports neither."""
    module = type(value).__module__.split(".")[0]
    return {"torch": "pt", "numpy": "np"}.get(module) if hasattr(value, "tolist") else None


def to_lists(value: Any) -> Any:
    """Tensors, arrays, and lists of them as lists of numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [item if type(item) is int else to_lists(item) for item in value]
    return value


def _numpy_array(name: str, value: Any) -> Any:
    import numpy as np

    if tensor_type_of(value) == "pt":
        return value.detach().cpu().numpy()
    value = to_lists(value)
    try:
        array = np.asarray(value)
    except ValueError:
        raise _raggedness(name, value) from None
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"{name} must have numbers to be a tensor; got {value!r:.60}. Take it out of the encoding."
        )
    return array.astype(np.int64) if array.size == 0 else array


def _torch_tensor(name: str, value: Any) -> Any:
    import torch

    if tensor_type_of(value) == "np":
        return torch.as_tensor(value)
    tensor = torch.from_numpy(_numpy_array(name, value))
    # as torch.tensor does with Python's numbers
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _raggedness(name: str, value: Any) -> ValueError:
    """The error that says which lengths do not go together."""
    level = value
    while level and all(isinstance(row, list) for row in level):
        lengths = sorted({len(row) for row in level})
        if len(lengths) > 1:
            return ValueError(
                f"{name} must have rows of one length to be a tensor; got lengths from {lengths[0]} to {lengths[-1]}. "
                "Tokenize with padding=True, and truncation=True where texts are too long."
            )
        level = [item for row in level for item in row]
    return ValueError(f"{name} must have lists of one depth to be a tensor; got {value!r:.60}. Take it out.")
