"""Everything a person sees: the command line, the chat, progress and messages.

No weights, no arrays and no arithmetic in here: that is `gemma4_mlx`, which in turn never prints.
"""
