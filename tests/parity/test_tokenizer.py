"""PerceiverTokenizer against transformers' own: the same ids, masks, texts and files, whatever is asked for."""

import json
import warnings

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perceiver_core import PerceiverTokenizer

THEIRS, OURS = transformers.PerceiverTokenizer(), PerceiverTokenizer()
SPECIAL = ["[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]"]
PIECES = [*SPECIAL, "[", "[MA", "SK]", "é", "😀", "e\u0301", "\x00", "\x80", "ÿ", "\U0010ffff", " .", " n't"]

characters = st.characters(exclude_categories=["Cs"])
pieces = st.lists(st.one_of(st.sampled_from(PIECES), st.text(characters, max_size=4)), max_size=6)
texts = pieces.map("".join)
ids = st.lists(st.integers(0, 261), max_size=30)
pairs = st.tuples(texts, texts)
# a text, a pair, ids, a batch of each; with text_pair
inputs = st.one_of(
    st.tuples(texts),
    pairs,
    st.tuples(st.lists(texts, min_size=1, max_size=4)),
    st.tuples(st.lists(pairs, min_size=1, max_size=4)),
    st.lists(pairs, min_size=1, max_size=4).map(lambda both: tuple(map(list, zip(*both, strict=True)))),
    st.tuples(ids.filter(bool)),
    st.tuples(st.lists(ids.filter(bool), min_size=1, max_size=3)),
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "add_special_tokens": st.booleans(),
        "padding": st.sampled_from([False, True, "longest", "max_length", "do_not_pad"]),
        "truncation": st.sampled_from(
            [None, False, True, "longest_first", "only_first", "only_second", "do_not_truncate"]
        ),
        "max_length": st.integers(0, 24),
        "stride": st.integers(0, 5),
        "pad_to_multiple_of": st.integers(1, 8),
        "padding_side": st.sampled_from(["left", "right"]),
        "return_token_type_ids": st.booleans(),
        "return_attention_mask": st.booleans(),
        "return_overflowing_tokens": st.booleans(),
        "return_special_tokens_mask": st.booleans(),
        "return_length": st.booleans(),
        "split_special_tokens": st.booleans(),
    },
)
many = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
some = settings(many, max_examples=100)


transformers.logging.set_verbosity_error()  # of what is too long it logs, where we warn


@pytest.fixture(autouse=True)
def short_model_length(monkeypatch):
    """Padding to a model's 2048 would make the properties slow, and truncation to it rare."""
    monkeypatch.setattr(THEIRS, "model_max_length", 20)
    monkeypatch.setattr(OURS, "model_max_length", 20)


