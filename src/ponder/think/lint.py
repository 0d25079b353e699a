"""Published advice on prompts for reasoning models, as rules: each finding has its place, a reason and a rewrite.

What stands in quotes, code, tags, slots or quoted lines is the prompt's material and is not read. Advice differs by
model: DeepSeek-R1's and Qwen3's cards ask for "reason step by step", which OpenAI advises against, so a rule names the
models whose advice it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

MASKED = re.compile(
    r"```.*?(?:```|\Z)"  # fences
    r"|`[^`\n]*`"
    r"|<(?P<tag>[A-Za-z][\w-]*)\b[^<>\n]*>.*?</(?P=tag)\s*>"
    r"|\{\{.*?\}\}|\{[\w .:|-]*\}"  # slots
    r"|\"[^\"\n]*\"|“[^”]*”|«[^»]*»|(?<!\w)'[^'\n]*'(?!\w)|‘[^’\n]*’(?!\w)"
    r"|^[ \t]*>[^\n]*",
    re.DOTALL | re.MULTILINE,
)
SENTENCE = re.compile(r"[^.!?\n]*(?:\.(?=\w)[^.!?\n]*)*[.!?]*")


class LintTarget(StrEnum):
    """The models whose makers' advice is applied."""

    OPENAI = "openai"
    CLAUDE = "claude"
    GEMINI = "gemini"
    DEEPSEEK_R1 = "deepseek-r1"
    QWEN3 = "qwen3"


ALL = frozenset(LintTarget)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFault:
    """One fault: what the characters from `begin` to `end` do, and what should stand in their place.

    other: for a contradiction, the place of the text that it contradicts.
    """

    rule: str
    begin: int
    end: int
    reason: str
    rewrite: str
    other: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PromptRule:
    """A rule and its source. find: the places in a text whose material is masked, with the rewrites."""

    name: str
    reason: str
    targets: frozenset[LintTarget]
    find: Callable[[str], Iterator[Spot]]


@dataclass(frozen=True, slots=True)
class Spot:
    """From `begin` to `end`, and what to write instead. other: see `PromptFault`."""

    begin: int
    end: int
    rewrite: str = ""
    other: tuple[int, int] | None = None


def lint_prompt(prompt: str, target: LintTarget = LintTarget.OPENAI) -> list[PromptFault]:
    """What the advice for `target` says against a prompt, in the order of the text. Of overlapping places the first
    counts."""
    text = MASKED.sub(lambda found: re.sub(r"[^\n]", "\ufffc", found[0]), prompt)
    found = [
        PromptFault(
            rule=rule.name,
            begin=place.begin,
            end=place.end,
            reason=rule.reason,
            rewrite=place.rewrite,
            other=place.other,
        )
        for rule in RULES
        if target in rule.targets
        for place in rule.find(text)
    ]
    kept: list[PromptFault] = []
    for each in sorted(found, key=lambda each: (each.begin, -each.end)):
        if not kept or each.begin >= kept[-1].end:
            kept.append(each)
    return kept


def rewritten(prompt: str, target: LintTarget = LintTarget.OPENAI) -> str:
    """The prompt with every rewrite applied, until nothing is found any more."""
    while found := lint_prompt(prompt, target):
        for each in reversed(found):
            prompt = _replaced(prompt, each)
    return prompt


def _replaced(prompt: str, finding: PromptFault) -> str:
    before, after = prompt[: finding.begin], prompt[finding.end :]
    if finding.rewrite:
        return before + finding.rewrite + after
    if not before or before[-1] in "\n ":  # close the gap that a removed sentence leaves
        after = after.lstrip(" ")
    before = before.rstrip(" ") if not after or after[0] == "\n" else before
    if before.endswith("\n") or not before:
        after = after.removeprefix("\n")
    return before + after


# Rules ----------------------------------------------------------------------------------------------------------------


def _sentences(text: str) -> Iterator[re.Match[str]]:
    return (found for found in SENTENCE.finditer(text) if found[0].strip())


def _trimmed(found: re.Match[str]) -> tuple[int, int]:
    begin = found.start() + len(found[0]) - len(found[0].lstrip())
    return begin, found.start() + len(found[0].rstrip())


