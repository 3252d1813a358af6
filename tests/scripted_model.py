"""A model that writes what a test hands it, one text after another, whatever it is asked. Not a test itself."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

import gemma4_mlx as g4
from gemma4_mlx.model.cache import Caches
from gemma4_mlx.model.full_cache import FullCache
from gemma4_mlx.model.step import Pending
from gemma4_mlx.model.turns import Turns


class ScriptedModel:
    """Answers the first prompt with the first text, the second with the second, and so on.

    Args:
        processor: whose tokens it writes; control tokens in the texts are control tokens.
        config: of the model whose place it takes.
        texts: what it writes. The end of its turn is added.
    """

    def __init__(self, processor: g4.Processor, config, *texts: str) -> None:
        self.config = config
        self.turns = Turns()
        self.language_model = nn.Module()  # for what its weights take: nothing
        self.language_model.norm = nn.RMSNorm(1)
        self.context_length = config.text.max_position_embeddings
        self._scripts = [processor.tokenizer.encode(text + "<turn|>") for text in texts]
        self._has_written = False

    def make_cache(self, kv_bits: int | None = None) -> Caches:
        return Caches.of([FullCache()])

    def __call__(self, inputs, cache, last_only=False, per_layer_rows=None):
        length = (inputs if isinstance(inputs, mx.array) else inputs.input_ids).shape[1]
        cache[0].update_and_fetch(*[mx.zeros((1, 1, length, 1))] * 2)
        if last_only:
            if self._has_written:  # and not only read the piece before of the same prompt
                del self._scripts[0]
            self._left = iter(self._scripts[0])
        self._has_written = not last_only
        token = next(self._left, 0)
        return (mx.arange(self.config.text.vocab_size) == token).astype(mx.float32)[None, None]

    def encode_images(self, inputs):
        return [mx.zeros((1, 1)) for _ in inputs.images]

    def per_layer_rows(self, inputs):
        return None

    def step_ahead(self, ids, cache, padding=None):
        return Pending(self(ids, cache))
