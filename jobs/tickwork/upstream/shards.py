"""Which machine speaks to which server: several machines split the servers, and each server hears from one of them.

Rendezvous hashing: with one machine more or less, only the servers that change hands change hands.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tickwork.contract.outcomes import OperatorError
from tickwork.upstream.hosts import UNKNOWN, HostKey


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` (from 1) of `count`."""

    number: int = 1
    count: int = 1
    _known: dict[HostKey, bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/8`. Raises OperatorError."""
        first, slash, second = text.partition("/")
        if slash and first.isascii() and second.isascii() and first.isdigit() and second.isdigit():
            number, count = int(first), int(second)
            if 1 <= number <= count <= 4096:
                return cls(number, count)
        raise OperatorError(f"a shard is written like 2/8 (the second of eight), not {text!r}")

    def owns(self, host: HostKey) -> bool:
        """Whether a server is this part's; one that is not known yet is everybody's."""
        if self.count == 1 or host == UNKNOWN:
            return True
        if host not in self._known:
            self._known[host] = max(range(1, self.count + 1), key=lambda part: _weight(host, part)) == self.number
        return self._known[host]


def _weight(host: HostKey, part: int) -> bytes:
    return hashlib.sha256(f"{part}|{host}".encode()).digest()
