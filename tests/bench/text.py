"""Text: filling in a masked byte, and classification. Tokenising is not measured: both sides' tokens are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from perceiver_core import PerceiverTokenizer
from perceiver_core.config import PUBLISHED
from tests.bench.measure import DEVICE
from tests.bench.task import CAREFUL, DOCUMENTED, FOLDED, PLAIN, Models, Task, Way, whole

BYTES = 200
Text = tuple[Tensor, Tensor]  # ids and attention mask, (B, N)


def texts(batch: int, length: int) -> list[str]:
    """Prose of so many bytes, each text another."""
    words = "It was a bright cold day in spring, and the clocks were about to strike an hour past noon. " * 8
    return [words[7 * index :][:length] for index in range(batch)]


def tokens(config: Any, batch: int, padding: str, masked: bool) -> Text:
    """The texts as a user tokenises them, one byte of each masked."""
    tokenizer = PerceiverTokenizer(model_max_length=config.max_position_embeddings)
    length = min(BYTES, config.max_position_embeddings - 2)
    encoding = tokenizer(texts(batch, length), padding=padding, return_tensors="pt")
    ids = encoding["input_ids"]
    if masked:
        ids[torch.arange(batch), rows(config, batch)[:, 0].cpu()] = tokenizer.mask_token_id
    return ids.to(DEVICE), encoding["attention_mask"].to(DEVICE)


def rows(config: Any, batch: int) -> Tensor:
    """(B, 1): where each text's mask is."""
    length = min(BYTES, config.max_position_embeddings - 2)
    return ((torch.arange(batch) * 13 + length // 2) % length + 1)[:, None].to(DEVICE)


@torch.no_grad()
def documented(model: Any, text: Text) -> Tensor:
    """As the model's page has it: padded to the longest text that the model takes, and every row."""
    ids, attention_mask = text
    return model(input_ids=ids, attention_mask=attention_mask).logits


@torch.inference_mode()
def careful(model: Any, text: Text, asked: Tensor) -> Tensor:
    """Through the model's own modules: padded to the longest text of the batch, and the asked-for rows alone."""
    ids, attention_mask = text
    perceiver = model.perceiver
    embedded, sizes, without_positions = perceiver.input_preprocessor(ids)
    mask = None
    if not attention_mask.all():
        mask = (1 - attention_mask[:, None, None].to(model.dtype)) * torch.finfo(model.dtype).min
    latents = perceiver.encoder(perceiver.embeddings(batch_size=len(ids)), inputs=embedded, inputs_mask=mask)[
        0
    ]
    every = perceiver.decoder.decoder_query(embedded, sizes, without_positions)
    query = every[torch.arange(len(ids), device=DEVICE)[:, None], asked]
    decoded = perceiver.decoder(query, z=latents).logits
    return model.embedding_decoder(decoded, embedding_layer=perceiver.input_preprocessor.embeddings)


@torch.inference_mode()
def ours(model: Any, text: Text, asked: Tensor) -> Tensor:
    """Ours, plain or folded: the asked-for rows."""
    ids, attention_mask = text
    return model.decode(model.encode(ids, attention_mask=attention_mask), asked)


def masked_lm(models: Models, batch: int) -> dict[str, list[Way]]:
    config = models.ours.config
    padded = tokens(config, batch, "max_length", masked=True)
    longest = tokens(config, batch, "longest", masked=True)
    asked = rows(config, batch)

    def at_masks() -> Tensor:
        every = documented(models.documented, padded)
        return every[torch.arange(batch, device=DEVICE)[:, None], asked]

    found = {
        DOCUMENTED: [whole(at_masks)],
        CAREFUL: [whole(lambda: careful(models.careful, longest, asked))],
        PLAIN: [whole(lambda: ours(models.ours, longest, asked))],
    }
    if models.folded is not None:
        found[FOLDED] = [whole(lambda: ours(models.folded, longest, asked))]
    return found


@torch.no_grad()
def documented_class(model: Any, text: Text) -> Tensor:
    """As the model's page has it: no padding, where the texts allow it."""
    return model(inputs=text[0]).logits


@torch.inference_mode()
def class_in_one_call(model: Any, text: Text) -> Tensor:
    """There is nothing to leave out, with transformers or with ours."""
    return model(inputs=text[0], attention_mask=text[1]).logits


@torch.inference_mode()
def folded_class(model: Any, text: Text) -> Tensor:
    """Ours, folded."""
    return model.decode(model.encode(text[0], attention_mask=text[1]))


def classification(models: Models, batch: int) -> dict[str, list[Way]]:
    text = tokens(models.ours.config, batch, "longest", masked=False)
    found = {
        DOCUMENTED: [whole(lambda: documented_class(models.documented, text))],
        CAREFUL: [whole(lambda: class_in_one_call(models.careful, text))],
        PLAIN: [whole(lambda: class_in_one_call(models.ours, text))],
    }
    if models.folded is not None:
        found[FOLDED] = [whole(lambda: folded_class(models.folded, text))]
    return found


_LANGUAGE = PUBLISHED["deepmind/language-perceiver"].config

TASKS = (
    Task(
        "masked-lm",
        f"Masked LM, texts of {BYTES} bytes with one mask",
        _LANGUAGE,
        121,
        "one call of 2,048 tokens and rows",
        masked_lm,
        batches=(1, 8),
        gpu_batches=(1, 32, 128),
    ),
    Task(
        "text",
        f"Text classification, texts of {BYTES} bytes",
        replace(_LANGUAGE, architectures=("PerceiverForSequenceClassification",)),
        106,
        "one call of 202 tokens",
        classification,
        batches=(1, 8),
        gpu_batches=(1, 32, 128),
    ),
)
