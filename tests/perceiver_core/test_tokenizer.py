"""PerceiverTokenizer: what it adds to transformers' own, what it says and refuses, and what importing it costs."""

import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_core import PerceiverTokenizer
from perceiver_core.checkpoint import CheckpointError
from tests.perceiver_core.refusing import refuses

texts = st.lists(
    st.one_of(
        st.sampled_from(["[MASK]", "é", "€", "😀", "[SE"]), st.text(st.characters(exclude_categories=["Cs"]))
    )
).map("".join)
quick = settings(max_examples=150, deadline=None, derandomize=True)


def test_the_published_example(tokenizer):
    """Masking bytes 52 to 60 of the documentation's sentence, in a tensor that the encoding holds."""
    text = "This is an incomplete sentence where some words are missing."
    encoding = tokenizer(text, padding="max_length", return_tensors="pt")
    assert encoding["input_ids"].shape == encoding.attention_mask.shape == (1, 2048)
    assert int(encoding.attention_mask.sum()) == 62
    encoding["input_ids"][0, 52:61] = tokenizer.mask_token_id
    assert tokenizer.decode(encoding.input_ids[0, :62]) == f"[CLS]{text[:51]}{'[MASK]' * 9}[SEP]"
    assert encoding.input_ids[0, :3].tolist() == [4, ord("T") + 6, ord("h") + 6]
    assert encoding.input_ids[0, 59:63].tolist() == [3, 3, 5, 0]


def test_older_names(tokenizer):
    assert tokenizer.encode_plus("a", "b") == tokenizer("a", "b")
    assert tokenizer.batch_encode_plus([("a", "b")]) == tokenizer([("a", "b")])
    assert tokenizer.additional_special_tokens == tokenizer.additional_special_tokens_ids == []
    assert len(tokenizer) == 262
    assert tokenizer.vocab_size == 256


# --- offsets


def test_offsets(tokenizer):
    encoding = tokenizer("é[MASK]a", "😀", return_offsets_mapping=True, padding="max_length", max_length=13)
    assert encoding["offset_mapping"] == [
        *[(0, 0), (0, 1), (0, 1), (1, 7), (7, 8), (0, 0)],
        *[(0, 1)] * 4,
        *[(0, 0)] * 3,
    ]
    assert encoding.sequence_ids() == [None, 0, 0, 0, 0, None, 1, 1, 1, 1, None, None, None]
    assert "sequence_ids" not in encoding
    assert encoding.token_to_chars(2) == (0, 1)
    assert encoding.token_to_chars(0, 3).end == 7
    assert encoding.token_to_chars(0) is None
    assert encoding.char_to_token(7) == 4
    assert encoding.char_to_token(0, 0, sequence_index=1) == 6
    assert encoding.char_to_token(99) is None
    left = tokenizer(
        "ab", return_offsets_mapping=True, padding="max_length", max_length=5, padding_side="left"
    )
    assert left.offset_mapping == [(0, 0), (0, 0), (0, 1), (1, 2), (0, 0)]


@quick
@given(texts, texts, st.integers(3, 40), st.sampled_from(["right", "left"]), st.booleans())
def test_offsets_are_where_the_bytes_come_from(first, second, max_length, side, special):
    tokenizer = PerceiverTokenizer(truncation_side=side)
    encoding = tokenizer(
        [(first, second)],
        return_offsets_mapping=True,
        truncation=True,
        max_length=max_length,
        add_special_tokens=special,
        verbose=False,
    )
    sequences = encoding.sequence_ids()
    for number, text in enumerate((first, second)):
        found = [
            (index, text[slice(*span)])
            for index, span, sequence in zip(
                encoding.input_ids[0], encoding.offset_mapping[0], sequences, strict=True
            )
            if sequence == number
        ]
        every = [  # what each character stands for, by a way of its own
            (index, piece)
            for piece in re.findall(r"\[MASK\]|.", text, re.DOTALL)
            for index in ([3] if piece == "[MASK]" else [6 + byte for byte in piece.encode()])
        ]
        kept = len(found)
        assert found == (every[:kept] if side == "right" else every[len(every) - kept :])


