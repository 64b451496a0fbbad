"""Answers requests that were not refused: with a reply, a summary, or a summary and a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from chathistory.testing.fake_api import compaction
from chathistory.testing.fake_api import planned_response as plans
from chathistory.testing.fake_api.build_message import content_of, message_of
from chathistory.testing.fake_api.check_thinking import transformations
from chathistory.testing.fake_api.edited_prompt import EditedPrompt, edit_prompt
from chathistory.testing.fake_api.planned_response import PlannedResponse
from chathistory.testing.fake_api.replies import Answer, Failure, Paused, Raw, Reply, as_answer, as_reply
from chathistory.testing.fake_api.reply_queue import ReplyQueue
from chathistory.testing.fake_api.request import ApiRequest
from chathistory.testing.fake_api.signed_thinking import ThinkingSigner
from chathistory.testing.fake_api.token_usage import NO_INPUT, Prompt, PromptCache

__all__ = ["Responder"]

PlanAndRecord: TypeAlias = "tuple[PlannedResponse, dict[str, Any]]"
MakeMessage: TypeAlias = "Callable[[Reply], dict[str, Any]]"


@dataclass(frozen=True, slots=True)
class Responder:
    """Makes the answers of a fake.

    Attributes:
        replies: The next replies.
        summaries: The next summaries.
        thinking: Signs thinking blocks.
        cache: The simulated prompt cache.
    """

    replies: ReplyQueue
    summaries: ReplyQueue
    thinking: ThinkingSigner
    cache: PromptCache = field(default_factory=PromptCache)

    def answer(self, request: ApiRequest) -> PlanAndRecord:
        """Return the response, and what is recorded in addition: the message, if there is one."""
        seen = edit_prompt(request)
        if request.counts_only:
            return plans.plan_json(seen.count_answer), {}
        if request.compacts:
            return _plan_answer(
                request, self.summaries.next(request.body), lambda reply: self._make_summary(request, reply, seen)
            )
        edit = compaction.find_due_edit(request, seen)
        if edit is not None:
            return self._answer_with_compaction(request, seen, edit)
        return _plan_answer(
            request, self.replies.next(request.body), lambda reply: self._make_reply(request, reply, seen)
        )

    def _make_summary(self, request: ApiRequest, reply: Reply, seen: EditedPrompt) -> dict[str, Any]:
        ready = compaction.make_summary_reply(request, reply, seen)
        return self._make_message(request, ready, content_of(ready), {}) | transformations(request)

    def _answer_with_compaction(
        self, request: ApiRequest, seen: EditedPrompt, edit: Mapping[str, Any]
    ) -> PlanAndRecord:
        """Answer with a summary and, unless the edit pauses, with a reply after it."""
        answer = self.summaries.next(request.body)
        if compaction.pauses(edit) or isinstance(answer, Failure | Raw):
            return _plan_answer(request, answer, lambda reply: self._make_paused(request, reply, seen))
        block = _block_of(as_reply(answer.reply if not isinstance(answer, Reply) else answer))
        return _plan_answer(
            request,
            self.replies.next(request.body),
            lambda reply: self._make_reply_after_summary(request, reply, seen, block),
        )

    def _make_paused(self, request: ApiRequest, reply: Reply, seen: EditedPrompt) -> dict[str, Any]:
        block = _block_of(reply)
        counts = {**NO_INPUT, "iterations": [compaction.compaction_iteration(seen.prompt, block)], **reply.usage}
        ready = replace(reply, content=[block], stop_reason="compaction", usage=counts)
        return self._make_message(request, ready, [block], {}) | seen.reply_fields | transformations(request)

    def _make_reply_after_summary(
        self, request: ApiRequest, reply: Reply, seen: EditedPrompt, block: dict[str, Any]
    ) -> dict[str, Any]:
        left = compaction.without_prefix(seen.prompt, block) if block["content"] else seen.prompt
        ready = replace(reply, content=[block, *content_of(reply)])
        before = [compaction.compaction_iteration(seen.prompt, block)]
        return self._finish_reply(request, ready, seen, left, before)

    def _make_reply(self, request: ApiRequest, reply: Reply, seen: EditedPrompt) -> dict[str, Any]:
        return self._finish_reply(request, reply, seen, seen.prompt, [])

    def _finish_reply(
        self, request: ApiRequest, reply: Reply, seen: EditedPrompt, prompt: Prompt, before: list[dict[str, Any]]
    ) -> dict[str, Any]:
        message = self._make_message(request, reply, content_of(reply), self.cache.count_usage(prompt))
        if request.has_beta("compact-2026-01-12"):
            message["usage"]["iterations"] = [*before, compaction.message_iteration(message["usage"])]
        return message | seen.reply_fields | transformations(request)

    def _make_message(
        self, request: ApiRequest, reply: Reply, content: list[dict[str, Any]], usage: dict[str, Any]
    ) -> dict[str, Any]:
        model = reply.model or request.body["model"]
        signed = self.thinking.sign_thinking(request, content, model)
        request.setting.issued.add(signed)
        return message_of(reply, signed, model, usage)


def _block_of(reply: Reply) -> dict[str, Any]:
    """Return the compaction block of a reply; without content if the summary failed."""
    return compaction.summary_block(reply) or {"type": "compaction", "content": None}


def _plan_answer(request: ApiRequest, answer: Answer, make: MakeMessage) -> PlanAndRecord:
    if isinstance(answer, Failure):
        return plans.plan_failure(answer), {}
    if isinstance(answer, Raw):
        return plans.plan_raw(answer), {}
    if isinstance(answer, Paused):
        plan, more = _plan_answer(request, as_answer(answer.reply), make)
        return replace(plan, pause=answer), more
    message = make(answer if isinstance(answer, Reply) else as_reply(answer.reply))
    return plans.plan_message(message, answer, streamed=bool(request.body.get("stream"))), {"reply": message}
