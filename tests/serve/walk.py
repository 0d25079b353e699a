"""schemathesis on our own OpenAPI document, against a server that runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

PHASES = ("examples", "coverage", "fuzzing", "stateful")

REFUSALS = (400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429)


@dataclass
class Found:
    """sent: requests to each operation. answered: (operation, status) of their answers. wrong: what is wrong, and how
    to see it again."""

    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)


def walk(
    document: dict[str, Any], url: str, key: str, *, examples: int, phases: tuple[str, ...], mode: str = "all"
) -> Found:
    """Ask every operation so often in every phase. mode: "positive", "negative" or "all" data."""
    import schemathesis  # here, because it takes seconds, and every process imports every test
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events, from_schema

    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "base-url": url,
            "headers": {"Authorization": f"Bearer {key}"},
            "continue-on-failure": True,
            "generation": {
                "mode": mode,
                "max-examples": examples,
                "deterministic": True,
                "allow-x00": True,
                "with-security-parameters": False,
                "database": "none",
                "no-shrink": True,
            },
            "phases": {name: {"enabled": name in phases} for name in PHASES},
            "checks": {
                # A request may ask for what goes together in no schema: that is refused, and no failure.
                "positive_data_acceptance": {"enabled": False},
                # An array with an item too many may be a body that is too large: 413.
                "negative_data_rejection": {"expected-statuses": [*REFUSALS, "5xx"]},
            },
        }
    )
    found = Found()
    for event in from_schema(schemathesis.openapi.from_dict(document, config=config)).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.wrong[str(event)] = "an error of the test itself"
        if isinstance(event, events.ScenarioFinished):
            _gather(event, found)
    return found


def _gather(event: Any, found: Found) -> None:
    for id, interaction in event.recorder.interactions.items():
        case = event.recorder.cases[id].value
        label = case.operation.label
        found.sent[label] += 1
        if interaction.response is None:
            found.wrong[f"{label}: no answer"] = case.as_curl_command()
            continue
        found.answered[label, interaction.response.status_code] += 1
        for check in event.recorder.checks.get(id, ()):
            if check.failure_info is not None:
                failure = check.failure_info.failure
                found.wrong.setdefault(f"{label}: {failure.title}: {failure.message[:300]}", case.as_curl_command())
