"""Things run for real, on the device that is here: how long they take."""
