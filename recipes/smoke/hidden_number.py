"""An environment in one file: a number is hidden, and a tool says on which side of a guess it lies."""

from random import Random

from ponder.dialogue.messages import Message, Reasoning, Role, Text, ToolCall, ToolResult
from ponder.tasks.protocol import Grade, Problem


class Comparing:
    """One attempt. The tool's arguments are one whole number, as JSON: `8`."""

    tools = ("compare",)

    def __init__(self, hidden: int) -> None:
        self.hidden = hidden

    def step(self, name: str, arguments: object) -> str:
        if not isinstance(arguments, int):
            raise ValueError("compare takes a whole number")
        return "equal" if arguments == self.hidden else "higher" if self.hidden > arguments else "lower"

    def grade(self, answer: str) -> Grade:
        return Grade(score=float(answer.strip() == str(self.hidden)))


class HiddenNumber:
    """From 1 to 3 at level 0, to 63 at level 1: halving finds it in 2 to 6 calls."""

    name = "hidden_number"
    max_turns = 8

    def sample(self, rng: Random, level: float) -> Problem:
        highest = 2 ** (2 + round(4 * level)) - 1
        question = f"A number from 1 to {highest} is hidden. compare tells where it lies. Which one is it?"
        return Problem(task=self.name, question=question, answer=str(rng.randint(1, highest)))

    def start(self, problem: Problem) -> Comparing:
        return Comparing(int(problem.answer))

    def show(self, problem: Problem, rng: Random) -> list[Message]:
        env, low, high = self.start(problem), 1, int(problem.question.split()[5])
        messages: list[Message] = []
        result = ""
        while result != "equal":
            guess = (low + high) // 2
            result = env.step("compare", guess)
            thought = Reasoning(f"{low} to {high}: {guess}")
            messages.append(Message(Role.ASSISTANT, (thought, ToolCall("compare", str(guess)))))
            messages.append(Message(Role.TOOL, (ToolResult("compare", result),)))
            low, high = (guess + 1, high) if result == "higher" else (low, guess - 1)
        return [*messages, Message(Role.ASSISTANT, (Reasoning(f"{guess} is equal"), Text(str(guess))))]

    def grade(self, problem: Problem, answer: str) -> Grade:
        return self.start(problem).grade(answer)

    def same(self, a: str, b: str) -> bool:
        return a.strip() == b.strip()