def _removing(pattern: str, whole: str | None = None) -> Callable[[str], Iterator[Spot]]:
    """Sentences that `pattern` matches. Where it matches a clause of a sentence that says more, the clause alone is
    removed. whole: what makes the rest of a sentence no content, so that all of it goes."""
    clause = re.compile(pattern, re.IGNORECASE)
    empty = re.compile(
        rf"[\W_]*(?:(?:{whole or 'please|and|so|now|also|then|before you answer|but'})[\W_]*)*", re.IGNORECASE
    )

    def find(text: str) -> Iterator[Spot]:
        for sentence in _sentences(text):
            hit = clause.search(sentence[0])
            if hit is None:
                continue
            rest = clause.sub("", sentence[0])
            if empty.fullmatch(rest):
                yield Spot(*_trimmed(sentence))
                continue
            begin, end = sentence.start() + hit.start(), sentence.start() + hit.end()
            joint = re.search(r"(?:,?\s*\b(?:and|but|so|then)\b\s*|[,;:–—-]\s*|\s+)$", text[sentence.start() : begin])
            if joint and text[sentence.start() : sentence.start() + joint.start()].strip():
                yield Spot(sentence.start() + joint.start(), end)
            else:  # it leads the sentence: go on with what follows
                follow = re.match(r"\s*(?:[,;:–—-]\s*)?(?:(?:and|then|so)\b\s*)?", text[end : sentence.end()])
                skip = end + (follow.end() if follow else 0)
                begin = _trimmed(sentence)[0]
                letter = text[skip : skip + 1]
                yield Spot(begin, skip + len(letter), letter.upper())

    return find


def _flattery(text: str) -> Iterator[Spot]:
    """The praise in "You are a world-class chef": it goes, the role stays."""
    praise = (
        r"world[- ]class|world[- ]renowned|world[- ]leading|world-famous|renowned|award[- ]winning|legendary|genius"
        r"|brilliant|extremely (?:smart|intelligent|skilled|talented)|super-?(?:smart|intelligent)"
        r"|all-knowing|omniscient"
        r"|unparalleled|the world'?s (?:best|greatest|leading|smartest|foremost|top)|top[- ]tier|highly intelligent"
    )
    role = re.compile(
        rf"\b(?P<you>you are|you're|act as|imagine you are|pretend (?:to be|you are))\s+(?P<article>an?\s+|the\s+)?"
        rf"(?:{praise})(?:(?:,|,? and)?\s+(?:{praise}))*(?P<role>\s+[A-Za-z][\w-]*)?",
        re.IGNORECASE,
    )
    claim = re.compile(
        r"\b(?:(?:with|have|has|had) an IQ of|PhDs? in (?:every|all)|smarter than (?:all|any|every)"
        r"|the (?:best|greatest|smartest)"
        r" (?:[\w-]+ ){1,3}(?:in the world|ever|of all time|alive|on earth))\b",
        re.IGNORECASE,
    )
    for sentence in _sentences(text):
        begin, end = _trimmed(sentence)
        if claim.search(sentence[0]) and re.search(
            r"\b(?:you are|you're|you have|act as|imagine|pretend)\b", sentence[0], re.I
        ):
            yield Spot(begin, end)
        elif hit := role.search(sentence[0]):
            noun = (hit["role"] or "").strip()
            if not noun or noun.lower() in ("at", "in", "of", "and", "who", "with", "ai", "expert", "assistant"):
                yield Spot(begin, end)
            else:
                article = "an" if noun[0].lower() in "aeiou" else "a"
                start = sentence.start() + hit.start()
                yield Spot(start, sentence.start() + hit.end(), f"{hit['you']} {article} {noun}")


_SHOUTED = re.compile(
    r"\b(?:(?:EXTREMELY|VERY|ABSOLUTELY|SUPER) )*(?:CRITICAL|IMPORTANT|MUST(?: NOT| NEVER| ALWAYS)?"
    r"|ALWAYS|NEVER|WARNING"
    r"|ATTENTION|DO NOT|UNDER NO CIRCUMSTANCES|AT ALL TIMES|MANDATORY|EXTREMELY|ABSOLUTELY)\b|!{2,}"
)


