"""`gemma4-mlx bench`: how fast a machine runs a model, measured and shown.

Two halves. `measure`, `speed`, `engines` and `report` do the measuring and show nothing; they call engines and hold
their arrays. `bench`, `bench_tables` and `bench_plot` are the screens; they get a `Result` and never see an array.
"""
