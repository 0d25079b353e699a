"""Families that the prover grades: contradictions, what follows, causes. reasoning-gym has no datasets of these."""

from ponder.tasks.families.logic.causes import Causes
from ponder.tasks.families.logic.contradictions import Contradictions
from ponder.tasks.families.logic.follows import Follows
from ponder.tasks.families.working.family import ProblemFamily

LOGIC_FAMILIES: dict[str, ProblemFamily] = {each.name: each for each in (Contradictions(), Follows(), Causes())}
