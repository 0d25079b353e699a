"""Prime factors by trial division, up to the largest prime whose square is not above what is left."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import divide
from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem

GYM = (
    "Find the prime factorization of {number}. Write the factors separated by × "
    "(Example: for 12 the answer would be: 2 × 2 × 3)",
)
VARIED = (
    "What are the prime factors of {number}? Write them separated by ×.",
    "Factor {number} into primes, separated by ×.",
    "Write {number} as a product of primes, separated by ×.",
)
PRIMES = tuple(p for p in range(2, 100) if all(p % d for d in range(2, p)))
STEPS = 20  # a long demonstration has as many; a slip is drawn among them


class PrimeFactorization(ProblemFamily):
    """Up to level 0.5 numbers up to 1000 (reasoning-gym's default), above it 1000 to 5000 (its hard config)."""

    name = "prime_factorization"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        if level <= self.default_level:
            number = rng.randint(2, max(10, round(2000 * level)))
        else:
            number = rng.randint(1000, round(8000 * level - 3000))
        question = self.word(rng, GYM, VARIED).format(number=number)
        return Problem(
            task=self.name,
            question=question,
            answer=" × ".join(map(str, prime_factors(number))),
            metadata={"number": number},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        slips = Slips(rng, SLIP_PROBABILITY, STEPS)
        rest, found, lines = int(problem.metadata["number"]), "", []
        prime = 2
        while prime * prime <= rest:
            limit = max(p for p in PRIMES if p * p <= rest)
            lines.append(f"{found}{rest} to {limit}")
            while rest % prime and prime < limit:
                lines.append(try_prime(rest, prime, slips))
                prime = PRIMES[PRIMES.index(prime) + 1]
            lines.append(try_prime(rest, prime, slips))
            if rest % prime:
                break
            rest //= prime
            found += f"{prime} × "
        lines.append(f"{found}{rest} prime")
        return Demonstration(reasoning="\n".join(lines), answer=f"{found}{rest}")

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 for the factors in any order, as reasoning-gym does; its half point for other products is not given."""
        try:
            factors = sorted(int(factor) for factor in answer.split("×") if factor.strip())
        except ValueError:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=f"{answer[:80]!r} is not a product of numbers")
        return Grade(score=float(factors == prime_factors(int(problem.metadata["number"]))))

    def same(self, a: str, b: str) -> bool:
        return sorted(a.replace("×", " ").split()) == sorted(b.replace("×", " ").split())


def prime_factors(number: int) -> list[int]:
    """In rising order, for a number of 2 to 10,000."""
    factors = []
    for prime in PRIMES:
        while number % prime == 0:
            factors.append(prime)
            number //= prime
    return factors + ([number] if number > 1 else [])


def try_prime(number: int, prime: int, slips: Slips) -> str:
    """One division. For 2 and 5 the last digit tells first whether it is worth doing."""
    if prime in (2, 5) and number % prime:
        return f"{number}/{prime} ends {number % 10}"
    line = divide(number, prime, slips)
    if prime in (2, 5):
        line = line.replace(":", f" ends {number % 10}:", 1)
    return line if number % prime else f"{line} > {number // prime}"
