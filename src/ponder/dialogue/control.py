"""The control tokens of Ponder's own format, in vocabulary order (`docs/format.md`). They are spelled here only."""

from __future__ import annotations

from ponder.dialogue.messages import Role

ENDOFTEXT = "<|endoftext|>"  # separates documents, pads batches
SYSTEM = "<|system|>"
DEVELOPER = "<|developer|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
TOOL = "<|tool|>"
END = "<|end|>"  # closes a turn
NAME = "<|name|>"  # after a role token: the speaker's name follows, up to BODY
BODY = "<|body|>"
THINK = "<|think|>"
END_THINK = "<|/think|>"
STATE = "<|state|>"  # within thinking: opens a state, FOLD closes it and frees the thoughts before it
FOLD = "<|fold|>"
CALL = "<|call|>"
ARGS = "<|args|>"
END_CALL = "<|/call|>"
RESULT = "<|result|>"
END_RESULT = "<|/result|>"
SPAWN = "<|spawn|>"  # within thinking: a council; the number of its voices follows
TO = "<|to|>"  # opens the lane of each voice
JOIN = "<|join|>"  # a voice ends the council

NUM_RESERVED = 32
RESERVED = tuple(f"<|reserved_{i}|>" for i in range(NUM_RESERVED))
LEAVE = RESERVED[0]  # a voice leaves its council; vocabularies were fixed before it had a meaning

ROLE_TOKENS = {
    Role.SYSTEM: SYSTEM,
    Role.DEVELOPER: DEVELOPER,
    Role.USER: USER,
    Role.ASSISTANT: ASSISTANT,
    Role.TOOL: TOOL,
}

CONTROL_TOKENS: tuple[str, ...] = (
    ENDOFTEXT,
    *ROLE_TOKENS.values(),
    *(END, NAME, BODY),
    *(THINK, END_THINK, STATE, FOLD),
    *(CALL, ARGS, END_CALL, RESULT, END_RESULT),
    *(SPAWN, TO, JOIN),
    *RESERVED,
)
