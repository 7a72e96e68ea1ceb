"""The nouns: frozen pydantic records that the rooms hand to one another. No torch, no input or output."""
