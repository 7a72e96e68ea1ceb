"""Step 2, record: one call of the pipeline without its weights. The only room that knows FakeTensor."""
