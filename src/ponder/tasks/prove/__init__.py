"""Proof: statements as formulas or in controlled English, and what z3 says of them: proved, refuted, contradictory."""
