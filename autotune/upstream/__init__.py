"""What diffusers, accelerate, transformers and torch keep private and we lean on: one place, with a canary for each name.

`port` is what everything above asks of a pipeline. The canaries are `tests/contract/test_contract_upstream.py`.
"""
