"""The families: tasks with demonstrations, each one short file."""

from ponder.tasks.families.base_conversion import BaseConversion
from ponder.tasks.families.basic_arithmetic import BasicArithmetic
from ponder.tasks.families.caesar_cipher import CaesarCipher
from ponder.tasks.families.calendar_arithmetic import CalendarArithmetic
from ponder.tasks.families.chain_sum import ChainSum
from ponder.tasks.families.count_bits import CountBits
from ponder.tasks.families.countdown import Countdown
from ponder.tasks.families.decimal_chain_sum import DecimalChainSum
from ponder.tasks.families.fraction_simplification import FractionSimplification
from ponder.tasks.families.gcd import Gcd
from ponder.tasks.families.isomorphic_strings import IsomorphicStrings
from ponder.tasks.families.knights_knaves import KnightsKnaves
from ponder.tasks.families.lcm import Lcm
from ponder.tasks.families.leg_counting import LegCounting
from ponder.tasks.families.letter_counting import LetterCounting
from ponder.tasks.families.mini_sudoku import MiniSudoku
from ponder.tasks.families.number_filtering import NumberFiltering
from ponder.tasks.families.number_sorting import NumberSorting
from ponder.tasks.families.power_function import PowerFunction
from ponder.tasks.families.prime_factorization import PrimeFactorization
from ponder.tasks.families.products import Products
from ponder.tasks.families.simple_equations import SimpleEquations
from ponder.tasks.families.spell_backward import SpellBackward
from ponder.tasks.families.string_splitting import StringSplitting
from ponder.tasks.families.string_synthesis import StringSynthesis
from ponder.tasks.families.syllogism import Syllogism
from ponder.tasks.families.word_sequence_reversal import WordSequenceReversal
from ponder.tasks.families.word_sorting import WordSorting
from ponder.tasks.families.working.family import ProblemFamily

FAMILIES: dict[str, ProblemFamily] = {
    family.name: family
    for family in (
        BaseConversion(),
        BasicArithmetic(),
        CaesarCipher(),
        CalendarArithmetic(),
        ChainSum(),
        CountBits(),
        Countdown(),
        DecimalChainSum(),
        FractionSimplification(),
        Gcd(),
        IsomorphicStrings(),
        KnightsKnaves(),
        Lcm(),
        LegCounting(),
        LetterCounting(),
        MiniSudoku(),
        NumberFiltering(),
        NumberSorting(),
        PowerFunction(),
        PrimeFactorization(),
        Products(),
        SimpleEquations(),
        SpellBackward(),
        StringSplitting(),
        StringSynthesis(),
        Syllogism(),
        WordSequenceReversal(),
        WordSorting(),
    )
}
