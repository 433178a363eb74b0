"""Odd answers, and odd ways to send a sound one: what can befall any request."""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from functools import cache
from itertools import chain, repeat
from typing import TYPE_CHECKING

from tests.upstreams.pds_cars import endless_block
from tests.upstreams.pds_wire import CODINGS, Answer, Line, json_answer

if TYPE_CHECKING:
    from tests.upstreams.pds_faults import Fault

CAR = "application/vnd.ipld.car"
LOOP = "/-loop/"
"""Where redirects in a loop lead; every host has it."""
PRIVATE = "http://10.0.0.1/xrpc/com.atproto.sync.getRepo"
BOMB_GIBIBYTES = 4
_MEBIBYTE = 1 << 20


def _stay_away(fault: Fault) -> Answer:
    status, _, form = fault.kind.partition("-")
    now = time.time()
    seconds = math.ceil(fault.after)
    moment = math.ceil(now + fault.after)
    headers, until = {
        "retry-after": ({"Retry-After": str(seconds)}, now + seconds),
        "date": ({"Retry-After": formatdate(moment, usegmt=True)}, float(moment)),
        "reset": ({"RateLimit-Limit": "3000", "RateLimit-Remaining": "0", "RateLimit-Reset": str(moment)}, moment),
    }[form]
    error = {"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"}
    return json_answer(error, int(status), headers=headers, hold_until=until)


def _html(fault: Fault) -> Answer:
    page = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>It works!</body></html>\n"
    return Answer(200, page, "text/html; charset=utf-8")


def _redirect(fault: Fault) -> Answer:
    to = {"redirect": fault.to, "redirect-private": fault.to or PRIVATE, "redirect-loop": f"{LOOP}1"}[fault.kind]
    return redirect(to)


def redirect(to: str) -> Answer:
    """A redirect to this URL."""
    return Answer(302, b"", "text/plain", {"Location": to})


def _bomb(fault: Fault) -> Answer:
    pieces = 1024 * BOMB_GIBIBYTES
    start, piece, end = _bomb_parts()

    async def explode(line: Line) -> None:
        for _ in range(pieces // 64):
            await line.write(piece * 64)
            await asyncio.sleep(0)
        await line.write(end)

    size = len(start) + pieces * len(piece) + len(end)
    headers = {"Content-Encoding": "gzip", "Content-Length": str(size)}
    return Answer(200, start, CAR, headers, stream=explode)


@cache
def _bomb_parts() -> tuple[bytes, bytes, bytes]:
    """The beginning of a gzip stream, a piece that decodes to a mebibyte of zeros however often it comes, the end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    start = packer.compress(b"\x3a") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(_MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    # The checksum is wrong, as summing up gigabytes takes seconds; who gets there has not noticed anything anyway.
    return start, piece, packer.flush()


INSTEAD: dict[str, Callable[[Fault], Answer]] = {
    "429-reset": _stay_away,
    "429-retry-after": _stay_away,
    "429-date": _stay_away,
    "503-retry-after": _stay_away,
    "html": _html,
    "empty": lambda fault: Answer(200, b"", CAR),
    "reset": lambda fault: Answer(instead="reset"),
    "silence": lambda fault: Answer(instead="silence"),
    "redirect": _redirect,
    "redirect-private": _redirect,
    "redirect-loop": _redirect,
    "bomb": _bomb,
}


def _hang(fault: Fault, answer: Answer) -> Answer:
    """Half of the body, then nothing."""

    async def wait(line: Line) -> None:
        await line.gone()
        raise ConnectionAbortedError

    length = {"Content-Length": str(len(answer.body))}
    half = answer.body[: len(answer.body) // 2]
    return replace(answer, body=half, encoded=None, headers={**answer.headers, **length}, stream=wait)


def _drip(fault: Fault, answer: Answer) -> Answer:
    """The body a byte at a time, and more that could be part of it for ever."""

    async def drip(line: Line) -> None:
        for byte in chain(answer.body, chain.from_iterable(repeat(_filler(answer)))):
            await line.write(bytes([byte]))
            if await line.gone(fault.interval):
                raise ConnectionAbortedError

    return replace(answer, body=b"", encoded=None, stream=drip)


def _flood(fault: Fault, answer: Answer) -> Answer:
    """The body, and more that could be part of it for ever, as fast as it is taken."""

    async def flood(line: Line) -> None:
        while True:
            await line.write(_filler(answer) * 8)
            # Some hundred megabytes in a second are enough.
            await asyncio.sleep(0.001)

    return replace(answer, encoded=None, stream=flood)


@cache
def _endless_block() -> bytes:
    return endless_block()


def _filler(answer: Answer) -> bytes:
    return _endless_block() if answer.content_type == CAR else b" " * 4096


def _truncate_chunked(fault: Fault, answer: Answer) -> Answer:
    return replace(answer, keep=0.6, chunked=True)


def _truncate_encoded(fault: Fault, answer: Answer) -> Answer:
    """Cut in the middle of the encoded bytes; the length is that of the part, so that only decoding shows it."""
    return replace(answer, keep=0.6, stated=False, chunked=False, codings=CODINGS)


SENDING: dict[str, Callable[[Fault, Answer], Answer]] = {
    "hang": _hang,
    "drip": _drip,
    "flood": _flood,
    "truncate": lambda fault, answer: replace(answer, keep=0.6, chunked=False),
    "truncate-chunked": _truncate_chunked,
    "truncate-encoded": _truncate_encoded,
}
