"""Verifiers that are models: they grade an answer by reading it."""
