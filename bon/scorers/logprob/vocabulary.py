"""Whether a reference reads sampled token ids as the model that sampled them wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from bon.errors import ModelError
from bon.records import Candidate, CandidateGroup

__all__ = ["refuse_other_vocabulary"]

_MOST = 64


def refuse_other_vocabulary(tokenizer: Any, groups: Iterable[CandidateGroup], path: str) -> bool:
    """Refuse a tokenizer that makes other texts of the first sampled tokens; tell if it saw any.

    White space and broken characters are left out: engines write them differently. What `--stop`
    cut off is in the tokens, but not in the text.

    Raises:
        ModelError: most texts are others.
    """
    seen = [
        (_plain(one.response), _plain(tokenizer.decode(one.token_ids, skip_special_tokens=True)))
        for one in islice(_sampled(groups), _MOST)
    ]
    others = [(text, found) for text, found in seen if not found.startswith(text)]
    if 2 * len(others) > len(seen):
        text, found = others[0]
        raise ModelError(
            "the reference model has another vocabulary than the model that sampled",
            where=path,
            why=f"the tokens of {text[:40]!r} are {found[:40]!r} to its tokenizer, and so for "
            f"{len(others)} of {len(seen)} responses",
            next_step="give the model that the generator was trained from, or one with its "
            "tokenizer",
        )
    return bool(seen)


def _sampled(groups: Iterable[CandidateGroup]) -> Iterator[Candidate]:
    for group in groups:
        for one in group.candidates:
            if one.token_ids and _plain(one.response):
                yield one


def _plain(text: str) -> str:
    return "".join(text.split()).replace("\ufffd", "")