def encoded(tokenizer, *texts, **options):
    """The encoding as a dict, or None where it is refused; warnings are for the tests of what we say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(tokenizer(*texts, **options))
        except (ValueError, AssertionError):
            return None


def same(*texts, **options) -> None:
    theirs, ours = (encoded(tokenizer, *texts, **options) for tokenizer in (THEIRS, OURS))
    if theirs is None and options.get("return_overflowing_tokens") and ours is not None:
        # transformers fails on a batch of which some texts overflow and some do not
        assert [] in ours["overflowing_tokens"]
        return
    assert ours == theirs
    assert theirs is None or list(ours) == list(theirs)


@settings(many, max_examples=1000)
@given(inputs, choices)
def test_calls(texts, options):
    same(*texts, **options)


@many
@given(
    pairs, st.integers(0, 40), st.sampled_from(["longest_first", "only_first", "only_second"]), st.booleans()
)
def test_truncation_of_pairs_on_both_sides(pair, max_length, strategy, left):
    try:
        for tokenizer in (THEIRS, OURS):
            tokenizer.truncation_side = "left" if left else "right"
        same(*pair, truncation=strategy, max_length=max_length)
        if strategy != "longest_first":
            same(*pair, truncation=strategy, max_length=max_length, return_overflowing_tokens=True, stride=3)
    finally:
        THEIRS.truncation_side = OURS.truncation_side = "right"


@many
@given(
    ids,
    st.none() | ids,
    st.integers(-2, 70),
    st.sampled_from(["longest_first", "only_first", "only_second"]),
    st.integers(0, 9),
)
def test_truncate_sequences(first, second, excess, strategy, stride):
    theirs = THEIRS.truncate_sequences(first, second, excess, strategy, stride)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert OURS.truncate_sequences(first, second, excess, strategy, stride) == theirs


@some
@given(st.lists(texts, min_size=1, max_size=4), choices, st.sampled_from(["pt", "np"]))
def test_tensors(batch, options, kind):
    options = {**options, "padding": "longest", "return_tensors": kind}
    theirs, ours = (encoded(tokenizer, batch, **options) for tokenizer in (THEIRS, OURS))
    assert (ours is None) == (theirs is None)
    single = [encoded(tokenizer, batch[0], **options) for tokenizer in (THEIRS, OURS)]
    for expected, got in ((theirs, ours), single):
        assert list(got or ()) == list(expected or ())
        for name, value in (got or {}).items():
            assert type(value) is type(expected[name])
            assert (value.dtype, value.shape) == (expected[name].dtype, expected[name].shape)
            assert (value == expected[name]).all()


@some
@given(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=3))
def test_words(batch):
    same(batch, is_split_into_words=True)
    same(batch[0], is_split_into_words=True)
    same(batch[0], batch[-1], is_split_into_words=True)


@some
@given(st.lists(ids.filter(bool), min_size=1, max_size=4), choices, st.sampled_from([None, "pt", "np"]))
def test_pad(batch, options, kind):
    names = ("padding", "max_length", "pad_to_multiple_of", "padding_side", "return_attention_mask")
    options = {name: value for name, value in options.items() if name in names}
    make = {None: list, "pt": torch.tensor, "np": np.array}[kind]
    if kind:  # ragged tensors have no batch
        options["padding"] = True
    for single in (False, True):
        results = []
        for tokenizer in (THEIRS, OURS):  # transformers changes what it is given
            rows = [{"input_ids": make(row), "special_tokens_mask": make([0] * len(row))} for row in batch]
            given_in = rows[0] if single and kind != "np" else rows
            results.append(encoded(tokenizer.pad, given_in, **options))
        theirs, ours = results
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            assert type(ours[name]) is type(value)
            assert np.array_equal(ours[name], value) if kind else ours[name] == value


@many
@given(ids, st.booleans(), st.booleans())
def test_decoding_of_any_ids(some_ids, skip, clean):
    options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
    expected = THEIRS.decode(some_ids, **options)
    assert OURS.decode(some_ids, **options) == expected
    assert OURS.decode(np.array(some_ids, dtype=np.int32), **options) == expected
    assert OURS.decode(
        torch.tensor([i % 256 for i in some_ids], dtype=torch.uint8), **options
    ) == THEIRS.decode([i % 256 for i in some_ids], **options)
    assert OURS.batch_decode([some_ids, [72]], **options) == THEIRS.batch_decode([some_ids, [72]], **options)
    tokens = THEIRS.convert_ids_to_tokens(some_ids, skip_special_tokens=skip)
    assert OURS.convert_ids_to_tokens(some_ids, skip_special_tokens=skip) == tokens
    assert OURS.convert_tokens_to_string(tokens) == THEIRS.convert_tokens_to_string(tokens)
    assert OURS.convert_tokens_to_ids(tokens) == THEIRS.convert_tokens_to_ids(tokens)
    assert OURS.get_special_tokens_mask(
        some_ids, already_has_special_tokens=True
    ) == THEIRS.get_special_tokens_mask(some_ids, already_has_special_tokens=True)


@many
@given(texts, st.booleans())
def test_tokens_and_back(text, split):
    tokens = OURS.tokenize(text, split_special_tokens=split)
    assert tokens == THEIRS.tokenize(text, split_special_tokens=split)
    assert OURS.convert_tokens_to_ids(tokens) == THEIRS.convert_tokens_to_ids(tokens)
    assert OURS.decode(OURS.encode(text, add_special_tokens=False, verbose=False)) == text


def test_clean_up_of_every_mark():
    text = "a . b ? c ! d , e ' f n't 'm 's 've 're ' . '"
    some_ids = THEIRS.encode(text, verbose=False)
    assert OURS.decode(some_ids, clean_up_tokenization_spaces=True) == THEIRS.decode(
        some_ids, clean_up_tokenization_spaces=True
    )


def same_vocabulary(ours, theirs) -> None:
    assert ours.get_vocab() == theirs.get_vocab()
    assert list(ours.get_vocab()) == list(theirs.get_vocab())
    assert len(ours) == len(theirs)
    for name in (
        "vocab_size",
        "all_special_tokens",
        "all_special_ids",
        "special_tokens_map",
        "extra_special_tokens",
        "model_max_length",
        "padding_side",
        "truncation_side",
        "model_input_names",
        "split_special_tokens",
        "clean_up_tokenization_spaces",
        "max_len_single_sentence",
        "max_len_sentences_pair",
        "pad_token_type_id",
        "added_tokens_encoder",
        *(
            f"{name}_token{id}"
            for name in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
            for id in ("", "_id")
        ),
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert {i: str(token) for i, token in theirs.added_tokens_decoder.items()} == ours.added_tokens_decoder
    text = "a[MASK]éà<m><a><aa><aa>>_[UNK]"  # à shares a byte with Ã, which is a token in one case
    assert ours(text).data == theirs(text).data
    assert ours.num_special_tokens_to_add(True) == theirs.num_special_tokens_to_add(True) == 3
    assert ours.build_inputs_with_special_tokens([7], [8]) == theirs.build_inputs_with_special_tokens(
        [7], [8]
    )
    for pair in (None, [8], []):
        for method in ("get_special_tokens_mask", "create_token_type_ids_from_sequences"):
            assert getattr(ours, method)([7, 9], pair) == getattr(theirs, method)([7, 9], pair)


CONSTRUCTED = [
    {},
    {"mask_token": "<m>", "pad_token": "_", "model_max_length": 77},
    {"padding_side": "left", "truncation_side": "left", "model_max_length": None},
    {"unk_token": "[UNK]", "extra_special_tokens": ["<a>", "<aa>", "<aa>>"]},
    {"additional_special_tokens": ["<aa>"], "split_special_tokens": True, "model_input_names": ["input_ids"]},
    {"pad_token": "é", "sep_token": "Ã", "bos_token": "[EOS]"},
    {"mask_token": transformers.AddedToken("<m>"), "clean_up_tokenization_spaces": True},
]


@pytest.mark.parametrize("arguments", CONSTRUCTED)
def test_constructors_and_files(arguments, tmp_path):
    theirs, ours = transformers.PerceiverTokenizer(**arguments), PerceiverTokenizer(**arguments)
    same_vocabulary(ours, theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    same_vocabulary(PerceiverTokenizer.from_pretrained(tmp_path / "theirs"), theirs)
    same_vocabulary(ours, transformers.PerceiverTokenizer.from_pretrained(tmp_path / "ours"))
    same_vocabulary(PerceiverTokenizer.from_pretrained(tmp_path / "ours"), theirs)


def test_auto_tokenizer_knows_our_folder(tmp_path):
    OURS.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "perceiver"}))
    assert type(transformers.AutoTokenizer.from_pretrained(tmp_path)).__name__ == "PerceiverTokenizer"


def test_files_of_old_versions(tmp_path):
    """Before 4.34, tokens were in special_tokens_map.json and added_tokens.json alone."""
    files = {
        "tokenizer_config.json": {"tokenizer_class": "PerceiverTokenizer", "model_max_length": 99},
        "special_tokens_map.json": {
            "mask_token": {"content": "<m>", "lstrip": False, "rstrip": False, "single_word": False},
            "pad_token": "[PAD]",
        },
        "added_tokens.json": {"<late>": 262},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    same_vocabulary(
        PerceiverTokenizer.from_pretrained(tmp_path),
        transformers.PerceiverTokenizer.from_pretrained(tmp_path),
    )


def test_added_tokens(tmp_path):
    theirs, ours = transformers.PerceiverTokenizer(), PerceiverTokenizer()
    for tokenizer in (theirs, ours):
        assert tokenizer.add_tokens(["<a>", "<aa>", "<a>", "[MASK]", "b"]) == 2
        assert tokenizer.add_special_tokens({"mask_token": "<m>", "extra_special_tokens": ["<x>"]}) == 2
        assert tokenizer.add_special_tokens({"extra_special_tokens": ["<y>"]}, False) == 1
        assert tokenizer.add_special_tokens({"pad_token": "[EOS]"}) == 0
        tokenizer.cls_token_id = 1
        tokenizer.sep_token = "<m>"
    same_vocabulary(ours, theirs)
    ours.save_pretrained(tmp_path)
    same_vocabulary(ours, transformers.PerceiverTokenizer.from_pretrained(tmp_path))
    same_vocabulary(PerceiverTokenizer.from_pretrained(tmp_path), theirs)


def test_no_longest_length(monkeypatch):
    for tokenizer in (THEIRS, OURS):
        monkeypatch.setattr(tokenizer, "model_max_length", int(1e30))
    for options in (
        {"padding": "max_length"},
        {"truncation": True},
        {"padding": "max_length", "max_length": 9},
    ):
        same("abc", **options)


def test_targets():
    for arguments in ({"text": "a", "text_target": "bc"}, {"text_target": ["bc", "é"], "padding": True}):
        assert OURS(**arguments).data == THEIRS(**arguments).data


def test_the_order_of_arguments():
    """Positional arguments are upstream's, up to `verbose`."""
    import inspect

    theirs = list(inspect.signature(transformers.PerceiverTokenizer.__call__).parameters.values())
    ours = list(inspect.signature(PerceiverTokenizer.__call__).parameters.values())
    common = len([p for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD])
    assert [(p.name, p.default) for p in ours[:common]] == [(p.name, p.default) for p in theirs[:common]]
    for name in ("pad", "truncate_sequences"):
        expected = inspect.signature(getattr(transformers.PerceiverTokenizer, name)).parameters.values()
        got = inspect.signature(getattr(PerceiverTokenizer, name)).parameters.values()
        assert [(p.name, p.default) for p in got] == [(p.name, p.default) for p in expected]
