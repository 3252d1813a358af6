"""A few tokens of sound through the audio tower as a compiled graph.

Live sound comes a few tokens at a time, and then it is not arithmetic that takes the time: the tower launches a
thousand kernels, most of them clamps, sums and conversions of a few numbers each. Compiled, those between two products
are one, and Python builds no graph.
"""

from __future__ import annotations

from functools import partial

import mlx.core as mx

from .audio_encoder import AudioTower, ConformerState, LayerState
from .traced import Traced

# A graph is kept for each number of tokens. More at once are rare, and have arithmetic enough.
MOST_TOKENS = 12


class ConformerStep:
    """`AudioTower.run_conformer`, the same up to rounding.

    Args:
        tower: the tower.
    """

    def __init__(self, tower: AudioTower) -> None:
        self._tower = tower
        self._graphs: dict[int, Traced] = {}

    def __call__(self, tokens: mx.array, state: ConformerState) -> tuple[mx.array, ConformerState]:
        """The next subsampled tokens `[T, hidden]` → features `[T, output_proj_dims]` and the state after them."""
        length = len(tokens)
        if length > MOST_TOKENS:
            return self._tower.run_conformer(tokens, state)
        graph = self._graphs.setdefault(length, Traced(partial(_trace, self._tower), self._tower))
        changing = [(layer.keys, layer.values, layer.convolution_inputs) for layer in state.layers]
        distances = [layer.distance_keys for layer in state.layers]
        features, changed = graph(tokens, changing, distances, self._tower.exists(length, state.seen))
        return features, ConformerState(state.seen + length, _states(changed, distances))


# Of a step: keys, values and inputs of the convolution, for each layer.
_Changing = list[tuple[mx.array, mx.array, mx.array]]


def _trace(
    tower: AudioTower, tokens: mx.array, changing: _Changing, distances: list[mx.array], exists: mx.array
) -> tuple[mx.array, _Changing]:
    """`AudioTower.run_layers` with arrays in place of states. No method: a graph keeps its function for ever."""
    features, after = tower.run_layers(tokens, _states(changing, distances), exists)
    return features, [(state.keys, state.values, state.convolution_inputs) for state in after]


def _states(changing: _Changing, distances: list[mx.array]) -> tuple[LayerState, ...]:
    return tuple(
        LayerState(keys, values, inputs, same) for (keys, values, inputs), same in zip(changing, distances, strict=True)
    )
