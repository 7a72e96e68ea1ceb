"""Step 3, replay: a trace under a plan on a device gives bytes and seconds. Arithmetic on records."""