def test_offsets_of_words_are_within_their_word(tokenizer):
    encoding = tokenizer(
        [["ab", "é"]], is_split_into_words=True, return_offsets_mapping=True, return_tensors="np"
    )
    assert encoding.offset_mapping.tolist() == [[[0, 0], [0, 1], [1, 2], [0, 1], [0, 1], [0, 0]]]
    assert tokenizer("[SEP]", split_special_tokens=True, return_offsets_mapping=True).offset_mapping[3] == (
        2,
        3,
    )


def test_places_must_have_been_asked_for(tokenizer):
    for call in ("sequence_ids", "token_to_chars", "char_to_token"):
        refuses("got none. Tokenize with return_offsets_mapping=True", getattr(tokenizer("a"), call), 0)
    refuses("needs texts; got a list of int for text", tokenizer, [7, 8], return_offsets_mapping=True)


# --- truncation


def test_a_character_that_is_cut_through_is_said(tokenizer):
    message = re.escape(
        "Truncation cut through a character: text lost 1 of the 3 bytes of '€'. Pass whole_characters=True to cut "
        "before it, or verbose=False to silence this."
    )
    with pytest.warns(UserWarning, match=message) as caught:
        assert tokenizer("a€", max_length=5).input_ids == [4, 103, 232, 136, 5]
    assert caught[0].filename == __file__
    assert len(caught) == 1
    assert len(tokenizer("a€", max_length=5, verbose=False).input_ids) == 5
    assert len(tokenizer("a€", max_length=6).input_ids) == 6  # nothing is cut
    assert len(tokenizer("a€b", max_length=6).input_ids) == 6  # between characters


def test_one_warning_for_a_batch(tokenizer):
    with pytest.warns(
        UserWarning, match="text 1 lost 3 of the 4 bytes of '😀'; text 2 .*; text 3 .*; and 2 more"
    ):
        tokenizer(["abcdef", *["😀"] * 5], truncation=True, max_length=3)
    with pytest.warns(
        UserWarning, match="character: text 0 lost 1 of .* 'é'; text_pair 0 lost 2 of .* '€'[.]"
    ):
        tokenizer([("aé", "€")], truncation=True, max_length=6)
    tokenizer.truncation_side = "left"
    with pytest.warns(UserWarning, match="text lost 1 of the 4 bytes of '😀'"):
        assert tokenizer("😀", max_length=5).input_ids == [4, 165, 158, 134, 5]


def test_the_overflow_is_said_too(tokenizer):
    options = {"truncation": True, "max_length": 5, "stride": 1, "return_overflowing_tokens": True}
    with pytest.warns(UserWarning, match="character: the overflow of text begins inside of 'é'[.]"):
        assert tokenizer("aébc", **options).overflowing_tokens == [175, 104, 105]
    whole = tokenizer("aébc", **options, whole_characters=True)
    assert whole.overflowing_tokens == [201, 175, 104, 105]
    assert whole.num_truncated_tokens == 2
    assert tokenizer("aébc", truncation=True, max_length=5, stride=1).input_ids[1:-1] == [103, 201, 175]


def test_whole_characters(tokenizer):
    encoding = tokenizer(
        "a€", truncation=True, max_length=5, whole_characters=True, return_overflowing_tokens=True
    )
    assert encoding.input_ids == [4, 103, 5]
    assert encoding.num_truncated_tokens == 3
    assert encoding.overflowing_tokens == [232, 136, 178]


def is_text(ids):
    """Whether the bytes of these ids, taken strictly, are UTF-8."""
    try:
        return bool(bytes(index - 6 if index > 5 else ord(".") for index in ids).decode() + ".")
    except UnicodeDecodeError:
        return False


