"""PerceiverTokenizer: UTF-8 bytes as ids, with Hugging Face's names and answers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceiver_core.tokenizer.batch_encoding import BatchEncoding, tensor_type_of, to_lists
from perceiver_core.tokenizer.encoding import EncodingOptions, Remarks, encode_samples
from perceiver_core.tokenizer.files import read_tokenizer, write_tokenizer
from perceiver_core.tokenizer.padding import pad_columns
from perceiver_core.tokenizer.texts import EncodedText
from perceiver_core.tokenizer.tokens import ByteTokens
from perceiver_core.tokenizer.truncation import truncate

_PADDINGS = ("do_not_pad", "longest", "max_length")
_TRUNCATIONS = ("do_not_truncate", "longest_first", "only_first", "only_second")
_SIDES = ("right", "left")
_UNLIMITED, _NO_LENGTH = 10**20, int(1e30)  # upstream's: a model_max_length above the first is none


class PerceiverTokenizer(ByteTokens):
    """Turns text into ids, UTF-8 byte by byte, and ids into text; ids, names and defaults are transformers' own.

    `vocab_size` counts the 256 bytes, `len()` the special tokens too. A special token's text within a text, such as
    "[MASK]", becomes its id unless `split_special_tokens` is true. Beyond transformers: offsets (characters of the
    text, for each byte), and a warning wherever truncation cuts through a character. Ids outside of the vocabulary,
    lone surrogates and tensors of unequal rows are ValueErrors. `kwargs` are upstream's padding_side, truncation_side,
    model_input_names, clean_up_tokenization_spaces, split_special_tokens, unk_token and extra_special_tokens;
    others are kept for save_pretrained.
    """

    pad_token_type_id = 0
    is_fast = False

    def __init__(
        self,
        pad_token: Any = "[PAD]",
        bos_token: Any = "[BOS]",
        eos_token: Any = "[EOS]",
        mask_token: Any = "[MASK]",
        cls_token: Any = "[CLS]",
        sep_token: Any = "[SEP]",
        model_max_length: int | None = 2048,
        **kwargs: Any,
    ) -> None:
        special = {
            "pad_token": pad_token,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "mask_token": mask_token,
            "cls_token": cls_token,
            "sep_token": sep_token,
        }
        extra = kwargs.pop("additional_special_tokens", None)
        super().__init__(
            special,
            added=kwargs.pop("added_tokens_decoder", {}),
            unk_token=kwargs.pop("unk_token", None),
            extra=kwargs.pop("extra_special_tokens", None) or extra,
        )
        if others := [name for name in kwargs if name.endswith("_token")]:
            raise ValueError(
                f"Special tokens must have upstream's names; got {others}. Use extra_special_tokens."
            )
        self.model_max_length = _NO_LENGTH if model_max_length is None else model_max_length
        self.padding_side = _one_of("padding_side", kwargs.pop("padding_side", "right"), _SIDES)
        self.truncation_side = _one_of("truncation_side", kwargs.pop("truncation_side", "right"), _SIDES)
        self.model_input_names = list(kwargs.pop("model_input_names", ("input_ids", "attention_mask")))
        self.clean_up_tokenization_spaces = bool(kwargs.pop("clean_up_tokenization_spaces", False))
        self.split_special_tokens = bool(kwargs.pop("split_special_tokens", False))
        self.name_or_path = str(kwargs.pop("name_or_path", ""))
        self.init_kwargs = kwargs

    def __repr__(self) -> str:
        return (
            f"PerceiverTokenizer(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )

    @property
    def max_len_single_sentence(self) -> int:
        """Most ids of a text that model_max_length leaves room for."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """Most ids of a pair that model_max_length leaves room for."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> PerceiverTokenizer:
        """The tokenizer of a checkpoint, whose `kwargs` go before those in its files.

        A Perceiver's checkpoint without tokenizer files has the published tokenizer. Raises CheckpointError.
        """
        from perceiver_core.sources import checkpoint_folder

        settings = read_tokenizer(checkpoint_folder(pretrained_model_name_or_path))
        return cls(**{**settings, "name_or_path": str(pretrained_model_name_or_path), **kwargs})

    def save_pretrained(
        self,
        save_directory: str | Path,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        """Writes tokenizer_config.json and special_tokens_map.json and returns their paths; transformers reads them."""
        if legacy_format is False:
            raise ValueError(
                "legacy_format must be None or True; got False. That is for fast tokenizers: leave it out."
            )
        config = {
            **self.init_kwargs,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "model_input_names": list(self.model_input_names),
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "split_special_tokens": self.split_special_tokens,
        }
        special: dict[str, Any] = dict(self.special_tokens_map)
        if self.extra_special_tokens:
            special["additional_special_tokens"] = self.extra_special_tokens
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        return write_tokenizer(Path(save_directory), prefix, config, special, self.added_tokens_decoder)

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        *,
        split_special_tokens: bool | None = None,
        whole_characters: bool = False,
    ) -> BatchEncoding:
        """Ids of a text, a pair of texts, or a list of either: [CLS] text [SEP], and the pair and [SEP] after it.

        A text may also be a list of ids, or with is_split_into_words a list of words; `text_target` becomes the item
        "labels". max_length alone truncates; without it, padding and truncation go by model_max_length.

        A character of several bytes may lie across max_length. Its first bytes are kept, as in transformers, with a
        UserWarning; `whole_characters` leaves all of it out, so that there may be up to 3 ids fewer in each text.

        return_offsets_mapping, which transformers refuses for this tokenizer, gives the start and end of each id's
        character, in characters of its text (of its word), or (0, 0) for tokens that were added. Overflowing ids are
        lists: with return_tensors they are left out, as upstream. verbose=False silences the warnings.
        """
        if text is None and text_target is None:
            raise ValueError(
                "text must be a text, a list of texts or of pairs; got None, and no text_target either."
            )
        padding, truncation, max_length = self._resolve(
            padding, truncation, max_length, pad_to_multiple_of, verbose
        )
        names, side, split = self.model_input_names, padding_side, split_special_tokens
        options = EncodingOptions(
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            add_special_tokens=add_special_tokens,
            stride=_at_least("stride", stride, 0),
            is_split_into_words=is_split_into_words,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=_one_of("padding_side", self.padding_side if side is None else side, _SIDES),
            return_tensors=return_tensors,
            return_token_type_ids=_default(return_token_type_ids, "token_type_ids" in names),
            return_attention_mask=_default(return_attention_mask, "attention_mask" in names),
            return_overflowing_tokens=return_overflowing_tokens,
            return_special_tokens_mask=return_special_tokens_mask,
            return_offsets_mapping=return_offsets_mapping,
            return_length=return_length,
            split_special_tokens=_default(split, self.split_special_tokens),
            whole_characters=whole_characters,
            truncation_side=self.truncation_side,
            model_max_length=self.model_max_length,
        )
        remarks = Remarks()
        encoding = BatchEncoding()
        if text is not None:
            encoding = encode_samples(self, text, text_pair, options, remarks)
        if text_target is not None:
            target = encode_samples(self, text_target, text_pair_target, options, remarks)
            encoding = target if text is None else encoding
            if text is not None:
                encoding["labels"] = target["input_ids"]
        if verbose:
            remarks.warn()
        return encoding

    def encode(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """The input_ids of a call with the same arguments."""
        return self(text, text_pair, **kwargs)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """A call with one text or pair, by its name before transformers 5."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **kwargs: Any) -> BatchEncoding:
        """A call with a list of texts or pairs, by its name before transformers 5."""
        return self(batch_text_or_text_pairs, **kwargs)

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pads an encoding, or a batch: a list of encodings, or an encoding of lists.

        Tensors and arrays come back as what they were, on the CPU, unless return_tensors says otherwise.
        """
        if isinstance(encoded_inputs, list | tuple) and encoded_inputs:
            encoded_inputs = {name: [one[name] for one in encoded_inputs] for name in encoded_inputs[0]}
        if not isinstance(encoded_inputs, Mapping) or "input_ids" not in encoded_inputs:
            got = list(encoded_inputs) if isinstance(encoded_inputs, Mapping) else encoded_inputs
            raise ValueError(
                f"encoded_inputs must have input_ids; got {got!r:.60}. Give what the tokenizer returns."
            )
        ids = encoded_inputs["input_ids"]
        first = ids[0] if isinstance(ids, list | tuple) and ids else ids
        padding, _, max_length = self._resolve(padding, False, max_length, None, verbose)
        columns = pad_columns(
            {name: to_lists(value) for name, value in encoded_inputs.items()},
            self.pad_token_id,
            padding,
            max_length=max_length,
            multiple=pad_to_multiple_of,
            side=_one_of("padding_side", self.padding_side if padding_side is None else padding_side, _SIDES),
            attention_mask=_default(return_attention_mask, "attention_mask" in self.model_input_names),
        )
        return BatchEncoding(columns, tensor_type=return_tensors or tensor_type_of(first))

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """The ids and the pair's without so many of them, and those that overflow; a character cut in two warns."""
        pair = None if pair_ids is None else EncodedText(pair_ids, name="text_pair")
        strategy = _one_of("truncation_strategy", truncation_strategy, _TRUNCATIONS[1:])
        cut = truncate(
            EncodedText(ids), pair, num_tokens_to_remove, strategy, stride=stride, side=self.truncation_side
        )
        Remarks(cut.losses).warn()
        return cut.first.ids, cut.second.ids if cut.second else None, cut.overflow

    def _resolve(
        self,
        padding: bool | str | None,
        truncation: bool | str | None,
        max_length: int | None,
        multiple: int | None,
        verbose: bool,
    ) -> tuple[str, str, int | None]:
        """The kinds of padding and truncation and their length, by upstream's rules."""
        if max_length is not None:
            _at_least("max_length", max_length, 0)
        if multiple is not None:
            _at_least("pad_to_multiple_of", multiple, 1)
        if max_length is not None and padding is False and truncation is None:
            truncation = True
        if truncation is None or isinstance(truncation, bool):
            truncation = "longest_first" if truncation else "do_not_truncate"
        truncation = _one_of("truncation", truncation, _TRUNCATIONS)
        if padding is True and max_length is not None and truncation == "do_not_truncate" and verbose:
            warnings.warn(
                f"padding=True pads to the longest text, so max_length={max_length} has no effect. "
                "Pass padding='max_length', or truncation=True.",
                stacklevel=3,
            )
        if padding is None or isinstance(padding, bool):
            padding = "longest" if padding else "do_not_pad"
        padding = _one_of("padding", padding, _PADDINGS)
        needs_length = padding == "max_length" or truncation != "do_not_truncate"
        if max_length is None and needs_length and self.model_max_length <= _UNLIMITED:
            max_length = self.model_max_length
        if padding != "do_not_pad" and self.pad_token_id is None:
            raise ValueError(
                f"pad_token must be a token of the vocabulary to pad; got {self.pad_token!r}. "
                "Set tokenizer.pad_token = '[PAD]'."
            )
        cuts = truncation != "do_not_truncate" and padding != "do_not_pad"
        if cuts and multiple is not None and max_length is not None and max_length % multiple:
            raise ValueError(
                f"To truncate and pad, max_length must be a multiple of pad_to_multiple_of={multiple}; "
                f"got {max_length}. Use {max_length // multiple * multiple or multiple}."
            )
        return padding, truncation, max_length


def _default(given: bool | None, otherwise: bool) -> bool:
    return otherwise if given is None else given


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}. Use one of these.")
    return allowed[allowed.index(value)]  # a plain str of transformers' enumerations too


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}. Leave it out for the default.")
    return value
