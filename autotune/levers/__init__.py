"""Step 6, apply: what can be changed on a pipeline, how, and how it is undone. One file a lever."""