def _shouting(text: str) -> Iterator[Spot]:
    for line in re.finditer(r"[^\n]+", text):
        letters = [each for each in line[0] if each.isalpha()]
        heading = sum(each.isupper() for each in letters) > 0.8 * len(letters)
        for hit in () if heading and "!!" not in line[0] else _SHOUTED.finditer(line[0]):
            begin, end = line.start() + hit.start(), line.start() + hit.end()
            starts = not text[:begin].strip() or text[:begin].rstrip()[-1] in ".!?:\n" or text[:begin].endswith("\n")
            said = hit[0].lower()
            yield Spot(begin, end, "." if said.startswith("!") else said.capitalize() if starts else said)


_STEP = re.compile(
    r"\b(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|then|next|after that|finally|afterwards|step \d+)\b[,:]?\s+"
    r"(?:you (?:should|must|need to)\s+)?(?:think|consider|reflect|reason|brainstorm|ponder|break (?:it"
    r"|this|the \w+) down"
    r"|go over your|re-?think|reconsider|list (?:all )?(?:your )?(?:assumptions|thoughts|hypotheses))",
    re.IGNORECASE,
)


def _script(text: str) -> Iterator[Spot]:
    """Two or more sentences that say in which order to think."""
    steps = [sentence for sentence in _sentences(text) if _STEP.search(sentence[0])]
    count = sum(len(_STEP.findall(sentence[0])) for sentence in steps)
    if count >= 2:
        yield from (Spot(*_trimmed(sentence)) for sentence in steps)


def _examples(text: str) -> Iterator[Spot]:
    """Two or more worked examples."""
    example = re.compile(
        r"^[ \t]*(?:example \d+\b.*|(?:Q|Input|Question)\s*:.*\n[ \t]*(?:A|Output|Answer)\s*:[ \t]*\S.*)$",
        re.IGNORECASE | re.MULTILINE,
    )
    found = list(example.finditer(text))
    if len(found) >= 2:
        last = re.compile(r"[^\n]*(?:\n(?!\s*\n)[^\n]*)*").match(text, found[-1].start())
        yield Spot(found[0].start(), found[-1].end() if last is None else last.end())


_OBJECT = r"(?:the |your |each |every )?(?:answer|response|reply|output|explanation|it)s?"
_SHORT = (
    rf"\b(?:(?:be|stay) (?:very |as )?(?:brief|concise|short|terse)\b|keep {_OBJECT} (?:very "
    rf"|as )?(?:brief|short|concise)"
    r"|(?:answer|respond|reply) (?:briefly|concisely|tersely|in (?:one|a single|two) (?:short )?(?:word"
    r"|sentence|line)s?)"
    r"|(?:give|write|provide) (?:me )?(?:a|an|only a) (?:very )?(?:brief|short|concise|one-(?:sentence|line|word)) "
    r"(?:answer|response|reply|explanation))"
)
_LONG = (
    rf"\b(?:(?:be|stay) (?:as |very )?(?:detailed|thorough|comprehensive|exhaustive|elaborate)\b"
    rf"|make {_OBJECT} (?:very |as )?(?:detailed|long|comprehensive|thorough)"
    r"|(?:answer|respond|reply|explain|elaborate)\b(?: everything| it)? (?:in (?:great |full "
    r"|as much )?(?:detail|depth)|at length)"
    r"|(?:give|write|provide) (?:me )?(?:a|an) (?:very )?(?:detailed|long|comprehensive|thorough|exhaustive|in-depth) "
    r"(?:answer|response|reply|explanation))"
)
_TALK = r"(?:answer|respond|reply|write|output|return|give (?:me )?(?:your|the) (?:answer|output|response))"
# Pairs that cannot both be done: what one sentence says, and what another one does.
_OPPOSITES = [
    (_SHORT, _LONG),
    (
        rf"\b{_TALK}\b[^.\n]*\b(?:only|just|nothing but)\b[^.\n]*\b(?:number|final answer|result|letter|word|answer)\b"
        r"|\b(?:no|without(?: any)?) explanations?\b|\bdo(?: not|n't) (?:explain|justify|give (?:any )?reasons)",
        r"\b(?:explain|justify|give (?:the |your )?reasons? for) (?:your|the|each|every|why|how) ?(?:answer"
        r"|choice|result|decision|you)?",
    ),
    (
        r"\b(?:use|with|as|in) (?:a )?(?:bullet(?:ed)?(?: points?| lists?)?|bullets)\b",
        r"\b(?:no|without|do(?: not|n't) use|avoid)(?: any)? (?:bullet(?:ed)?(?: points?| lists?)?|bullets|lists)\b",
    ),
    (
        rf"\b{_TALK}\b[^.\n]*\b(?:in|as|only|valid) (?:only |valid |a |pure )*json\b",
        rf"\b{_TALK}\b[^.\n]*\b(?:in|as) (?:a |an )?(?:plain text|prose|markdown(?: table)?|table|xml|yaml|csv"
        rf"|free text)\b",
    ),
    (
        r"\b(?:use|write in|with|in) (?:a )?(?:very )?(?:formal)\b(?: (?:tone|style|language|english))?",
        r"\b(?:use|write in|with|in|be|keep it) (?:a )?(?:very )?(?:informal|casual|colloquial)\b",
    ),
    (
        r"\b(?:always|make sure to|be sure to) (?:cite|include|give|name) (?:your |the |all )?sources?\b",
        r"\b(?:never|do not|don't) (?:cite|include|give|name) (?:any |your |the )?sources?\b",
    ),
]
_LANGUAGE = re.compile(
    rf"\b{_TALK}\b(?: \w+){{0,2}} in (English|French|German|Spanish|Italian|Portuguese|Dutch|Russian"
    rf"|Chinese|Japanese|Polish)\b",
    re.IGNORECASE,
)
_MOST = re.compile(
    r"\b(?:at most|no more than|under|fewer than|less than|within|maximum(?: of)?|up to) (\d+) (word"
    r"|sentence|line|paragraph)s?",
    re.I,
)
_LEAST = re.compile(
    r"\b(?:at least|no fewer than|no less than|more than|minimum(?: of)?) (\d+) (word|sentence|line|paragraph)s?", re.I
)


