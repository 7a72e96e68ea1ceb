"""Step 1, look: the machine and the pipeline as facts. Read-only."""
