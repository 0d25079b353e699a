"""Families of reasoning-gym that the bundled model has not learned: drawn, worded, checked and trained like the others.

They are outside the bundled model's training mix, its gate and its tables; a recipe names those that it wants.
"""

from ponder.tasks.families.further.ab import Ab
from ponder.tasks.families.further.binary_alternation import BinaryAlternation
from ponder.tasks.families.further.coin_flip import CoinFlip
from ponder.tasks.families.further.count_primes import CountPrimes
from ponder.tasks.families.further.palindrome_generation import PalindromeGeneration
from ponder.tasks.families.further.ransom_note import RansomNote
from ponder.tasks.families.further.self_reference import SelfReference
from ponder.tasks.families.further.simple_integration import SimpleIntegration
from ponder.tasks.families.further.string_insertion import StringInsertion
from ponder.tasks.families.working.family import ProblemFamily

FURTHER_FAMILIES: dict[str, ProblemFamily] = {
    family.name: family
    for family in (
        Ab(),
        BinaryAlternation(),
        CoinFlip(),
        CountPrimes(),
        PalindromeGeneration(),
        RansomNote(),
        SelfReference(),
        SimpleIntegration(),
        StringInsertion(),
    )
}
