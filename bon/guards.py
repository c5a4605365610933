"""Which formed pairs must not be trained on: columns of Q pairs in, reasons out.

Each guard returns a mask of the pairs that fail it; what is unknown never fails.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.errors import UnknownChoiceError, did_you_mean

__all__ = [
    "GUARDS",
    "below_min_chosen",
    "both_right",
    "both_wrong",
    "check_guards",
    "chosen_truncated",
    "empty_response",
    "guard_reasons",
    "length_ratio",
    "low_margin",
    "margin_threshold",
    "response_lengths",
    "same_after_truncation",
    "same_text",
    "tie",
]

GUARDS: Mapping[str, str] = MappingProxyType(
    {
        "tie": "both responses have the same reward",
        "low_margin": "the margin is not above --min-margin",
        "below_min_chosen": "the chosen response's reward is below --min-chosen",
        "chosen_truncated": "the chosen response was cut off at its token limit",
        "empty_response": "one of the responses is blank",
        "same_text": "both responses are the same but for white space and case",
        "both_right": "both responses are right",
        "both_wrong": "both responses are wrong",
        "length_ratio": "one response is more than --max-length-ratio times as long as the other",
        "same_after_truncation": "both are the same once cut to --max-length tokens",
    }
)
"""The guards in their order, each with a sentence for a person: the first to fail is the reason."""

_GLANCE = 128
"""Characters at either end of two texts that mostly tell them apart already."""

_Floats: TypeAlias = NDArray[np.float64]
_Mask: TypeAlias = NDArray[np.bool_]
_Strings: TypeAlias = "pa.StringArray | pa.ChunkedArray"


def guard_reasons(
    failed: Mapping[str, _Mask], num_pairs: int, allow: Collection[str] = ()
) -> NDArray[np.str_]:
    """Return the first guard of `GUARDS` that each pair fails, shape (Q,), empty where none.

    `failed` holds the masks of the guards that apply, in any order; those in `allow` do not count.

    Raises:
        UnknownChoiceError: a name in `failed` or `allow` is no guard.
        ValueError: a mask does not fit.
    """
    check_guards([*failed, *allow])
    names = np.array(["", *GUARDS])
    code_Q = np.zeros(num_pairs, dtype=np.int64)
    for code, name in reversed(list(enumerate(GUARDS, start=1))):
        if name in failed and name not in allow:
            if failed[name].shape != code_Q.shape:
                raise ValueError(f"{name} must have shape {code_Q.shape}: {failed[name].shape}")
            code_Q[failed[name]] = code
    reason_Q: NDArray[np.str_] = names[code_Q]
    return reason_Q


def check_guards(names: Iterable[str]) -> None:
    """Check the names of guards, before anything is done for which they would be needed.

    Raises:
        UnknownChoiceError: one is no guard.
    """
    for name in names:
        if name not in GUARDS:
            raise UnknownChoiceError(
                f"unknown guard {name!r}", next_step=did_you_mean(name, GUARDS)
            )


def margin_threshold(min_margin: str, margin_Q: _Floats) -> float:
    """Return the margin that a pair must be above, from `0.5` (a reward) or `10%` (a share).

    A share drops that many of the smallest margins, rounded down, but never a part of those that
    are equal: the threshold is the largest margin with all of it and below it inside the share, and
    -inf where there is none. `margin_Q` holds the margins of all pairs; NaN is left out.

    Raises:
        ValueError: neither a number nor a share.
    """
    if not min_margin.endswith("%"):
        return float(np.float32(min_margin))  # as margins are stored
    sorted_Q = np.sort(margin_Q[~np.isnan(margin_Q)])
    # Exactly: 0.29 * 100 is a little below 29.
    num_dropped = int(Fraction(min_margin[:-1]) * len(sorted_Q) / 100)
    if num_dropped >= len(sorted_Q):
        return float(sorted_Q[-1]) if len(sorted_Q) else -np.inf
    num_below = int(np.searchsorted(sorted_Q, sorted_Q[num_dropped]))
    return float(sorted_Q[num_below - 1]) if num_below else -np.inf


def tie(margin_Q: _Floats) -> _Mask:
    """Fail where both rewards are equal; leave it out for verified, where right beats wrong."""
    return np.asarray(margin_Q == 0.0)


def low_margin(margin_Q: _Floats, threshold: float) -> _Mask:
    """Fail where the margin is not above `margin_threshold`, so its own pair fails too.

    Verified may have margins of 0 and below: leave it out there unless a margin was asked for.
    """
    return np.asarray(margin_Q <= threshold)


def below_min_chosen(reward_chosen_Q: _Floats, min_chosen: float) -> _Mask:
    """Fail where the chosen reward is below the lowest that it may be, as float32 stores it."""
    return np.asarray(reward_chosen_Q.astype(np.float32) < np.float32(min_chosen))


def chosen_truncated(finish_reason_chosen_Q: _Strings) -> _Mask:
    """Fail where the chosen response ended for its length."""
    return _mask(pc.fill_null(pc.equal(finish_reason_chosen_Q, "length"), False))


def empty_response(chosen_Q: _Strings, rejected_Q: _Strings) -> _Mask:
    """Fail where one of the responses is nothing but white space."""
    is_blank_Q = [
        pc.equal(pc.binary_length(pc.utf8_trim_whitespace(text_Q)), 0)
        for text_Q in (chosen_Q, rejected_Q)
    ]
    return _mask(pc.or_(*is_blank_Q))


def same_text(chosen_Q: _Strings, rejected_Q: _Strings) -> _Mask:
    """Fail where both responses are the same once white space is collapsed and case is folded.

    Folded as Unicode does, so that ß is ss; not normalised further: é and e with an accent differ.
    """
    # Only pairs that begin and end alike are read in full: one text's is then part of the other's.
    is_same_Q = np.ones(len(chosen_Q), dtype=bool)
    for start, stop, is_part in (
        (0, _GLANCE, str.startswith),
        (-_GLANCE, None, str.endswith),
        (0, None, operator.eq),
    ):
        rows = pa.array(np.flatnonzero(is_same_Q))
        parts = (
            pc.utf8_slice_codeunits(text_Q.take(rows), start, stop).to_pylist()
            for text_Q in (chosen_Q, rejected_Q)
        )
        folded = ((_folded(a), _folded(b)) for a, b in zip(*parts, strict=True))
        is_same_Q[is_same_Q] = [is_part(a, b) or is_part(b, a) for a, b in folded]
    return is_same_Q


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def both_right(right_chosen_Q: _Floats, right_rejected_Q: _Floats) -> _Mask:
    """Fail where both responses are known to be right (1); leave it out for verified."""
    return np.asarray((right_chosen_Q == 1.0) & (right_rejected_Q == 1.0))


def both_wrong(right_chosen_Q: _Floats, right_rejected_Q: _Floats) -> _Mask:
    """Fail where both responses are known to be wrong (0); leave it out for verified."""
    return np.asarray((right_chosen_Q == 0.0) & (right_rejected_Q == 0.0))


def length_ratio(
    length_chosen_Q: _Floats, length_rejected_Q: _Floats, max_length_ratio: float
) -> _Mask:
    """Fail where the longer response is more than this many times as long as the shorter one."""
    longer_Q = np.maximum(length_chosen_Q, length_rejected_Q)
    shorter_Q = np.minimum(length_chosen_Q, length_rejected_Q)
    # Divided, not multiplied: 115 / 100 is 1.15, but 1.15 * 100 is a little below 115.
    with np.errstate(divide="ignore", invalid="ignore"):  # infinitely longer than an empty one
        return np.asarray(longer_Q / shorter_Q > max_length_ratio)


def same_after_truncation(
    token_ids_chosen_Q: Sequence[Sequence[int]], token_ids_rejected_Q: Sequence[Sequence[int]]
) -> _Mask:
    """Fail where prompt and response, cut to the same number of tokens, are the same tokens.

    Raises:
        ValueError: not as many chosen as rejected.
    """
    pairs = zip(token_ids_chosen_Q, token_ids_rejected_Q, strict=True)
    return np.fromiter((operator.eq(*pair) for pair in pairs), bool)


def response_lengths(
    response_C: _Strings, num_tokens_C: pa.Array | pa.ChunkedArray, count_P: NDArray[np.int64]
) -> _Floats:
    """Return each candidate's length, shape (C,): tokens, or characters for all of a prompt's
    candidates where the tokens of one of them are unknown, so that they can be compared.
    """
    length_C: _Floats = np.array(pc.cast(num_tokens_C, pa.float64()), dtype=np.float64)
    is_unknown_C = np.isnan(length_C)
    if is_unknown_C.any():
        prompt_C = np.repeat(np.arange(len(count_P)), count_P)
        num_unknown_P = np.bincount(prompt_C, weights=is_unknown_C, minlength=len(count_P))
        in_characters_C = np.repeat(num_unknown_P > 0, count_P)
        num_characters_C = np.asarray(pc.utf8_length(response_C))
        length_C[in_characters_C] = num_characters_C[in_characters_C]
    return length_C


def _mask(values: pa.Array | pa.ChunkedArray) -> _Mask:
    return np.array(values, dtype=bool)
