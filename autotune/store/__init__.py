"""Step 7, remember: profiles as files, found again by the next call."""
