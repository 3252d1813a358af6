"""How many kernels a GPU would be given for a token and for 0.2 s of sound, counted on MLX's graph.

    python bench/kernels.py

No GPU is needed: what is about to be evaluated is written as a graph (`mx.export_to_dot`) and its nodes are counted.
Views launch nothing and are left out; what `mx.compile` has joined is one node. What of `mx.fast` is one kernel on
Metal is many nodes on the CPU, so it is replaced by one node of the same shape: nothing computed here means anything.
Heads of 512, for which Metal has no kernel either, are left as they are. Depths are E2B's and E4B's, widths do not
matter.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from random_checkpoint import e2b_like

from gemma4_mlx.config import Config
from gemma4_mlx.log_mel import SAMPLE_RATE
from gemma4_mlx.model import Gemma4

VIEWS = frozenset(
    [
        "AsStrided",
        "Broadcast",
        "BroadcastAxes",
        "Copy",
        "Depends",
        "ExpandDims",
        "Flatten",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "StopGradient",
        "Transpose",
        "Unflatten",
        "View",
    ]
)
_FUSED_UP_TO = 256  # numbers in a head
_FAST = ("rms_norm", "layer_norm", "rope", "scaled_dot_product_attention")
SOUND_SECONDS = 0.2


class Graphs:
    """What has been evaluated.

    Attributes:
        kernels: nodes by name.
        evaluations: how often somebody waited for the device, or sent it on its way.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.kernels: Counter[str] = Counter()
        self.evaluations = 0

    def add(self, *results: Any) -> None:
        self.evaluations += 1
        arrays = [array for _, array in tree_flatten(results) if isinstance(array, mx.array)]
        with tempfile.NamedTemporaryFile(suffix=".dot") as file:
            mx.export_to_dot(file.name, *arrays)
            text = Path(file.name).read_text()
        for line in text.splitlines():
            _, primitive, rest = line.partition('[label ="')
            if primitive and (name := rest.partition('"')[0]) not in VIEWS:
                self.kernels[name] += 1

    def __str__(self) -> str:
        most = ", ".join(f"{name[:40]} {count}" for name, count in self.kernels.most_common(8))
        return f"{self.kernels.total():5} kernels in {self.evaluations} evaluations ({most})"


@contextmanager
def watched() -> Iterator[Graphs]:
    """In the body every evaluation is counted."""
    graphs = Graphs()
    before = {name: getattr(mx, name) for name in ("eval", "async_eval")}
    fast = {name: getattr(mx.fast, name) for name in _FAST}

    def counted(evaluate: Callable[..., None]) -> Callable[..., None]:
        def counting(*results: Any) -> None:
            graphs.add(*results)
            evaluate(*results)

        return counting

    def one_node(x: mx.array, *rest: Any, **named: Any) -> mx.array:
        if "mask" in named and x.shape[-1] > _FUSED_UP_TO:
            return fast["scaled_dot_product_attention"](x, *rest, **named)
        arrays = [array for array in (*rest, *named.values()) if isinstance(array, mx.array)]
        # A sum along a dimension is a node that compiling joins with no other.
        return mx.cumsum(mx.depends(x, arrays) if arrays else x, axis=-1)

    try:
        for name, evaluate in before.items():
            setattr(mx, name, counted(evaluate))
        for name in fast:
            setattr(mx.fast, name, one_node)
        yield graphs
    finally:
        for name, evaluate in before.items():
            setattr(mx, name, evaluate)
        for name, function in fast.items():
            setattr(mx.fast, name, function)


def narrow(size: str) -> Gemma4:
    """A model of a size's depth that hears."""
    config = e2b_like(64, 128, 512, head_dim=256)
    text = config["text_config"]
    if size == "e4b":
        text |= {"num_hidden_layers": 42, "num_kv_shared_layers": 18, "num_key_value_heads": 2}
        text["layer_types"] = (["sliding_attention"] * 5 + ["full_attention"]) * 7
    audio = {"model_type": "gemma4_audio", "hidden_size": 64, "num_attention_heads": 8, "output_proj_dims": 64}
    model = Gemma4(Config.from_dict(config | {"audio_config": audio | {"subsampling_conv_channels": [128, 32]}}))
    mx.eval(model.parameters())
    return model


def report(size: str) -> None:
    model = narrow(size)
    with watched() as graphs:
        cache = model.make_cache()
        stream = model.audio_stream()
        mx.eval(model(mx.arange(20)[None], cache=cache), [layer.state for layer in cache])
        sound = np.random.default_rng(0).normal(size=round(SOUND_SECONDS * SAMPLE_RATE)).astype(np.float32)
        for _ in range(3):  # the first batch ends earlier, and the second may be compiled
            graphs.clear()
            tokens = stream.feed(sound)
            tower = str(graphs)
            graphs.clear()
            model.append_soft_tokens(tokens, cache)
            mx.eval([layer.state for layer in cache])
            decoder = str(graphs)
        print(f"{size}, {len(tokens)} tokens of sound, tower:   {tower}")
        print(f"{size}, {len(tokens)} tokens of sound, decoder: {decoder}")
        for _ in range(2):
            graphs.clear()
            mx.eval(model.step(mx.array([[5]]), cache), [layer.state for layer in cache])
        print(f"{size}, a token: {graphs}")
        graphs.clear()
        mx.eval(model(mx.array([[5]]), cache=cache), [layer.state for layer in cache])
        print(f"{size}, a token without compilation: {graphs}")


def main() -> None:
    for size in ("e2b", "e4b"):
        report(size)


if __name__ == "__main__":
    main()
