"""The fields of each content block in a request to the Messages API, and of the objects within blocks.

Written by `python tests/messages/write_block_types.py` from the types of the Anthropic SDK; do not change it by hand.

A field is "!" if it is required, and its alternatives: str, int, float, bool, null, any, dict (a JSON object), 'word'
(exactly that text), the name of a type, or [a list of alternatives].
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TYPES"]

TYPES: Mapping[str, Mapping[str, str]] = {
    "AdvisorRedactedResultBlock": {
        "type": "! 'advisor_redacted_result'",
        "encrypted_content": "! str",
        "stop_reason": "str null",
    },
    "AdvisorResultBlock": {
        "type": "! 'advisor_result'",
        "text": "! str",
        "stop_reason": "str null",
    },
    "AdvisorToolResultBlock": {
        "type": "! 'advisor_tool_result'",
        "content": "! AdvisorToolResultError AdvisorResultBlock AdvisorRedactedResultBlock",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "AdvisorToolResultError": {
        "type": "! 'advisor_tool_result_error'",
        "error_code": (
            "! 'max_uses_exceeded' 'prompt_too_long' 'too_many_requests' 'overloaded' 'unavailable' "
            "'execution_time_exceeded' 'model_not_found'"
        ),
    },
    "Base64ImageSource": {
        "type": "! 'base64'",
        "data": "! str",
        "media_type": "! 'image/jpeg' 'image/png' 'image/gif' 'image/webp'",
    },
    "Base64PDFSource": {
        "type": "! 'base64'",
        "data": "! str",
        "media_type": "! 'application/pdf'",
    },
    "BashCodeExecutionOutputBlock": {
        "type": "! 'bash_code_execution_output'",
        "file_id": "! str",
    },
    "BashCodeExecutionResultBlock": {
        "type": "! 'bash_code_execution_result'",
        "content": "! [BashCodeExecutionOutputBlock]",
        "return_code": "! int",
        "stderr": "! str",
        "stdout": "! str",
    },
    "BashCodeExecutionToolResultBlock": {
        "type": "! 'bash_code_execution_tool_result'",
        "content": "! BashCodeExecutionToolResultError BashCodeExecutionResultBlock",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "BashCodeExecutionToolResultError": {
        "type": "! 'bash_code_execution_tool_result_error'",
        "error_code": (
            "! 'invalid_tool_input' 'unavailable' 'too_many_requests' 'execution_time_exceeded' 'output_file_too_large'"
        ),
    },
    "BrowserStateBlock": {
        "type": "! 'browser_state'",
        "tabs": "! [BrowserStateTabEntry]",
        "cache_control": "CacheControlEphemeral null",
        "state_changes": (
            "[BrowserStateChangeTabOpened BrowserStateChangeDownloadStarted BrowserStateChangeDownloadCompleted "
            "BrowserStateChangeDownloadFailed] null"
        ),
    },
    "BrowserStateChangeDownloadCompleted": {
        "type": "! 'download_completed'",
        "download_id": "! str",
        "url": "! str",
        "path": "str null",
        "size_bytes": "int null",
    },
    "BrowserStateChangeDownloadFailed": {
        "type": "! 'download_failed'",
        "download_id": "! str",
        "url": "! str",
        "error": "str null",
    },
    "BrowserStateChangeDownloadStarted": {
        "type": "! 'download_started'",
        "download_id": "! str",
        "url": "! str",
    },
    "BrowserStateChangeTabOpened": {
        "type": "! 'tab_opened'",
        "tab_id": "! str",
    },
    "BrowserStateTabEntry": {
        "tab_id": "! str",
        "title": "! str",
        "url": "! str",
        "active": "bool",
    },
    "CacheControlEphemeral": {
        "type": "! 'ephemeral'",
        "ttl": "'5m' '1h'",
    },
    "CitationCharLocation": {
        "type": "! 'char_location'",
        "cited_text": "! str",
        "document_index": "! int",
        "document_title": "! str null",
        "end_char_index": "! int",
        "start_char_index": "! int",
        "file_id": "str null",
    },
    "CitationContentBlockLocation": {
        "type": "! 'content_block_location'",
        "cited_text": "! str",
        "document_index": "! int",
        "document_title": "! str null",
        "end_block_index": "! int",
        "start_block_index": "! int",
        "file_id": "str null",
    },
    "CitationPageLocation": {
        "type": "! 'page_location'",
        "cited_text": "! str",
        "document_index": "! int",
        "document_title": "! str null",
        "end_page_number": "! int",
        "start_page_number": "! int",
        "file_id": "str null",
    },
    "CitationSearchResultLocation": {
        "type": "! 'search_result_location'",
        "cited_text": "! str",
        "end_block_index": "! int",
        "search_result_index": "! int",
        "source": "! str",
        "start_block_index": "! int",
        "title": "! str null",
    },
    "CitationWebSearchResultLocation": {
        "type": "! 'web_search_result_location'",
        "cited_text": "! str",
        "encrypted_index": "! str",
        "title": "! str null",
        "url": "! str",
    },
    "CitationsConfig": {
        "enabled": "bool",
    },
    "CodeExecutionOutputBlock": {
        "type": "! 'code_execution_output'",
        "file_id": "! str",
    },
    "CodeExecutionResultBlock": {
        "type": "! 'code_execution_result'",
        "content": "! [CodeExecutionOutputBlock]",
        "return_code": "! int",
        "stderr": "! str",
        "stdout": "! str",
    },
    "CodeExecutionToolResultBlock": {
        "type": "! 'code_execution_tool_result'",
        "content": "! CodeExecutionToolResultError CodeExecutionResultBlock EncryptedCodeExecutionResultBlock",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "CodeExecutionToolResultError": {
        "type": "! 'code_execution_tool_result_error'",
        "error_code": "! 'invalid_tool_input' 'unavailable' 'too_many_requests' 'execution_time_exceeded'",
    },
    "CompactionBlock": {
        "type": "! 'compaction'",
        "cache_control": "CacheControlEphemeral null",
        "content": "str null",
        "encrypted_content": "str null",
        "signature": "str null",
        "tool_changes": "any",
    },
    "ContainerUploadBlock": {
        "type": "! 'container_upload'",
        "file_id": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "ContentBlockSource": {
        "type": "! 'content'",
        "content": "! str [TextBlock ImageBlock]",
    },
    "DirectCaller": {
        "type": "! 'direct'",
    },
    "DocumentBlock": {
        "type": "! 'document'",
        "source": "! Base64PDFSource PlainTextSource ContentBlockSource URLPDFSource FileDocumentSource",
        "cache_control": "CacheControlEphemeral null",
        "citations": "CitationsConfig null",
        "context": "str null",
        "title": "str null",
    },
    "EncryptedCodeExecutionResultBlock": {
        "type": "! 'encrypted_code_execution_result'",
        "content": "! [CodeExecutionOutputBlock]",
        "encrypted_stdout": "! str",
        "return_code": "! int",
        "stderr": "! str",
    },
    "FallbackBlock": {
        "type": "! 'fallback'",
        "from": "! FallbackInfo",
        "to": "! FallbackInfo",
        "trigger": "any",
    },
    "FallbackInfo": {
        "model": "! str",
    },
    "FileDocumentSource": {
        "type": "! 'file'",
        "file_id": "! str",
    },
    "FileImageSource": {
        "type": "! 'file'",
        "file_id": "! str",
    },
    "ImageBlock": {
        "type": "! 'image'",
        "source": "! Base64ImageSource URLImageSource FileImageSource",
        "cache_control": "CacheControlEphemeral null",
        "transformations": "ImageTransformations null",
    },
    "ImageTransformations": {
        "oversized_image": "'downsize' 'error'",
    },
    "MCPTool": {
        "input_schema": "! any",
        "name": "! str",
        "description": "str null",
    },
    "MCPToolListingBlock": {
        "type": "! 'mcp_tool_listing'",
        "mcp_server_name": "! str",
        "tools": "! [MCPTool]",
    },
    "MCPToolResultBlock": {
        "type": "! 'mcp_tool_result'",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
        "content": "str [TextBlock]",
        "is_error": "bool",
    },
    "MCPToolUseBlock": {
        "type": "! 'mcp_tool_use'",
        "id": "! str",
        "input": "! dict",
        "name": "! str",
        "server_name": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "PlainTextSource": {
        "type": "! 'text'",
        "data": "! str",
        "media_type": "! 'text/plain'",
    },
    "RedactedThinkingBlock": {
        "type": "! 'redacted_thinking'",
        "data": "! str",
    },
    "SearchResultBlock": {
        "type": "! 'search_result'",
        "content": "! [TextBlock]",
        "source": "! str",
        "title": "! str",
        "cache_control": "CacheControlEphemeral null",
        "citations": "CitationsConfig",
    },
    "ServerToolCaller": {
        "type": "! 'code_execution_20250825'",
        "tool_id": "! str",
    },
    "ServerToolCaller20260120": {
        "type": "! 'code_execution_20260120'",
        "tool_id": "! str",
    },
    "ServerToolUseBlock": {
        "type": "! 'server_tool_use'",
        "id": "! str",
        "input": "! dict",
        "name": (
            "! 'advisor' 'web_search' 'web_fetch' 'code_execution' 'bash_code_execution' 'text_editor_code_execution' "
            "'tool_search_tool_regex' 'tool_search_tool_bm25'"
        ),
        "cache_control": "CacheControlEphemeral null",
        "caller": "DirectCaller ServerToolCaller ServerToolCaller20260120",
    },
    "SystemMessageOutputConfig": {
        "effort": "'low' 'medium' 'high' 'xhigh' 'max' null",
    },
    "TextBlock": {
        "type": "! 'text'",
        "text": "! str",
        "cache_control": "CacheControlEphemeral null",
        "citations": (
            "[CitationCharLocation CitationPageLocation CitationContentBlockLocation CitationWebSearchResultLocation "
            "CitationSearchResultLocation] null"
        ),
    },
    "TextEditorCodeExecutionCreateResultBlock": {
        "type": "! 'text_editor_code_execution_create_result'",
        "is_file_update": "! bool",
    },
    "TextEditorCodeExecutionStrReplaceResultBlock": {
        "type": "! 'text_editor_code_execution_str_replace_result'",
        "lines": "[str] null",
        "new_lines": "int null",
        "new_start": "int null",
        "old_lines": "int null",
        "old_start": "int null",
    },
    "TextEditorCodeExecutionToolResultBlock": {
        "type": "! 'text_editor_code_execution_tool_result'",
        "content": (
            "! TextEditorCodeExecutionToolResultError TextEditorCodeExecutionViewResultBlock "
            "TextEditorCodeExecutionCreateResultBlock TextEditorCodeExecutionStrReplaceResultBlock"
        ),
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "TextEditorCodeExecutionToolResultError": {
        "type": "! 'text_editor_code_execution_tool_result_error'",
        "error_code": (
            "! 'invalid_tool_input' 'unavailable' 'too_many_requests' 'execution_time_exceeded' 'file_not_found'"
        ),
        "error_message": "str null",
    },
    "TextEditorCodeExecutionViewResultBlock": {
        "type": "! 'text_editor_code_execution_view_result'",
        "content": "! str",
        "file_type": "! 'text' 'image' 'pdf'",
        "num_lines": "int null",
        "start_line": "int null",
        "total_lines": "int null",
    },
    "ThinkingBlock": {
        "type": "! 'thinking'",
        "signature": "! str",
        "thinking": "! str",
    },
    "ToolAdditionBlock": {
        "type": "! 'tool_addition'",
        "tool": (
            "! ToolChangeToolReference ToolChangeMCPToolReference ToolChangeMCPToolsetReference "
            "ToolChangeToolDefinition"
        ),
        "cache_control": "CacheControlEphemeral null",
    },
    "ToolChangeMCPToolReference": {
        "type": "! 'mcp_tool_reference'",
        "name": "! str",
        "server_name": "! str",
    },
    "ToolChangeMCPToolsetReference": {
        "type": "! 'mcp_toolset_reference'",
        "server_name": "! str",
    },
    "ToolChangeToolDefinition": {
        "type": "! 'tool_definition'",
        "definition": "! any",
    },
    "ToolChangeToolReference": {
        "type": "! 'tool_reference'",
        "name": "! str",
    },
    "ToolReferenceBlock": {
        "type": "! 'tool_reference'",
        "tool_name": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "ToolRemovalBlock": {
        "type": "! 'tool_removal'",
        "tool": "! ToolChangeToolReference ToolChangeMCPToolReference ToolChangeMCPToolsetReference",
        "cache_control": "CacheControlEphemeral null",
    },
    "ToolResultBlock": {
        "type": "! 'tool_result'",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
        "content": "str [TextBlock ImageBlock SearchResultBlock DocumentBlock ToolReferenceBlock BrowserStateBlock]",
        "is_error": "bool",
        "toolset_name": "str null",
    },
    "ToolSearchToolResultBlock": {
        "type": "! 'tool_search_tool_result'",
        "content": "! ToolSearchToolResultError ToolSearchToolSearchResultBlock",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
    },
    "ToolSearchToolResultError": {
        "type": "! 'tool_search_tool_result_error'",
        "error_code": "! 'invalid_tool_input' 'unavailable' 'too_many_requests' 'execution_time_exceeded'",
        "error_message": "str null",
    },
    "ToolSearchToolSearchResultBlock": {
        "type": "! 'tool_search_tool_search_result'",
        "tool_references": "! [ToolReferenceBlock]",
    },
    "ToolUseBlock": {
        "type": "! 'tool_use'",
        "id": "! str",
        "input": "! dict",
        "name": "! str",
        "cache_control": "CacheControlEphemeral null",
        "caller": "DirectCaller ServerToolCaller ServerToolCaller20260120",
        "toolset_name": "str null",
    },
    "URLImageSource": {
        "type": "! 'url'",
        "url": "! str",
    },
    "URLPDFSource": {
        "type": "! 'url'",
        "url": "! str",
    },
    "WebFetchBlock": {
        "type": "! 'web_fetch_result'",
        "content": "! DocumentBlock",
        "url": "! str",
        "retrieved_at": "str null",
    },
    "WebFetchToolResultBlock": {
        "type": "! 'web_fetch_tool_result'",
        "content": "! WebFetchToolResultErrorBlock WebFetchBlock",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
        "caller": "DirectCaller ServerToolCaller ServerToolCaller20260120",
    },
    "WebFetchToolResultErrorBlock": {
        "type": "! 'web_fetch_tool_result_error'",
        "error_code": (
            "! 'invalid_tool_input' 'url_too_long' 'url_not_allowed' 'url_not_in_prior_context' 'url_not_accessible' "
            "'unsupported_content_type' 'too_many_requests' 'max_uses_exceeded' 'unavailable' 'content_too_large'"
        ),
    },
    "WebSearchResultBlock": {
        "type": "! 'web_search_result'",
        "encrypted_content": "! str",
        "title": "! str",
        "url": "! str",
        "page_age": "str null",
    },
    "WebSearchToolRequestErrorObject": {
        "type": "! 'web_search_tool_result_error'",
        "error_code": (
            "! 'invalid_tool_input' 'unavailable' 'max_uses_exceeded' 'too_many_requests' 'query_too_long' "
            "'request_too_large'"
        ),
    },
    "WebSearchToolResultBlock": {
        "type": "! 'web_search_tool_result'",
        "content": "! [WebSearchResultBlock] WebSearchToolRequestErrorObject",
        "tool_use_id": "! str",
        "cache_control": "CacheControlEphemeral null",
        "caller": "DirectCaller ServerToolCaller ServerToolCaller20260120",
    },
}
