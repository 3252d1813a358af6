"""Converting: a checkpoint that is not quantized in, one that is out. Loading needs nothing of this room."""
