"""The families: tasks with demonstrations, each one short file."""

from ponder.tasks.families.base_conversion import BaseConversion
from ponder.tasks.families.basic_arithmetic import BasicArithmetic
from ponder.tasks.families.calendar_arithmetic import CalendarArithmetic
from ponder.tasks.families.chain_sum import ChainSum
from ponder.tasks.families.count_bits import CountBits
from ponder.tasks.families.countdown import Countdown
from ponder.tasks.families.family import Family
from ponder.tasks.families.gcd import Gcd
from ponder.tasks.families.knights_knaves import KnightsKnaves
from ponder.tasks.families.leg_counting import LegCounting
from ponder.tasks.families.letter_counting import LetterCounting
from ponder.tasks.families.mini_sudoku import MiniSudoku
from ponder.tasks.families.prime_factorization import PrimeFactorization
from ponder.tasks.families.products import Products
from ponder.tasks.families.simple_equations import SimpleEquations
from ponder.tasks.families.spell_backward import SpellBackward
from ponder.tasks.families.syllogism import Syllogism

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        BaseConversion(),
        BasicArithmetic(),
        CalendarArithmetic(),
        ChainSum(),
        CountBits(),
        Countdown(),
        Gcd(),
        KnightsKnaves(),
        LegCounting(),
        LetterCounting(),
        MiniSudoku(),
        PrimeFactorization(),
        Products(),
        SimpleEquations(),
        SpellBackward(),
        Syllogism(),
    )
}
