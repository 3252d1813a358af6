"""Everything a person sees: the command line, the chat, progress and messages.

No weights and no arrays of MLX in here: that is `gemma4_mlx`, which in turn never prints. Only what times a model
(`bench/speed.py`, `bench/engines.py`) has to hold its arrays.
"""
