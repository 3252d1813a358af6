"""The recipe of the built-in demonstration model: voices, pictures, questions, training, evaluation, export.

Run it with ``python -m tools.demo_model`` (see ``__main__.py``). It is not part of the installed package: it needs
torch, transformers and a few Debian packages, and it is only run again when the demonstration model is to change.
"""
