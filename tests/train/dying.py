"""Runs that are killed in the middle, in a separate process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any


def killed_in_the_third_update(module: str, setting: str, learner: str) -> None:
    """Train the recipe that the Python expression `setting` makes, and die when the losses are asked for a third time.

    module: of the tests, which the expression may use.
    learner: the class whose `losses` are asked for.
    """
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
    code += f"import dying, even, {module}; dying.die_in({learner!r}); even.train({setting})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL


def die_in(learner: str) -> None:
    import torch

    torch.set_num_threads(1)
    kind: Any = resolve_name(learner)
    losses: Callable[..., Any] = kind.losses
    asked: list[int] = []

    def counted(*arguments: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(*arguments)

    kind.losses = counted