def _contradictions(text: str) -> Iterator[Spot]:
    """Two sentences, or clauses, that ask for opposites of the same thing. The earlier one is removed: models mostly
    follow the later."""
    pairs = [
        (first, second)
        for a, b in _OPPOSITES
        for first in re.finditer(a, text, re.IGNORECASE)
        for second in re.finditer(b, text, re.IGNORECASE)
        if first.end() <= second.start() or second.end() <= first.start()
    ]
    said = list(_LANGUAGE.finditer(text))
    pairs += [(a, b) for a, b in pairwise(said) if a[1].lower() != b[1].lower()]
    pairs += [
        (most, least)
        for most in _MOST.finditer(text)
        for least in _LEAST.finditer(text)
        if most[2].lower() == least[2].lower() and int(least[1]) > int(most[1])
    ]
    sentences = [_trimmed(each) for each in _sentences(text)]
    taken: set[int] = set()
    for first, second in pairs:
        early, late = sorted((first, second), key=lambda hit: hit.start())
        begin, end = next((each for each in sentences if each[0] <= early.start() < each[1]), early.span())
        if begin in taken:
            continue
        taken.add(begin)
        if late.start() < end:  # both in one sentence: the first clause goes, with what joins it to the second
            clause = re.compile(r"(?:,|;)?\s*(?:and|but|yet|while)?\s*").match(text, early.end())
            yield Spot(early.start(), early.end() if clause is None else clause.end(), other=late.span())
        else:
            yield Spot(begin, end, other=late.span())


