"""How does a long text leave the server while it is still being read?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse


def streamed(
    request: HttpRequest, chunks: Iterator[str], content_type: str, headers: Mapping[str, str]
) -> StreamingHttpResponse:
    """*chunks* as they are made, whatever serves the request.

    Behind ASGI Django would gather a plain iterator whole before it sends the first byte.
    """
    content = _async(chunks) if isinstance(request, ASGIRequest) else chunks
    return StreamingHttpResponse(content, content_type=content_type, headers=dict(headers))


async def _async(chunks: Iterator[str]) -> AsyncIterator[str]:
    advance = sync_to_async(lambda: next(chunks, None))
    while (chunk := await advance()) is not None:
        yield chunk
