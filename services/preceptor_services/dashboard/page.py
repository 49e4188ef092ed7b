"""The page: static files of this package, sent with headers that let nothing else in.

In: which service it is at. Out: a router with `/`, the files under `/dashboard/`, and `about.json`, by which the page
learns what it may offer. Everything is read once, at the start. Guarantees: the page's policy allows no script, style,
picture or connection but from this address, no inline script, no string that becomes markup, and no frame around it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from preceptor_services.web import ProblemError

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class About(BaseModel):
    """What the page is told of where it is."""

    service: Literal["judge", "rewrite"]
    keys: bool
    """Whether work and texts need a key."""
    judge_url: str | None
    rewrite_url: str | None


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def page_router(about: About) -> APIRouter:
    """The page of one service."""
    router = APIRouter(include_in_schema=False)
    known = dict(_files())

    def send(request: Request, name: str) -> Response:
        if (file := known.get(name)) is None:
            raise ProblemError(404, "the page has no such file")
        headers = {**_HEADERS, "ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    @router.get("/")
    async def page(request: Request) -> Response:
        return send(request, "index.html")

    @router.get("/dashboard/about.json")
    async def where() -> Response:
        return Response(about.model_dump_json(), headers=_HEADERS, media_type="application/json")

    @router.get("/dashboard/{name}")
    async def file(request: Request, name: str) -> Response:
        return send(request, name)

    return router


def _files() -> list[tuple[str, _File]]:
    found = []
    for path in files("preceptor_services.dashboard").joinpath("static").iterdir():
        suffix = path.name[path.name.rfind(".") :]
        if suffix in _TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found.append((path.name, _File(content, _TYPES[suffix], etag)))
    return found