@quick
@given(texts, texts, st.integers(3, 60), st.sampled_from(["right", "left"]))
def test_a_warning_exactly_where_a_character_is_lost(first, second, max_length, side):
    """And with whole_characters none, at the price of at most 3 ids of each text."""
    tokenizer = PerceiverTokenizer(truncation_side=side)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids = tokenizer(first, second, truncation=True, max_length=max_length).input_ids
    assert bool(caught) == (not is_text(ids))
    whole = tokenizer(first, second, truncation=True, max_length=max_length, whole_characters=True).input_ids
    assert is_text(whole)
    assert whole == ids if is_text(ids) else len(ids) - 6 <= len(whole) < len(ids)


@quick
@given(texts, st.integers(2, 40), st.integers(0, 5), st.sampled_from(["right", "left"]))
def test_overflows_of_whole_characters_are_text(text, max_length, stride, side):
    tokenizer = PerceiverTokenizer(truncation_side=side)
    options = {
        "truncation": True,
        "max_length": max_length,
        "stride": stride,
        "return_overflowing_tokens": True,
    }
    encoding = tokenizer(text, **options, whole_characters=True)
    kept, overflow = encoding.input_ids[1:-1], encoding.get("overflowing_tokens", [])
    assert is_text(overflow)
    every = tokenizer.encode(text, add_special_tokens=False)
    cut = encoding.get("num_truncated_tokens", 0)
    assert len(kept) + cut == len(every)
    assert cut <= len(overflow) <= cut + stride + 3
    assert (
        kept + overflow[len(overflow) - cut :] == every if side == "right" else overflow[:cut] + kept == every
    )


def test_what_stays_too_long_is_said(tokenizer):
    with pytest.warns(
        UserWarning, match="Too many ids: text has 2049, more than model_max_length=2048. Pass trunc"
    ):
        tokenizer("a" * 2047)
    with pytest.warns(
        UserWarning, match="text 1 has 4 after truncation='only_second', more than max_length=3"
    ):
        tokenizer(["a", "bc"], truncation="only_second", max_length=3)
    tokenizer("a" * 2047, verbose=False)
    tokenizer("a" * 2046)
    with pytest.warns(
        UserWarning, match="padding=True pads to the longest text, so max_length=9 has no effect"
    ):
        tokenizer("a", padding=True, max_length=9)


def test_a_batch_of_which_some_overflow(tokenizer):
    encoding = tokenizer(["abc", "a"], truncation=True, max_length=4, return_overflowing_tokens=True)
    assert encoding["overflowing_tokens"] == [[105], []]
    assert encoding["num_truncated_tokens"] == [1, 0]


def test_truncate_sequences_says_it_too(tokenizer):
    with pytest.warns(UserWarning, match="text_pair lost 1 of the 2 bytes of 'é'"):
        assert tokenizer.truncate_sequences([103], [201, 175], 1, "only_second") == ([103], [201], [175])


# --- decoding


def test_decoding_of_any_ids(tokenizer):
    ids = [4, 110, 201, 175, 201, 3, 5]
    text = "[CLS]hé\ufffd[MASK][SEP]"
    for kind in (
        list,
        tuple,
        np.array,
        torch.tensor,
        lambda x: np.array(x, np.uint8),
        lambda x: list(np.array(x)),
    ):
        assert tokenizer.decode(kind(ids)) == text
        assert tokenizer.batch_decode(kind(ids)) == [text]
    assert tokenizer.decode([torch.tensor(ids), torch.tensor([72])]) == [text, "B"]
    assert tokenizer.decode([[ids], [ids, ids]]) == [[text], [text, text]]
    assert tokenizer.decode(torch.tensor(72)) == tokenizer.decode(72) == tokenizer.decode(np.int64(72)) == "B"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hé\ufffd"
    assert tokenizer.decode([]) == ""
    assert tokenizer.convert_ids_to_tokens(np.int64(72)) == "B"


