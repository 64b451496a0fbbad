"""Names that other programs use in messages, and that the Messages API refuses.

A reply of the API may have types and fields that this version does not know; these are sent back unchanged. The names
here certainly do not belong to the API, so they are never sent, wherever they come from.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["FOREIGN_TYPES", "is_api_field"]

_TYPES = """
image_url input_text output_text summary_text input_image output_image input_file input_audio output_audio audio
audio_url video video_url file file_url refusal reasoning reasoning_text reasoning_content function function_call
function_call_output custom_tool_call tool_call tool_calls

tool_call_chunk invalid_tool_call server_tool_call server_tool_result non_standard text-plain media input_json_delta
input_json

text_delta thinking_delta signature_delta citations_delta compaction_delta content_block_delta

tool-call tool-result step-start source-url dynamic-tool resource resource_link toolUse toolResult cachePoint
guardContent token_budget flag
"""
FOREIGN_TYPES = frozenset(_TYPES.split())
"""Types of content blocks of other APIs and programs, in this order: OpenAI (Chat Completions and Responses); LangChain
and LlamaIndex; deltas of a stream that were stored instead of blocks; Vercel's AI SDK, MCP, Bedrock and exports of
claude.ai.
"""

_FIELDS = """
index parsed_output partial_json annotations logprobs extras provider_specific_fields provider_options additional_kwargs
response_metadata model_extra start_timestamp stop_timestamp timestamp created_at tool_calls function arguments
"""
_FOREIGN_FIELDS = frozenset(_FIELDS.split())
"""Fields that SDKs and other programs add to content blocks, and that a request must not have."""

_API_NAME = re.compile("[a-z][a-z0-9_]*")


def is_api_field(name: str, value: Any) -> bool:
    """Return True if a field of a reply that is not in the table may belong to a later version of the API.

    Args:
        name: The name of the field.
        value: Its value. An empty one (null, "", [], {}) is most likely added by a serializer, so it does not count.
    """
    is_empty = value is None or (isinstance(value, str | list | dict) and not value)
    return not is_empty and name not in _FOREIGN_FIELDS and _API_NAME.fullmatch(name) is not None
