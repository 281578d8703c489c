"""The tokenizer's files, in Hugging Face's layout: tokenizer_config.json and special_tokens_map.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceiver_core.checkpoint import CheckpointError

CONFIG, SPECIAL_TOKENS, ADDED_TOKENS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_CLASS = "PerceiverTokenizer"
_OF_ONE_MACHINE = (
    "name_or_path",
    "is_local",
    "local_files_only",
    "backend",
    "tokenizer_class",
    "init_inputs",
)


def token_text(name: str, value: Any) -> str:
    """The text of a token that is a str, Hugging Face's AddedToken, or an AddedToken's dict in JSON.

    Raises ValueError for anything else, and for an AddedToken that takes spaces or whole words: none here does.
    """
    fields = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    text = value if isinstance(value, str) else fields.get("content", getattr(value, "content", None))
    if not isinstance(text, str) or not text:
        raise ValueError(
            f"{name} must be a text that is not empty; got {value!r}. Give a str, as in pad_token='[PAD]'."
        )
    for option in ("lstrip", "rstrip", "single_word"):
        if fields.get(option, getattr(value, option, False)) and not isinstance(value, str):
            raise ValueError(
                f"{name} must be a token that is found as it is written; got {text!r} with {option}=True. "
                f"Set {option} to false: spaces and words are bytes like all others."
            )
    return text


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The constructor's arguments for a checkpoint folder: its files', or none if it is a Perceiver without them.

    Raises CheckpointError for files that are not those of a Perceiver's tokenizer.
    """
    if not (folder / CONFIG).is_file() and not (folder / SPECIAL_TOKENS).is_file():
        model_type = _read(folder / "config.json").get("model_type")
        if model_type != "perceiver":
            raise CheckpointError(
                f"A tokenizer's folder must have {CONFIG}, or the config.json of a Perceiver; {str(folder)!r} has "
                f"neither, its model_type is {model_type!r}. PerceiverTokenizer() is the published tokenizer."
            )
        return {}
    config = _read(folder / CONFIG)
    written_by = config.get("tokenizer_class", _CLASS)
    if written_by != _CLASS:
        raise CheckpointError(
            f"{folder / CONFIG}: tokenizer_class must be {_CLASS!r}; got {written_by!r}. Is this the right checkpoint?"
        )
    if "added_tokens_decoder" not in config:  # before transformers 4.34 they were in files of their own
        config.update(_read(folder / SPECIAL_TOKENS))
        config["added_tokens_decoder"] = {i: text for text, i in _read(folder / ADDED_TOKENS).items()}
    return {name: value for name, value in config.items() if name not in _OF_ONE_MACHINE}


def write_tokenizer(
    folder: Path, prefix: str, config: Mapping[str, Any], special: Mapping[str, Any], added: Mapping[int, str]
) -> tuple[str, ...]:
    """Writes the files, so that any version of transformers reads them, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {text for value in special.values() for text in ([value] if isinstance(value, str) else value)}
    decoder = {
        str(index): {
            "content": text,
            "lstrip": False,
            "normalized": text not in names,
            "rstrip": False,
            "single_word": False,
            "special": text in names,
        }
        for index, text in sorted(added.items())
    }
    contents: dict[str, Mapping[str, Any]] = {
        CONFIG: {**config, **special, "added_tokens_decoder": decoder, "tokenizer_class": _CLASS},
        SPECIAL_TOKENS: special,
    }
    # old versions give these ids to the special tokens by themselves and look for others here
    if late := {text: index for index, text in added.items() if index >= 262}:
        contents[ADDED_TOKENS] = late
    for name, values in contents.items():
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / (prefix + name)).write_text(text, encoding="utf-8")
    return tuple(str(folder / (prefix + name)) for name in contents)


def _read(file: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} must be JSON in UTF-8; got: {error}. Download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{file} must be a JSON object; got {type(values).__name__}. Download it again."
        )
    return values
