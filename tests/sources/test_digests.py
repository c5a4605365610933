"""The compact set of digests says what a set of Python's says."""

from __future__ import annotations

import tracemalloc
from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from bon.sources.digests import NUM_BYTES, Digests

# few values: digests come again, and one begins where another ends
alike = st.lists(st.sampled_from([0, 1]), min_size=NUM_BYTES - 2, max_size=NUM_BYTES - 2).map(
    lambda rest: bytes([0, 0, *rest])
)
turned = st.integers(0, 13).map(lambda by: bytes(2) + (bytes(13) + b"\1" + bytes(13))[by : by + 14])


@given(st.lists(alike | turned | st.binary(min_size=NUM_BYTES, max_size=NUM_BYTES)))
def test_it_knows_what_was_added_and_nothing_else(digests: list[bytes]) -> None:
    ours, known = Digests(), set[bytes]()
    for digest in digests:
        assert ours.add(digest) == (digest not in known)
        known.add(digest)


def test_what_stands_across_two_is_none() -> None:
    ours = Digests()
    first, second = bytes(2) + b"abcdefghijklmn", bytes(2) + b"opqrstuvwxyzAB"
    across = (first + second[2:])[9:23]
    assert [ours.add(one) for one in (first, second, bytes(2) + across, first, second)] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_it_takes_little_more_than_they_do() -> None:
    number = 200_000
    tracemalloc.start()
    try:
        ours = Digests()
        empty = tracemalloc.get_traced_memory()[0]
        for n in range(number):
            assert ours.add(blake2b(b"%d" % n, digest_size=NUM_BYTES).digest())
        assert (tracemalloc.get_traced_memory()[0] - empty) / number < 30
    finally:
        tracemalloc.stop()
