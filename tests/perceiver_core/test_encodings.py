"""What PerceiverTokenizer refuses; padding; and BatchEncoding, as a mapping and as tensors."""

import copy
import pickle
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import torch

from perceiver_core import BatchEncoding, PerceiverTokenizer
from tests.perceiver_core.refusing import refuses

# --- refusals


def test_texts_that_are_none(tokenizer):
    refuses(
        r"^text 1 must be Unicode text .* lone surrogate '\\ud800' at character 2. Replace",
        tokenizer,
        ["a", "ab\ud800"],
    )
    refuses(r"text_pair must be .*'\\udfff' at character 6", tokenizer, "a", "[MASK]\udfff")
    refuses("got None, and no text_target", tokenizer)
    refuses("text must be a str, or a list of ids, tokens or words; got b'a'. Decode bytes", tokenizer, b"a")
    refuses("text must have at least one text; got an empty list", tokenizer, [])
    refuses("text_pair must be a list as long as text, 2; got 1", tokenizer, ["a", "b"], ["c"])
    refuses("text_pair must be a list as long as text, 2; got str", tokenizer, ["a", "b"], "cd")
    refuses("got 3 texts. For texts .* is_split_into_words=True", tokenizer, [["a", "b", "c"]])


def test_options_that_are_none(tokenizer):
    refuses(r"padding must be one of \('do_not_pad', .*got 'left'", tokenizer, "a", padding="left")
    refuses("truncation must be one of .* got 'first'", tokenizer, "a", truncation="first")
    refuses("padding_side must be one of .* got 'top'", tokenizer, "a", padding_side="top")
    refuses("padding_side must be one of .* got 'top'", PerceiverTokenizer, padding_side="top")
    refuses("truncation_side must be one of .* got 'top'", PerceiverTokenizer, truncation_side="top")
    refuses("max_length must be at least 0; got -1", tokenizer, "a", max_length=-1)
    refuses("stride must be at least 0; got -1", tokenizer, "a", stride=-1)
    refuses("pad_to_multiple_of must be at least 1; got 0", tokenizer, "a", pad_to_multiple_of=0)
    options = {"truncation": True, "padding": True, "pad_to_multiple_of": 8}
    refuses(
        "To truncate and pad, max_length must be a multiple of .*=8; got 9. Use 8",
        tokenizer,
        "a",
        max_length=9,
        **options,
    )
    refuses("return_tensors must be 'pt', 'np' or None; got 'tf'", tokenizer, "a", return_tensors="tf")
    options = {"truncation": True, "return_overflowing_tokens": True}
    refuses("'only_first' or 'only_second' for pairs; got 'longest_first'", tokenizer, "a", "b", **options)
    tokenizer.pad_token = "<none>"
    refuses("pad_token must be a token of the vocabulary to pad; got '<none>'", tokenizer, "a", padding=True)


def test_special_tokens_that_are_none(tokenizer):
    refuses("pad_token must be a text that is not empty; got None", PerceiverTokenizer, pad_token=None)
    refuses(
        "mask_token must be .* got '<m>' with lstrip=True",
        PerceiverTokenizer,
        mask_token={"content": "<m>", "lstrip": True},
    )
    token = SimpleNamespace(content="<m>", lstrip=False, rstrip=False, single_word=True)
    refuses("with single_word=True. Set single_word to false", PerceiverTokenizer, mask_token=token)
    refuses(r"got \['image_token'\]. Use extra_special_tokens", PerceiverTokenizer, image_token="<i>")
    refuses(
        "extra_special_tokens must be a list of texts", PerceiverTokenizer, extra_special_tokens={"a": "b"}
    )
    refuses(
        "got 'image_token'. Put it in extra_special_tokens",
        tokenizer.add_special_tokens,
        {"image_token": "<i>"},
    )


def test_padding_of_what_cannot_be(tokenizer):
    refuses(r"must have input_ids; got \['a'\]", tokenizer.pad, {"a": [1]})
    refuses("must have input_ids; got 'a'", tokenizer.pad, "a")
    refuses(
        "one entry per sample; got {'input_ids': 2, 'labels': 1}",
        tokenizer.pad,
        {"input_ids": [[7], [8]], "labels": [1]},
    )


def test_padding_changes_nothing_that_it_is_given(tokenizer):
    samples = [tokenizer("a", return_offsets_mapping=True), tokenizer("abc", return_offsets_mapping=True)]
    padded = tokenizer.pad(samples, return_tensors="np")
    assert padded.input_ids.tolist() == [[4, 103, 5, 0, 0], [4, 103, 104, 105, 5]]
    assert padded.offset_mapping[0].tolist() == [[0, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
    assert samples[0].input_ids == [4, 103, 5]
    one = {"input_ids": torch.tensor([7, 8])}
    assert tokenizer.pad(one, padding="max_length", max_length=3).input_ids.tolist() == [7, 8, 0]
    assert list(one) == ["input_ids"]


# --- BatchEncoding


def test_an_encoding_is_a_mapping(tokenizer):
    encoding = tokenizer(["a", "b"], return_tensors="pt")
    assert isinstance(encoding, Mapping)
    assert dict(**encoding).keys() == {"input_ids", "attention_mask"}
    assert encoding.data["input_ids"] is encoding.input_ids
    assert {name: value.tolist() for name, value in encoding[1:].items()} == {
        "input_ids": [[4, 104, 5]],
        "attention_mask": [[1, 1, 1]],
    }
    for copied in (copy.deepcopy(encoding), pickle.loads(pickle.dumps(encoding))):
        assert torch.equal(copied.input_ids, encoding.input_ids)
    refuses(r"has \['input_ids', 'attention_mask'\]; got the key 0", encoding.__getitem__, 0, error=KeyError)
    refuses("as attributes; got 'labels'", getattr, encoding, "labels", error=AttributeError)
    assert not hasattr(encoding, "labels")
    del encoding["attention_mask"]
    assert list(encoding) == ["input_ids"]


def test_to(tokenizer):
    encoding = BatchEncoding({"input_ids": [[1]], "weights": [[0.5]], "name": None})
    del encoding["name"]
    encoding = encoding.convert_to_tensors("pt")
    encoding["name"] = "kept"
    assert encoding.weights.dtype == torch.float32
    assert encoding.to(torch.float16) is encoding
    assert (encoding.input_ids.dtype, encoding.weights.dtype) == (torch.int64, torch.float16)
    assert encoding.to("meta").input_ids.device.type == "meta"
    assert encoding.name == "kept"


def test_tensors_that_cannot_be(tokenizer):
    for kind in ("pt", "np"):
        refuses(
            "input_ids must have rows of one length to be a tensor; got lengths from 3 to 5. Tokenize with padding",
            tokenizer,
            ["a", "abc"],
            return_tensors=kind,
        )
        refuses(
            "labels must have numbers to be a tensor; got 'x'",
            BatchEncoding,
            {"labels": "x"},
            tensor_type=kind,
        )
        refuses("labels must have lists of one depth", BatchEncoding, {"labels": [1, [2]]}, tensor_type=kind)
    both = BatchEncoding(
        {"a": np.ones(2, np.float32), "b": torch.ones(2)}, tensor_type="pt", prepend_batch_axis=True
    )
    assert (both.a.dtype, both.a.shape, both.b.shape) == (torch.float32, (1, 2), (1, 2))
    assert type(BatchEncoding({"b": torch.ones(2)}, tensor_type="np").b) is np.ndarray
