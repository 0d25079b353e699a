"""Shipped fakes: a byte tokenizer, a tiny random model, a sampler over them.

Import from the modules: `tiny` (ByteTokenizer, tiny_model, tiny_sampler).
"""
