"""Histories for measuring memory: what a person said over many sessions, and questions of five abilities about it.

The abilities are those of LongMemEval (arXiv 2410.10813): a fact once said, facts of several sessions together, the
newest of several versions, the version of a time, and a question that nothing answers. Everything is drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

DAY = 86400.0
BEGIN = 1767225600.0  # 2026-01-01, UTC


class Ability(StrEnum):
    """What a question asks of a memory."""

    EXTRACT = "extract"
    ACROSS = "across"  # the evidence stands in two sessions
    UPDATE = "update"  # the newest version
    TIME = "time"  # the version of a time
    ABSTAIN = "abstain"  # never said


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What the person says, and what is answered. at: in seconds since 1970."""

    said: str
    reply: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryQuestion:
    """A question asked after a history.

    answer: the words that a right answer holds. Empty: it says that this is not known.
    evidence: the places of the remarks that answer it.
    at: the time it asks about; None: the time after the last remark.
    """

    ability: Ability
    text: str
    answer: str
    evidence: tuple[int, ...]
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was said, in the order of time, and questions about it."""

    remarks: tuple[Remark, ...]
    questions: tuple[MemoryQuestion, ...]


@dataclass(frozen=True, slots=True)
class _Fact:
    """A kind of fact: ways to state it, ways to ask for it. Each list begins with the wordings that defaults were
    chosen on; the last of each is held out."""

    values: tuple[str, ...]
    said: tuple[str, ...]
    asked: tuple[str, ...]
    changed: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


_FACTS = {
    "dog": _Fact(
        ("Rex", "Bruno", "Luna", "Pepper"),
        ("My dog is called {}.", "We finally named the dog {}.", "I walk my dog {} twice a day."),
        ("What is my dog called?", "What name does my dog have?", "Do you remember the dog's name?"),
    ),
    "town": _Fact(
        ("Bergen", "Leipzig", "Porto", "Graz", "Turku"),
        ("I live in {}.", "My flat is in {}, by the river, and I live there gladly.", "I have lived in {} for years."),
        ("Which town do I live in?", "In what city am I living?", "Where do I live at the moment?"),
        ("I moved: now I live in {}.", "The move is done, from now on I live in {}.", "I have moved and live in {}."),
        ("Where did I live before that?", "Which town did I live in at that time?", "Where was I living then?"),
    ),
    "job": _Fact(
        ("a baker", "a surveyor", "a nurse", "a typesetter", "an optician"),
        ("I work as {}.", "My job: I am {}.", "For a living I work as {}."),
        ("What is my job?", "What do I work as?", "What work do I do for a living?"),
        ("I changed my job and work as {} now.", "New job: I work as {} from today.", "I now work as {}, a new job."),
        ("What did I work as at that time?", "What was my job then?", "Which job did I work in before?"),
    ),
    "car": _Fact(
        ("a green Volvo", "an old Fiat", "a white Skoda", "a small Renault"),
        ("My car is {}.", "I drive {}, that is my car.", "The car that I own is {}."),
        ("Which car do I drive?", "What kind of car is mine?", "What car do I own?"),
        ("I sold my car and drive {} now.", "My new car is {}.", "I replaced the car with {}."),
        ("Which car did I drive at that time?", "What was my car then?", "Which car did I own before?"),
    ),
    "allergy": _Fact(
        ("peanuts", "penicillin", "strawberries", "latex"),
        ("I am allergic to {}.", "The doctor found an allergy: {}.", "Careful, {} give me an allergic reaction."),
        ("What am I allergic to?", "Which allergy do I have?", "What causes my allergic reaction?"),
    ),
    "sister": _Fact(
        ("Oslo", "Lyon", "Prague", "Cork"),
        ("My sister studies in {}.", "I visited my sister, she studies in {}.", "My sister went to {} to study."),
        ("Where does my sister study?", "In which town does my sister study?", "Where did my sister go to study?"),
    ),
    "instrument": _Fact(
        ("the cello", "the oboe", "the banjo", "the harp"),
        ("I play {} in an orchestra.", "My instrument is {}, I play it every day.", "Every evening I play {}."),
        ("Which instrument do I play?", "What do I play in the orchestra?", "What instrument do I play every evening?"),
    ),
    "dish": _Fact(
        ("mushroom risotto", "lentil soup", "apple strudel", "fish curry"),
        ("My favourite dish is {}.", "The dish that I like best is {}.", "{} is my favourite food."),
        ("What is my favourite dish?", "Which dish do I like best?", "What is my favourite food?"),
    ),
    "dentist": _Fact(
        ("the 3rd of June", "the 14th of June", "the 21st of June"),
        ("My dentist appointment is on {}.", "I have to see the dentist on {}.", "The dentist gave me a date: {}."),
        ("When is my dentist appointment?", "On what day do I see the dentist?", "What date did the dentist give me?"),
    ),
    "wifi": _Fact(
        ("heron-42", "maple-17", "otter-88", "quartz-05"),
        ("The password of our guest network is {}.", "Guest network password: {}.", "{} opens the guest network."),
        ("What is the guest network password?", "Guest network password?", "What opens the guest network?"),
    ),
}  # fmt: skip
_BOUGHT = ("bicycle", "helmet", "tent", "lamp", "kettle", "camera", "desk", "jacket")
_PAID = ("I bought a {} for {} euros.", "The new {} cost me {} euros.", "I paid {1} euros for a {0}.")
_TOGETHER = (
    "How much did the {} and the {} cost me together?",
    "What did I pay for the {} and the {} in all?",
    "How many euros for both the {} and the {}?",
)
_NEVER = (
    ("What is my blood type?", "What blood type do I have?", "Do you know my blood type?"),
    ("Which university did I graduate from?", "Where did I graduate?", "From what university did I graduate?"),
    ("How old is my grandfather?", "What is the age of my grandfather?", "My grandfather's age?"),
    ("What is my landlord's phone number?", "Which phone number has my landlord?", "How do I phone my landlord?"),
    ("Which football club do I support?", "What club do I support in football?", "Who do I support in football?"),
    ("What is the name of my cat?", "What is my cat called?", "Do you remember my cat?"),
    ("Where does my brother study?", "In which town does my brother study?", "Where did my brother go to study?"),
    ("When is my wedding anniversary?", "On what date is my wedding anniversary?", "Which day is our anniversary?"),
)
_CHAT = (
    ("It rained the whole {} here.", "Then it is a good day to stay inside."),
    ("Can you explain what a {} is?", "A short explanation: it depends on the context."),
    ("I read an article about the {} yesterday.", "What did you think of it?"),
    ("Please write two lines on the {}.", "Here are two lines that you can use."),
    ("What rhymes with {}?", "There are several words that come close."),
    ("A guest at the table talked about the {} for an hour.", "That sounds tiring."),
    ("Give me a title for a story about a {}.", "How about a title with one word?"),
)
_WORDS = """afternoon volcano glacier parliament comet harbour lighthouse algorithm festival orchard satellite museum
bridge desert opera railway harvest reef forest library market engine carpet mirror cathedral"""
_TOPICS = _WORDS.split()


@dataclass(slots=True)
class _Drawing:
    """A history while it is drawn. half: which wordings, those for tuning or the held-out ones."""

    rng: Random
    held_out: bool
    remarks: list[Remark] = field(default_factory=list)
    questions: list[MemoryQuestion] = field(default_factory=list)

    def wording(self, ways: Sequence[str]) -> str:
        return ways[-1] if self.held_out else self.rng.choice(ways[:-1])

    def ask(self, ability: Ability, text: str, answer: str, *evidence: int, at: float | None = None) -> None:
        self.questions.append(MemoryQuestion(ability=ability, text=text, answer=answer, evidence=evidence, at=at))


def draw_history(rng: Random, *, remarks: int = 200, held_out: bool = True) -> History:
    """A history of `remarks` remarks over half a year, most of them small talk, and its questions.

    held_out: in the wordings that no default was chosen on.
    """
    drawing = _Drawing(rng, held_out)
    kinds = rng.sample(sorted(_FACTS), len(_FACTS))
    changing = [kind for kind in kinds if _FACTS[kind].changed][:2]
    said: dict[int, str] = {}  # by place
    places = iter(rng.sample(range(remarks), 2 * len(kinds) + 4))
    drawn: list[tuple[str, str, tuple[int, ...]]] = []
    for kind in kinds:
        fact = _FACTS[kind]
        if kind in changing:
            first, second = sorted((next(places), next(places)))
            old, new = rng.sample(fact.values, 2)
            said[first], said[second] = _filled(drawing, fact.said, old), _filled(drawing, fact.changed, new)
            drawn += [(kind, old, (first, second)), (kind, new, (second,))]
        else:
            place, value = next(places), rng.choice(fact.values)
            said[place] = _filled(drawing, fact.said, value)
            drawn.append((kind, value, (place,)))
    goods = rng.sample(_BOUGHT, 2)
    prices = [rng.randrange(11, 400), rng.randrange(11, 400)]
    bought = (next(places), next(places))
    for place, thing, price in zip(bought, goods, prices, strict=True):
        said[place] = drawing.wording(_PAID).format(thing, price)
    times = sorted(rng.uniform(0, 180) for _ in range(remarks))
    for place in range(remarks):
        small, reply = rng.choice(_CHAT)
        line = said.get(place) or small.format(rng.choice(_TOPICS))
        drawing.remarks.append(
            Remark(said=line, reply="Noted, thank you." if place in said else reply, at=BEGIN + DAY * times[place])
        )
    for kind, value, evidence in drawn:
        fact = _FACTS[kind]
        if len(evidence) == 2:
            middle = (drawing.remarks[evidence[0]].at + drawing.remarks[evidence[1]].at) / 2
            drawing.ask(Ability.TIME, drawing.wording(fact.before), value, evidence[0], at=middle)
        else:
            ability = Ability.UPDATE if kind in changing else Ability.EXTRACT
            drawing.ask(ability, drawing.wording(fact.asked), value, *evidence)
    drawing.ask(Ability.ACROSS, drawing.wording(_TOGETHER).format(*goods), str(sum(prices)), *bought)
    for ways in rng.sample(_NEVER, 3):
        drawing.ask(Ability.ABSTAIN, drawing.wording(ways), "")
    return History(remarks=tuple(drawing.remarks), questions=tuple(drawing.questions))


def _filled(drawing: _Drawing, ways: Sequence[str], value: str) -> str:
    line = drawing.wording(ways).format(value)
    return line[0].upper() + line[1:]
