"""One response being made: what is asked, the object as it stands, and what its completion makes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ponder.sampler.protocol import Completion
from ponder.serve.answering import ServedAsk
from ponder.serve.common.convert import answer_logprobs, total_usage
from ponder.serve.common.wire import TokenLogprob
from ponder.serve.models import Served
from ponder.serve.responses.convert import LOGPROBS, conversation_of, is_stored
from ponder.serve.responses.events import EventWriter
from ponder.serve.responses.items import (
    OutputItem,
)
from ponder.serve.responses.objects import View, ending, output_items, response_object, response_usage
from ponder.serve.responses.seal import Sealer
from ponder.serve.responses.wire import (
    RemovedReasoning,
    ResponseObject,
    ResponseRequest,
)
from ponder.serve.store import ResponseStatus, RunMode, StoredEvent, StoredItem, StoredResponse
from ponder.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTurn:
    """A response as it ended.

    stored: the object without any reasoning.
    shown: as its client is answered.
    output: what is kept and never sent.
    items: what it adds to its conversation.
    events: the last ones.
    """

    status: ResponseStatus
    stored: ResponseObject
    shown: ResponseObject
    output: list[dict[str, object]]
    items: list[StoredItem]
    events: list[StoredEvent]


@dataclass(slots=True, kw_only=True)
class ResponseTurn:
    """A response being made.

    asked: the request.
    given: its items.
    removed: reasoning that the model was not given.
    sealer: None: reasoning is not sealed.
    """

    id: str
    owner: str
    served: Served
    created_at: int
    asked: ResponseRequest
    task: ServedAsk
    given: list[StoredItem]
    sealer: Sealer | None
    removed: Sequence[RemovedReasoning] = ()

    @property
    def view(self) -> View:
        """How items are shown. Reasoning is sealed if that is asked for, and always if nothing is stored."""
        include = self.asked.include or ()
        sealed = "reasoning.encrypted_content" in include or not is_stored(self.asked)
        return View(
            self.owner,
            self.served.name,
            shows_reasoning="reasoning.content" in include,
            sealer=self.sealer if sealed else None,
            tokenizer=self.served.tokenizer if LOGPROBS in include else None,
        )

    def body(self, status: ResponseStatus, output: Sequence[OutputItem] = ()) -> ResponseObject:
        """The response object."""
        body = response_object(self.asked, self.task.ask, self.served, self.id, self.created_at)
        body["status"] = status.value
        body["output"] = list(output)
        body["input_transformations"] = list(self.removed)
        return body

    def record(self, status: ResponseStatus, ended: EndedTurn | None = None) -> StoredResponse:
        """As it is kept."""
        asked = self.asked
        return StoredResponse(
            id=self.id,
            owner=self.owner,
            model=self.served.name,
            status=status,
            running=RunMode.BACKGROUND if asked.background else RunMode.FOREGROUND,
            created_at=self.created_at,
            previous_response_id=asked.previous_response_id,
            conversation_id=conversation_of(asked),
            request=asked.model_dump(
                mode="json", exclude_unset=True, by_alias=True, include=None if asked.background else {"include"}
            ),
            input=[item.body for item in self.given],
            body=self.body(status) if ended is None else ended.stored,
            output=() if ended is None else ended.output,
        )

    def end(self, completion: Completion, writer: EventWriter) -> EndedTurn:
        """The response that its completion makes."""
        view = self.view
        logprobs = _logprobs(completion, view.tokenizer)
        items = writer.placed(output_items(completion, self.id, self.served, logprobs))
        shown = [view.item(item) for item in items]
        status, why = ending(completion.stop_reason)
        body = self.body(status, shown)
        bill = total_usage([completion])
        body["usage"] = None if bill is None else response_usage(bill)
        body["incomplete_details"] = why
        if status is ResponseStatus.COMPLETED:
            body["completed_at"] = int(time.time())
        if completion.dropped_turns:
            body["dropped_turns"] = completion.dropped_turns
        return EndedTurn(
            status=status,
            stored={**body, "output": cast(list[OutputItem], [item.body for item in items])},
            shown=body,
            output=[{"id": item.id, "hidden": item.hidden} for item in items],
            items=[*self.given, *items] if conversation_of(self.asked) else [],
            events=[*writer.items(shown), writer.state(status.value, body)],
        )


def _logprobs(completion: Completion, tokenizer: Tokenizer | None) -> list[TokenLogprob]:
    if tokenizer is None or completion.segment is None:
        return []
    return answer_logprobs(completion.segment, completion.text, tokenizer)