def test_what_is_no_id(tokenizer):
    expected = "ids must be whole numbers from 0 to 261; got {} at position {}. Of a model's logits, take logits.argmax"
    for wrong, shown, place in (
        [[7, 262], "262", 1],
        [[-1], "-1", 0],
        [[0.5], "0.5", 0],
        [[7, [7]], r"\[7\]", 1],
    ):
        for skip in (False, True):
            refuses(expected.format(shown, place), tokenizer.decode, wrong, skip)
    refuses(expected.format("300", 0), tokenizer.convert_ids_to_tokens, 300)
    refuses(expected.format("300", 0), tokenizer, [300])
    refuses(expected.format("'ab'", 0), tokenizer, "a", ["ab"])
    refuses(
        r"got the items \['input_ids', 'attention_mask'\]. Decode its input_ids",
        tokenizer.decode,
        tokenizer("a"),
    )
    refuses("Tokens must be of this vocabulary; got 'ab'", tokenizer.convert_tokens_to_string, ["ab"])
    assert tokenizer.convert_tokens_to_ids(["ab", "€", "a"]) == [None, None, 103]
    refuses("token_ids_1 must be None", tokenizer.get_special_tokens_mask, [1], [2], True)


# --- files


def test_folders(tokenizer, tmp_path):
    load = PerceiverTokenizer.from_pretrained
    missing = "must have tokenizer_config.json, or the config.json of a Perceiver; .* its model_type is {}"
    refuses(missing.format(None), load, tmp_path, error=CheckpointError)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    refuses(missing.format("'bert'"), load, tmp_path, error=CheckpointError)
    (tmp_path / "config.json").write_text('{"model_type": "perceiver"}')
    assert load(tmp_path, model_max_length=9).model_max_length == 9
    assert load(str(tmp_path)).get_vocab() == tokenizer.get_vocab()
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"tokenizer_class": "BertTokenizer"}')
    refuses(
        "tokenizer_class must be 'PerceiverTokenizer'; got 'BertTokenizer'",
        load,
        tmp_path,
        error=CheckpointError,
    )
    for content, got in (("{", "Expecting property name"), ("[]", "got list")):
        config.write_text(content)
        refuses(
            f"tokenizer_config.json must be .*{got}.*Download it again", load, tmp_path, error=CheckpointError
        )


def test_saving_loses_nothing(tmp_path):
    saved = PerceiverTokenizer(mask_token="<é>", model_max_length=7, a_key_of_the_future={"x": [1]})
    saved.padding_side = "left"
    paths = saved.save_pretrained(tmp_path / "new", filename_prefix="a")
    assert [path.rsplit("/")[-1] for path in paths] == [
        "a-tokenizer_config.json",
        "a-special_tokens_map.json",
    ]
    saved.save_pretrained(tmp_path / "new")
    again = PerceiverTokenizer.from_pretrained(tmp_path / "new")
    assert (again.mask_token, again.model_max_length, again.padding_side) == ("<é>", 7, "left")
    assert again.init_kwargs == {"a_key_of_the_future": {"x": [1]}}
    assert again.name_or_path == str(tmp_path / "new")
    written = json.loads((tmp_path / "new/tokenizer_config.json").read_text())
    assert "name_or_path" not in written
    assert (
        written["added_tokens_decoder"]["3"]["content"],
        written["added_tokens_decoder"]["3"]["special"],
    ) == ("<é>", True)
    assert json.loads((tmp_path / "new/special_tokens_map.json").read_text())["mask_token"] == "<é>"
    refuses("legacy_format must be None or True; got False", saved.save_pretrained, tmp_path, False)


def test_torch_is_not_imported():
    code = (
        "import sys; from perceiver_core import PerceiverTokenizer; t = PerceiverTokenizer();"
        "t.decode(t(['a', 'b'], padding=True, truncation=True).input_ids);"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules);"
        "t('a', return_tensors='np'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
