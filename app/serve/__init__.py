"""`gemma4-mlx serve`: the model for other programs, over HTTP in the forms that they speak already."""
