"""The rules for sizes, and for files and containers that no longer exist."""

from __future__ import annotations

from chathistory.testing.fake_api import check_sizes as sizes
from chathistory.testing.fake_api.rule import Rule

__all__ = ["GONE_RULES", "SIZE_RULES"]

SIZE_RULES = (
    Rule(
        "image too large",
        sizes.image_too_large,
        "{path}.image.source.base64: image exceeds {megabytes} MB maximum: {size} bytes > {most} bytes",
        "issue: claude-code 19631, gptme 185; docs: vision (10 MB)",
    ),
    Rule(
        "image dimensions",
        sizes.image_dimensions,
        "{path}.image.source.base64.data: At least one of the image dimensions exceed max allowed size: "
        "{longest} pixels",
        "issue: claude-code 4778; sdk: ImageDimensionsTooLargeErrorDetails",
        code="image_dimensions_too_large",
    ),
    Rule(
        "image dimensions of many",
        sizes.many_image_dimensions,
        "{path}.image.source.base64.data: At least one of the image dimensions exceed max allowed size for many-image "
        "requests: {longest} pixels",
        "issue: claude-code 49537, 9375; docs: vision (more than 20 images)",
        code="image_dimensions_too_large",
    ),
    Rule(
        "PDF unreadable",
        sizes.unreadable_pdf,
        "{path}.pdf.source.base64.data: The PDF specified was not valid.",
        "issue: claude-code 5174, 6580",
    ),
    Rule(
        "prompt too long",
        sizes.prompt_too_long,
        "prompt is too long: {count} tokens > {most} maximum",
        "docs: context windows; issue: OpenHands 5036",
    ),
)

GONE_RULES = (
    Rule(
        "container gone",
        sizes.gone_container,
        "container: Container {id} not found or expired",
        "docs: code execution tool (it can no longer be used after 30 days); guess: the status and the text",
    ),
    Rule(
        "file gone",
        sizes.gone_file,
        "File not found: {id}",
        "sdk: FileExpiredErrorDetails; docs: files (404); memory: the text",
        404,
        "not_found_error",
        code="file_expired",
    ),
)