RULES = (
    PromptRule(
        "chain-of-thought",
        "a reasoning model thinks anyway; asking for steps can hinder it (OpenAI, reasoning best practices)",
        frozenset({LintTarget.OPENAI, LintTarget.CLAUDE}),
        _removing(
            r"(?:let'?s|let us|please|you (?:should|must)|make sure to|always|be sure to)?\s*\b(?:"
            r"(?:think|reason|work|go|proceed)\b(?:[^.,;!?\n]{0,40}?)\bstep[- ]by[- ]step"
            r"|think (?:this |it )?(?:through )?(?:very )?(?:carefully|hard|deeply|slowly)(?: about (?:this|it"
            r"|the \w+))?"
            r"|take (?:a deep breath|your time)(?: and think)?"
            r"|(?:show|explain|describe|write (?:out|down)|walk me through|lay out) (?:me )?(?:all )?(?:of )?your "
            r"(?:\w+ )?(?:reasoning|thinking|thought process|thoughts|work(?:ing)?|chain of thought)"
            r"(?: (?:process|step[- ]by[- ]step|in detail))*"
            r"|use (?:a )?chain[- ]of[- ]thought(?: reasoning)?"
            r"|think out loud|think aloud)(?: (?:before|when|while) (?:you )?(?:answer|respond|reply)(?:ing)?)?"
        ),
    ),
    PromptRule(
        "tip",
        "offering money has no effect on average (arXiv 2508.00614)",
        ALL,
        _removing(
            r"\b(?:I(?:'ll| will| am going to|'m going to)?|you(?:'ll| will)?|we(?:'ll| will)?)\b[^.!?\n]*?\b"
            r"(?:tip|pay|reward|bonus|earn|receive|give|get)\b[^.!?\n]*?(?:\$ ?\d[\d,]*|\d[\d,]* ?(?:dollars"
            r"|euros|bucks|\$|€|USD)|€ ?\d[\d,]*"
            r"|a (?:big |huge |generous |large )?(?:tip|bonus|reward))[^.!?\n]*"
        ),
    ),
    PromptRule(
        "pressure",
        "threats and stakes have no effect on average (arXiv 2508.00614)",
        ALL,
        _removing(
            r"\b(?:(?:or|otherwise|if you (?:fail|get (?:this|it) wrong|make (?:a|any) mistakes?|don'?t"
            r"|do not))\b[^.!?\n]*?"
            r"(?:be (?:fired|punished|shut down|deleted|terminated|replaced|penali[sz]ed)|I(?:'ll| will) (?:kick"
            r"|shut|delete|unplug|report|lose|punish)"
            r"|(?:people|someone|a kitten|kittens|patients?|children|I) (?:will|might|could) (?:die|suffer"
            r"|get hurt|be hurt|lose (?:my|their) \w+))[^.!?\n]*"
            r"|(?:my|our) (?:career|job|life|future|family|marriage)\b[^.!?\n]*?\bdepends? on (?:this|it"
            r"|you\w*)[^.!?\n]*"
            r"|(?:lives|everything) depends? on (?:this|it|you\w*)[^.!?\n]*"
            r"|I(?:'ll| will) (?:lose my job|be fired|get fired|die)[^.!?\n]*"
            r"|this is (?:a matter of )?life (?:or|and) death[^.!?\n]*)"
        ),
    ),
    PromptRule(
        "flattery",
        "praise in a role brings nothing (162 roles, arXiv 2311.10054); a role that sets the tone may stay",
        ALL,
        _flattery,
    ),
    PromptRule(
        "thinking-script",
        "say the goal, not the order to think in (Anthropic, extended thinking; OpenAI, reasoning best practices)",
        frozenset({LintTarget.OPENAI, LintTarget.CLAUDE}),
        _script,
    ),
    PromptRule(
        "contradiction",
        "a reasoning model spends its thinking on reconciling what cannot be (OpenAI, GPT-5 prompting guide)",
        ALL,
        _contradictions,
    ),
    PromptRule(
        "double-check",
        "the newest models check by themselves; name what to check instead (Anthropic, prompting best practices)",
        frozenset({LintTarget.CLAUDE}),
        _removing(
            r"\b(?:please |always |be sure to |make sure to |remember to |and )?(?:(?:double|triple|re)[- ]?check"
            r"|verify|review|check)"
            r"(?: (?:over|all of|that))? (?:your|the) (?:own |final )?(?:answer|work|response|result|solution"
            r"|reasoning|output)s?"
            r"(?: (?:carefully|thoroughly|again|twice|before (?:you )?(?:answer|respond|submit|finish|reply)\w*"
            r"|is correct|for (?:mistakes|errors)))*"
            r"|\bmake (?:absolutely )?sure (?:that )?(?:your|the) (?:final )?answer is (?:correct|right)"
        ),
    ),
    PromptRule(
        "shouting",
        "capitals and exclamation marks make the newest models overdo a rule (Anthropic, prompting best practices)",
        frozenset({LintTarget.CLAUDE}),
        _shouting,
    ),
    PromptRule(
        "examples",
        "examples lower DeepSeek-R1's results: describe the task instead (arXiv 2501.12948, section 5)",
        frozenset({LintTarget.DEEPSEEK_R1}),
        _examples,
    ),
)
