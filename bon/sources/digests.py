"""A set of digests that takes little more memory than they do."""

from __future__ import annotations

__all__ = ["NUM_BYTES", "Digests"]

NUM_BYTES = 16
"""Of a digest: among 10⁹ of them the chance that two are alike is 10⁻²¹."""
_OF_BUCKET = 2
_REST = NUM_BYTES - _OF_BUCKET


class Digests:
    """Digests seen so far: 20 to 30 bytes each, where a set of Python takes 80 to 100.

    The first two bytes name a bucket, which holds the others one behind the other; among 10⁸
    digests it has 1,500, and is searched in a few microseconds.
    """

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(1 << 8 * _OF_BUCKET)]

    def add(self, digest: bytes) -> bool:
        """Add a digest of `NUM_BYTES`; tell whether it was new."""
        bucket = self._buckets[int.from_bytes(digest[:_OF_BUCKET], "big")]
        rest = digest[_OF_BUCKET:]
        at = bucket.find(rest)
        while at > 0 and at % _REST:  # the end of one and the beginning of the next
            at = bucket.find(rest, at + 1)
        if at >= 0:
            return False
        bucket += rest
        return True
