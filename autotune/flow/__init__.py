"""The rooms put together: what `api.py` calls, step by step."""
