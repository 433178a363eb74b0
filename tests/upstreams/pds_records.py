"""Made-up records of the kinds that accounts have, and times as the network writes them; all follow from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.kits.atproto import Cid, cid

EPOCH_MICROSECONDS = 1_704_067_200_000_000
"""2024 begins."""
_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"
_WORDS = ("sea", "stone", "naïve", "Überfahrt", "夜の海", "مرحبا", "slow", "northern", "🦋", "zero", "line\nbreak", "")
_BLOB = cid(b"a picture", codec=0x55)


def tid(microseconds: int, clock: int) -> str:
    """The TID of a moment and a clock's number (0 to 1023)."""
    number = microseconds << 10 | clock
    return "".join(_DIGITS[number >> shift & 31] for shift in range(60, -1, -5))


def generated(rng: random.Random, count: int) -> dict[str, Any]:
    """So many records by path."""
    records: dict[str, Any] = {}
    while len(records) < count:
        collection, key, make = rng.choices(_KINDS, _WEIGHTS)[0]
        moment = EPOCH_MICROSECONDS + rng.randrange(86_400_000_000 * 200)
        path = f"{collection}/{key(rng, moment)}"
        records[path] = {"$type": collection, **make(rng), "createdAt": "2024-03-05T06:07:08.000Z"}
    return records


def edited(rng: random.Random, value: Any) -> Any:
    """Another value for a record."""
    return {**value, "text": _text(rng), "edits": rng.randrange(2**40)}


def _text(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randrange(1, 20)))


def _post(rng: random.Random) -> dict[str, Any]:
    post: dict[str, Any] = {"text": _text(rng), "langs": rng.sample(["en", "ja", "ar"], rng.randrange(3))}
    if rng.random() < 0.3:
        blob = {"$type": "blob", "ref": _BLOB, "mimeType": "image/jpeg", "size": rng.randrange(1, 2**33)}
        post["embed"] = {"$type": "app.bsky.embed.images", "images": [{"alt": "", "image": blob}]}
    return post


def _like(rng: random.Random) -> dict[str, Any]:
    return {"subject": {"uri": f"at://did:plc:{'a' * 24}/app.bsky.feed.post/3k", "cid": str(_link(rng))}}


def _follow(rng: random.Random) -> dict[str, Any]:
    return {"subject": "did:plc:" + "".join(rng.choices(_DIGITS, k=24))}


def _odd(rng: random.Random) -> dict[str, Any]:
    nested: Any = [None, True, False, -1, 0, 2**53, -(2**40), b"\x00\xff", _link(rng), "", {}, []]
    return {"values": rng.sample(nested, rng.randrange(len(nested))), "é": {"deep": [[[nested[:3]]]]}}


def _link(rng: random.Random) -> Cid:
    return cid(rng.randbytes(8))


def _moment(rng: random.Random, microseconds: int) -> str:
    return tid(microseconds, rng.randrange(1024))


def _self(rng: random.Random, microseconds: int) -> str:
    return "self"


def _name(rng: random.Random, microseconds: int) -> str:
    return "".join(rng.choices("abcXYZ019_~.:-", k=rng.randrange(3, 40)))


_Kind = tuple[str, Callable[[random.Random, int], str], Callable[[random.Random], dict[str, Any]]]
_KINDS: list[_Kind] = [
    ("app.bsky.feed.post", _moment, _post),
    ("app.bsky.feed.like", _moment, _like),
    ("app.bsky.graph.follow", _moment, _follow),
    ("app.bsky.actor.profile", _self, _post),
    ("com.example.notes.entry", _name, _odd),
    # Begins like another collection, and is not part of it.
    ("app.bsky.feedback", _moment, _odd),
]
_WEIGHTS = [40, 25, 15, 5, 10, 5]
