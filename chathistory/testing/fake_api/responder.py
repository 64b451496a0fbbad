"""From a request that was not refused to its answer: a reply, a summary, or a summary and the reply after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from chathistory.testing.fake_api import compaction
from chathistory.testing.fake_api import plan as plans
from chathistory.testing.fake_api.check_thinking import transformations
from chathistory.testing.fake_api.message import content_of, message_of
from chathistory.testing.fake_api.plan import Plan
from chathistory.testing.fake_api.prompt import Shown, shown
from chathistory.testing.fake_api.replies import Answer, Failure, Paused, Raw, Reply, as_answer, as_reply
from chathistory.testing.fake_api.reply_queue import ReplyQueue
from chathistory.testing.fake_api.request import Request
from chathistory.testing.fake_api.thinking import Thinking
from chathistory.testing.fake_api.usage import NO_INPUT, Prompt, PromptCache

__all__ = ["Responder"]

Told: TypeAlias = "tuple[Plan, dict[str, Any]]"
Making: TypeAlias = "Callable[[Reply], dict[str, Any]]"


@dataclass(frozen=True, slots=True)
class Responder:
    """What a fake says: its replies and summaries, the thinking it has signed, the prompts it has read."""

    replies: ReplyQueue
    summaries: ReplyQueue
    thinking: Thinking
    cache: PromptCache = field(default_factory=PromptCache)

    def answer(self, request: Request) -> Told:
        """Return the plan, and what is recorded beside it: the message, if there is one."""
        seen = shown(request)
        if request.counts_only:
            return plans.plain(seen.counted), {}
        if request.compacts:
            return _told(request, self.summaries.next(request.body), lambda reply: self._summary(request, reply, seen))
        edit = compaction.due(request, seen)
        if edit is not None:
            return self._compacted(request, seen, edit)
        return _told(request, self.replies.next(request.body), lambda reply: self._reply(request, reply, seen))

    def _summary(self, request: Request, reply: Reply, seen: Shown) -> dict[str, Any]:
        ready = compaction.on_demand(request, reply, seen)
        return self._message(request, ready, content_of(ready), {}) | transformations(request)

    def _compacted(self, request: Request, seen: Shown, edit: Mapping[str, Any]) -> Told:
        """Answer with a summary, and unless it is to pause, with a reply that knows nothing else."""
        answer = self.summaries.next(request.body)
        if compaction.pauses(edit) or isinstance(answer, Failure | Raw):
            return _told(request, answer, lambda reply: self._paused(request, reply, seen))
        block = _block_of(as_reply(answer.reply if not isinstance(answer, Reply) else answer))
        return _told(request, self.replies.next(request.body), lambda reply: self._after(request, reply, seen, block))

    def _paused(self, request: Request, reply: Reply, seen: Shown) -> dict[str, Any]:
        block = _block_of(reply)
        counts = {**NO_INPUT, "iterations": [compaction.iteration(seen.prompt, block)], **reply.usage}
        ready = replace(reply, content=[block], stop_reason="compaction", usage=counts)
        return self._message(request, ready, [block], {}) | seen.told | transformations(request)

    def _after(self, request: Request, reply: Reply, seen: Shown, block: dict[str, Any]) -> dict[str, Any]:
        left = compaction.without_prefix(seen.prompt, block) if block["content"] else seen.prompt
        ready = replace(reply, content=[block, *content_of(reply)])
        before = [compaction.iteration(seen.prompt, block)]
        return self._spoken(request, ready, seen, left, before)

    def _reply(self, request: Request, reply: Reply, seen: Shown) -> dict[str, Any]:
        return self._spoken(request, reply, seen, seen.prompt, [])

    def _spoken(
        self, request: Request, reply: Reply, seen: Shown, prompt: Prompt, before: list[dict[str, Any]]
    ) -> dict[str, Any]:
        message = self._message(request, reply, content_of(reply), self.cache.usage(prompt))
        if request.has_beta("compact-2026-01-12"):
            message["usage"]["iterations"] = [*before, compaction.sampled(message["usage"])]
        return message | seen.told | transformations(request)

    def _message(
        self, request: Request, reply: Reply, content: list[dict[str, Any]], usage: dict[str, Any]
    ) -> dict[str, Any]:
        model = reply.model or request.body["model"]
        signed = self.thinking.signed(request, content, model)
        request.setting.given.add(signed)
        return message_of(reply, signed, model, usage)


def _block_of(reply: Reply) -> dict[str, Any]:
    """Return the block at a threshold; one without content if no summary was made, which changes nothing."""
    return compaction.summarized(reply) or {"type": "compaction", "content": None}


def _told(request: Request, answer: Answer, make: Making) -> Told:
    if isinstance(answer, Failure):
        return plans.failed(answer), {}
    if isinstance(answer, Raw):
        return plans.raw(answer), {}
    if isinstance(answer, Paused):
        plan, more = _told(request, as_answer(answer.reply), make)
        return replace(plan, held=answer), more
    message = make(answer if isinstance(answer, Reply) else as_reply(answer.reply))
    return plans.of_message(message, answer, streamed=bool(request.body.get("stream"))), {"reply": message}
