"""`load`: a name → the model and the processor that belongs to it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from .checkpoint import load_model, precision_concern, read_config, resolve
from .checkpoint.fetch_bar import bar_at_a_terminal
from .device_errors import device_errors
from .errors import PrecisionWarning
from .model import Gemma4
from .model.weights import read_weights
from .processing import Processor


@device_errors()
def load(
    name: str | Path,
    *,
    dtype: str | None = None,
    per_layer: Literal["auto", "disk", "memory"] = "auto",
    revision: str | None = None,
    audio_window: int | None = None,
    on_fetch: Callable[[int, int], None] | None = None,
) -> tuple[Gemma4, Processor]:
    """Load a Gemma 4.

    Args:
        name: a short name (`"e2b"`, `"e4b"`, `"12b"`, `"26b"`, `"31b"`), a Hub id, a local folder, or `"demo"`:
            the small model that comes with the package.
        dtype: `"float32"`, `"bfloat16"` or `"float16"` for everything that is not packed; None: what config.json
            says, else what most weights are stored in; of a quantized checkpoint what its scales are stored in.
        per_layer: where the per-layer-embedding table stays: `"disk"` reads rows as tokens ask for them, `"memory"`
            holds it whole, `"auto"` chooses by how much memory this machine has. The tokens are the same.
        revision: branch, tag or commit of a Hub id.
        audio_window: keys a token of the audio tower sees; None is the 12 of transformers, 13 the makers' JAX code.
            The other sizes have no audio tower and nothing to choose.
        on_fetch: called with (bytes here, bytes in all) while a model that is not on this machine is fetched. None: at
            a terminal huggingface_hub's bar is shown, elsewhere nothing.

    Returns:
        The model, the weights of its towers read on first use, and the processor that makes its inputs. Says with
        `PrecisionWarning` that a model computes in float16.

    Raises:
        HubError: the name cannot be found or fetched.
        CheckpointError: files are missing or damaged, or do not fit `config.json`; or the folder is no checkpoint.
        ConfigError: the checkpoint is not a Gemma 4, or packed for other machines.
        OutOfMemoryError, DeviceError: there is not enough memory for the weights, or the GPU failed.
        ValueError: an argument has a value it cannot have.
    """
    if on_fetch is not None:
        folder = resolve(str(name), revision, on_fetch)
    else:
        with bar_at_a_terminal(str(name)) as show:
            folder = resolve(str(name), revision, show)
    model = load_model(folder, read_config(folder), dtype=dtype, per_layer=per_layer, audio_window=audio_window)
    read_weights(model.language_model)
    if concern := precision_concern(model.language_model.norm.weight.dtype):
        warnings.warn(f"{name}: {concern}", PrecisionWarning, stacklevel=2)
    # The model's own config: a checkpoint without a tower's weights has a model without that tower.
    return model, Processor.from_folder(folder, model.config)
