"""Which model: what there is, what fits, what is fetched."""
