"""PerceiverTokenizer: texts to bytes as ids, and back."""

from perceiver_core.tokenizer.batch_encoding import BatchEncoding
from perceiver_core.tokenizer.tokenizer import PerceiverTokenizer

__all__ = ["BatchEncoding", "PerceiverTokenizer"]
