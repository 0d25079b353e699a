"""Shipped fakes, for tests of Ponder and of what is built on it.

Import from the modules: `tiny` (ByteTokenizer, tiny_model, tiny_sampler, ParrotModel), `scripted` (ScriptedSampler),
`script` (Say), `endpoint` (StubEndpoint), `parity` (assert_logprobs_are_those_of_training).
"""
