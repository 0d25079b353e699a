"""Families of reasoning-gym that the bundled model has not learned: drawn, worded, checked and trained like the others.

They are outside the bundled model's training mix, its gate and its tables; a recipe names those that it wants.
"""

from ponder.tasks.families.further.ab import Ab
from ponder.tasks.families.further.binary_alternation import BinaryAlternation
from ponder.tasks.families.further.binary_matrix import BinaryMatrix
from ponder.tasks.families.further.coin_flip import CoinFlip
from ponder.tasks.families.further.color_cube_rotation import ColorCubeRotation
from ponder.tasks.families.further.complex_arithmetic import ComplexArithmetic
from ponder.tasks.families.further.count_primes import CountPrimes
from ponder.tasks.families.further.course_schedule import CourseSchedule
from ponder.tasks.families.further.family_relationships import FamilyRelationships
from ponder.tasks.families.further.game_of_life import GameOfLife
from ponder.tasks.families.further.group_anagrams import GroupAnagrams
from ponder.tasks.families.further.largest_island import LargestIsland
from ponder.tasks.families.further.manipulate_matrix import ManipulateMatrix
from ponder.tasks.families.further.needle_haystack import NeedleHaystack
from ponder.tasks.families.further.number_format import NumberFormat
from ponder.tasks.families.further.number_sequence import NumberSequence
from ponder.tasks.families.further.palindrome_generation import PalindromeGeneration
from ponder.tasks.families.further.pool_matrix import PoolMatrix
from ponder.tasks.families.further.ransom_note import RansomNote
from ponder.tasks.families.further.rotate_matrix import RotateMatrix
from ponder.tasks.families.further.self_reference import SelfReference
from ponder.tasks.families.further.shortest_path import ShortestPath
from ponder.tasks.families.further.simple_geometry import SimpleGeometry
from ponder.tasks.families.further.simple_integration import SimpleIntegration
from ponder.tasks.families.further.spiral_matrix import SpiralMatrix
from ponder.tasks.families.further.string_insertion import StringInsertion
from ponder.tasks.families.further.string_manipulation import StringManipulation
from ponder.tasks.families.further.time_intervals import TimeIntervals
from ponder.tasks.families.working.family import ProblemFamily

FURTHER_FAMILIES: dict[str, ProblemFamily] = {
    family.name: family
    for family in (
        Ab(),
        BinaryAlternation(),
        BinaryMatrix(),
        CoinFlip(),
        ColorCubeRotation(),
        ComplexArithmetic(),
        CountPrimes(),
        CourseSchedule(),
        FamilyRelationships(),
        GameOfLife(),
        GroupAnagrams(),
        LargestIsland(),
        ManipulateMatrix(),
        NeedleHaystack(),
        NumberFormat(),
        NumberSequence(),
        PalindromeGeneration(),
        PoolMatrix(),
        RansomNote(),
        RotateMatrix(),
        SelfReference(),
        ShortestPath(),
        SimpleGeometry(),
        SimpleIntegration(),
        SpiralMatrix(),
        StringInsertion(),
        StringManipulation(),
        TimeIntervals(),
    )
}
