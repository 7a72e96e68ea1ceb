"""Around a call: what an optimised pipeline's class does otherwise than the class it was made of."""
