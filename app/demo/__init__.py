"""The built-in model showing what it can do."""
