"""The line a person types: keys, files that are dropped on it, completion."""
