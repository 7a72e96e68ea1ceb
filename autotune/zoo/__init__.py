"""Well-known pipelines built from configuration on the meta device: no weights, no network."""
