"""One response in the making: what the model is asked, and the response object as it stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ponder.sampler.protocol import Completion
from ponder.serve.chat.write import answer_logprobs
from ponder.serve.models import Served
from ponder.serve.responses.body import ending, fields, usage
from ponder.serve.responses.events import EventWriter, Wire
from ponder.serve.responses.items import Dress, output_items
from ponder.serve.responses.schema import ResponseRequest
from ponder.serve.store import Event, Item, Response, Running, Status
from ponder.serve.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A response as it ended. stored: the object without any reasoning; shown: as its client is answered. output: what
    is kept and never sent. items: what it adds to its conversation. events: the last ones."""

    status: Status
    stored: Wire
    shown: Wire
    output: list[Wire]
    items: list[Item]
    events: list[Event]


@dataclass(slots=True, kw_only=True)
class Turn:
    """asked: the request. given: its items. removed: reasoning that the model was not given."""

    id: str
    owner: str
    served: Served
    created_at: int
    asked: ResponseRequest
    work: Work
    given: list[Item]
    dress: Dress
    removed: Sequence[dict[str, str]] = ()

    def body(self, status: Status, output: Sequence[Wire] = (), **more: Any) -> Wire:
        """The response object."""
        reasoning, exact = self.asked.reasoning, self.asked.thinking_token_budget
        default = "medium" if self.served.local is not None and exact is None else None
        return {
            "id": self.id,
            **fields(self.asked, self.work.request, (reasoning.effort if reasoning else None) or default),
            "created_at": self.created_at,
            "status": status.value,
            "output": list(output),
            "input_transformations": list(self.removed),
            **more,
        }

    def record(self, status: Status, ended: Ended | None = None) -> Response:
        """As it is kept."""
        asked = self.asked
        return Response(
            id=self.id,
            owner=self.owner,
            model=self.served.name,
            status=status,
            running=Running.BACKGROUND if asked.background else Running.FOREGROUND,
            created_at=self.created_at,
            previous_response_id=asked.previous_response_id,
            conversation_id=asked.conversation_id,
            request=asked.model_dump(
                mode="json", exclude_unset=True, by_alias=True, include=None if asked.background else {"include"}
            ),
            input=[item.body for item in self.given],
            body=self.body(status) if ended is None else ended.stored,
            output=() if ended is None else ended.output,
        )

    def end(self, completion: Completion, writer: EventWriter) -> Ended:
        """What the sampler's last word makes of the response."""
        logprobs = self._logprobs(completion)
        items = writer.placed(output_items(completion, self.id, self.served, logprobs))
        shown = [self.dress.item(item) for item in items]
        status, why = ending(completion.stop_reason)
        told: Wire = {"usage": usage(completion.usage), "incomplete_details": why}
        if status is Status.COMPLETED:
            told["completed_at"] = int(time.time())
        if completion.dropped_turns:
            told["dropped_turns"] = completion.dropped_turns
        body = self.body(status, shown, **told)
        return Ended(
            status=status,
            stored={**body, "output": [item.body for item in items]},
            shown=body,
            output=[{"id": item.id, "hidden": item.hidden} for item in items],
            items=[*self.given, *items] if self.asked.conversation_id else [],
            events=[*writer.items(shown), writer.state(status.value, body)],
        )

    def _logprobs(self, completion: Completion) -> list[Any]:
        tokenizer, segment = self.dress.tokenizer, completion.segment
        if tokenizer is None or segment is None:
            return []
        return answer_logprobs(segment, completion.text, tokenizer)
