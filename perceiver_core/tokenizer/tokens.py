"""Special tokens, ids and decoding: what PerceiverTokenizer knows of its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from perceiver_core.tokenizer.batch_encoding import to_lists
from perceiver_core.tokenizer.files import token_text
from perceiver_core.tokenizer.vocabulary import NUM_BYTES, ByteVocabulary

T = TypeVar("T")
SPECIAL_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_SPACE_BEFORE = (".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re")


class _SpecialToken:
    """tokenizer.pad_token, and tokenizer.pad_token_id, which follows it; either may be set."""

    def __init__(self, of_id: bool = False) -> None:
        self.of_id = of_id

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    def __get__(self, tokenizer: ByteTokens | None, owner: type | None = None) -> Any:
        if tokenizer is None:
            return self
        token = tokenizer._special[self.name]
        return token if token is None or not self.of_id else tokenizer.convert_tokens_to_ids(token)

    def __set__(self, tokenizer: ByteTokens, value: Any) -> None:
        if value is not None and self.of_id:
            value = tokenizer.convert_ids_to_tokens(value)
        tokenizer._special[self.name] = None if value is None else token_text(self.name, value)


class ByteTokens:
    """The vocabulary of a tokenizer under Hugging Face's names: special tokens, conversions, decoding."""

    bos_token, bos_token_id = _SpecialToken(), _SpecialToken(of_id=True)
    eos_token, eos_token_id = _SpecialToken(), _SpecialToken(of_id=True)
    unk_token, unk_token_id = _SpecialToken(), _SpecialToken(of_id=True)
    sep_token, sep_token_id = _SpecialToken(), _SpecialToken(of_id=True)
    pad_token, pad_token_id = _SpecialToken(), _SpecialToken(of_id=True)
    cls_token, cls_token_id = _SpecialToken(), _SpecialToken(of_id=True)
    mask_token, mask_token_id = _SpecialToken(), _SpecialToken(of_id=True)
    clean_up_tokenization_spaces: bool = False
    split_special_tokens: bool = False

    def __init__(
        self, special: Mapping[str, Any], added: Mapping[int | str, Any], unk_token: Any, extra: Any
    ) -> None:
        """`special` has the tokens of the ids from 0 in their order, `added` others by id."""
        texts = {name: token_text(name, value) for name, value in special.items()}
        later = {int(index): token_text("added_tokens_decoder", token) for index, token in added.items()}
        self.vocabulary = ByteVocabulary(dict(enumerate(texts.values())) | later)
        self._special: dict[str, str | None] = dict.fromkeys(SPECIAL_NAMES) | texts
        self.unk_token = unk_token
        self.extra_special_tokens = extra
        self.vocabulary = self.vocabulary.with_added(self.all_special_tokens)

    @property
    def vocab_size(self) -> int:
        """256, the bytes; len(tokenizer) has the added tokens too."""
        return NUM_BYTES

    def __len__(self) -> int:
        return len(self.vocabulary.ids)

    def get_vocab(self) -> dict[str, int]:
        """Ids of all tokens."""
        return dict(self.vocabulary.ids)

    def get_added_vocab(self) -> dict[str, int]:
        """Ids of the tokens that are not bytes."""
        return dict(self.vocabulary.added_ids)

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Ids of the tokens that are not bytes, as `get_added_vocab`."""
        return self.get_added_vocab()

    @property
    def added_tokens_decoder(self) -> dict[int, str]:
        """Tokens that are not bytes, by id; of a str where transformers has its AddedToken."""
        return dict(sorted(self.vocabulary.added.items()))

    @property
    def extra_special_tokens(self) -> list[str]:
        """Special tokens without a name of their own."""
        return list(self._extra)

    @extra_special_tokens.setter
    def extra_special_tokens(self, value: Any) -> None:
        if value is not None and not isinstance(value, list | tuple):
            raise ValueError(
                f"extra_special_tokens must be a list of texts; got {value!r}. Give their texts alone."
            )
        self._extra = [token_text("extra_special_tokens", token) for token in value or ()]

    @property
    def extra_special_tokens_ids(self) -> list[int | None]:
        """Ids of `extra_special_tokens`."""
        return self.convert_tokens_to_ids(self._extra)

    additional_special_tokens = extra_special_tokens  #: its name before transformers 5
    additional_special_tokens_ids = extra_special_tokens_ids

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The named special tokens that are set."""
        return {name: token for name, token in self._special.items() if token is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """All special tokens, each once."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self._extra]))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `all_special_tokens`."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Adds tokens after the last id and returns how many were new; the model must be resized to len(tokenizer)."""
        tokens = new_tokens if isinstance(new_tokens, list | tuple) else [new_tokens]
        texts = [token_text("new_tokens", token) for token in tokens]
        special = [
            text
            for token, text in zip(tokens, texts, strict=True)
            if special_tokens or (not isinstance(token, str) and getattr(token, "special", False))
        ]
        size = len(self)
        self._extra += [text for text in dict.fromkeys(special) if text not in self.all_special_tokens]
        self.vocabulary = self.vocabulary.with_added(texts)
        return len(self) - size

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Sets named special tokens and "extra_special_tokens", adds those that are new and returns how many were."""
        tokens: list[Any] = []
        for name, value in special_tokens_dict.items():
            if name in ("extra_special_tokens", "additional_special_tokens"):
                kept = [] if replace_extra_special_tokens else self._extra
                self.extra_special_tokens = list(dict.fromkeys([*kept, *value]))
                tokens += value
            elif name in SPECIAL_NAMES:
                setattr(self, name, value)
                tokens.append(value)
            else:
                raise ValueError(
                    f"Special tokens must be of {[*SPECIAL_NAMES, 'extra_special_tokens']}; got {name!r}. "
                    "Put it in extra_special_tokens."
                )
        return self.add_tokens(tokens, special_tokens=True)

    def tokenize(self, text: str, *, split_special_tokens: bool | None = None) -> list[str]:
        """Tokens of a text: each byte as the character with its number, and special tokens."""
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        return self.vocabulary.tokens_of(self.vocabulary.encode(text, "text", split))

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or the ids of several; unk_token_id, None by default, for what is no token."""
        ids = self.vocabulary.ids
        unknown = ids.get(self._special["unk_token"] or "")
        return (
            ids.get(tokens, unknown)
            if isinstance(tokens, str)
            else [ids.get(token, unknown) for token in tokens]
        )

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of several. Raises ValueError for an id outside of the vocabulary."""
        ids = to_lists(ids)
        if not isinstance(ids, list):
            return self.vocabulary.tokens_of([ids])[0]
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return self.vocabulary.tokens_of([index for index in ids if index not in skipped] if skipped else ids)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens are put around a text, or a pair."""
        return 3 if pair else 2

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """[CLS] text [SEP], and for a pair the second text and [SEP]."""
        return surround(token_ids_0, token_ids_1, self.cls_token_id, self.sep_token_id)

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for the first text and its special tokens, 1 for the second and its [SEP]."""
        second = [] if token_ids_1 is None else [1] * (len(token_ids_1) + 1)
        return [0] * (len(token_ids_0) + 2) + second

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for a special token and 0 for any other, of ids that special tokens are, or are yet to be, put around."""
        if not already_has_special_tokens:
            pair = None if token_ids_1 is None else [0] * len(token_ids_1)
            return surround([0] * len(token_ids_0), pair, 1, 1)
        if token_ids_1 is not None:
            raise ValueError(
                "With already_has_special_tokens, token_ids_1 must be None; got a second list. Join the two."
            )
        special = set(self.all_special_ids)
        return [int(index in special) for index in to_lists(token_ids_0)]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens, as of `decode`."""
        return b"".join(map(self.vocabulary.bytes_of, tokens)).decode("utf-8", "replace")

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """Text of an id, a list, array or tensor of ids; a list of texts for nested lists or more dimensions.

        Any ids of the vocabulary may follow each other: bytes that are not UTF-8 become "\N{REPLACEMENT CHARACTER}".
        Raises ValueError for anything that is no id, naming it and its position.
        """
        ids = to_lists(token_ids)
        if isinstance(ids, Mapping):
            raise ValueError(f"token_ids must be ids; got the items {list(ids)}. Decode its input_ids.")
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        ids = ids if isinstance(ids, list) else [ids]
        text = self.vocabulary.decode(ids, self.all_special_ids if skip_special_tokens else ())
        if (
            self.clean_up_tokenization_spaces
            if clean_up_tokenization_spaces is None
            else clean_up_tokenization_spaces
        ):
            text = _without_spaces(text)
        return text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """As `decode`, but one text too comes in a list."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else texts


def surround(first: list[T], second: list[T] | None, begin: T, end: T) -> list[T]:
    """`begin` and `end` around what belongs to a text or a pair, as [CLS] and [SEP] are."""
    return [begin, *first, end] if second is None else [begin, *first, end, *second, end]


def _without_spaces(text: str) -> str:
    """Upstream's cleaning up of spaces, in its order."""
    for mark in _SPACE_BEFORE[:4]:
        text = text.replace(f" {mark}", mark)
    text = text.replace(" ' ", "'")
    for mark in _SPACE_BEFORE[4:]:
        text = text.replace(f" {mark}", mark)
    return text
