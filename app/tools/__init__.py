"""Functions of the person's own that the model may call."""
