"""`python convert.py MODEL FOLDER`: the same as `gemma4-mlx convert`, which calls `gemma4_mlx.conversion.convert`."""

import sys

from gemma4_mlx.app.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "convert")
    main()
