"""Texts of a frame as Arrow arrays, and what they are compared by: digests and word n-grams."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bon.pipeline.conversations import as_array

__all__ = ["Words", "digests", "slices", "user_turns", "words"]

_SLICE_TEXTS = 4096
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that a word's place in its n-gram counts
# Full-width marks are never operators; the others may be, so they go only from a word's end.
_ALWAYS_DROPPED = "。、，．；：！？「」『』〈〉《》【】"
_CURLY = dict(zip("‘’“”„«»−", '\'\'"""""-', strict=True))
_SENTENCE_END = re.compile(r"""(?<=[^.,;:!?"'…])[.,;:!?"'…]+(?=[.,;:!?"'…)\]}*`~]*$)""")
_OPENING = re.compile(r"""^[("'\[{*`~¿¡]+(?=\w)""")
# Scripts that put no space between words: each of their characters is taken as a word.
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"


def user_turns(prompts: pa.Array) -> pa.Array:
    """Return the user's turns of each conversation (`MESSAGES_TYPE`), joined by line breaks."""
    messages = prompts.flatten()
    is_user = np.asarray(pc.equal(messages.field("role"), "user").fill_null(False))
    content = messages.field("content").filter(pa.array(is_user))
    ends = np.cumsum(pc.fill_null(pc.list_value_length(prompts), 0).to_numpy())
    before = np.r_[0, np.cumsum(is_user)]
    offsets = before[np.r_[0, ends]].astype(np.int32)
    turns = pa.ListArray.from_arrays(pa.array(offsets), content)
    return pc.binary_join(turns, "\n")


def slices(texts: pa.Array) -> Iterator[pa.Array]:
    """Cut into slices that keep what is computed of them small."""
    for start in range(0, len(texts), _SLICE_TEXTS):
        yield texts.slice(start, _SLICE_TEXTS)


def digests(texts: pa.Array, *, ignore_case: bool = False) -> NDArray[np.uint64]:
    """Return 128-bit digests of normalised texts, shape (texts, 2).

    Normalised is Unicode NFC with runs of ASCII white space as one space and none at the ends; a
    null is an empty text.
    """
    texts = _composed(texts.fill_null(""))
    texts = pc.utf8_lower(texts) if ignore_case else texts
    texts = pc.replace_substring_regex(texts, r"[\t\n\v\f\r ]{2,}|[\t\n\v\f\r]", " ")
    texts = as_array(pc.utf8_trim_whitespace(texts))
    _, offset_buffer, data_buffer = texts.buffers()
    ends = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = memoryview(data_buffer if data_buffer is not None else b"")
    blake2b, bounds = hashlib.blake2b, ends.tolist()
    joined = b"".join(
        blake2b(data[start:end], digest_size=16).digest() for start, end in pairwise(bounds)
    )
    return np.frombuffer(joined, np.uint64).reshape(-1, 2)


def _composed(texts: pa.Array) -> pa.Array:
    """Put into NFC, only the texts where that can change something."""
    is_ascii = np.asarray(pc.string_is_ascii(texts))
    if is_ascii.all():
        return texts
    others = texts.filter(pa.array(~is_ascii)).to_pylist()
    composed = pa.array([unicodedata.normalize("NFC", text) for text in others], texts.type)
    return pc.replace_with_mask(texts, pa.array(~is_ascii), composed)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts, one after the other, in lower case (see `words`)."""

    dictionary: list[str]
    """Distinct words."""
    index_W: NDArray[np.int64]
    """Each word's place in the dictionary."""
    hash_W: NDArray[np.uint64]
    start_T: NDArray[np.int64]
    """Where each text's words begin; one more entry than texts."""

    def of(self, text: int) -> list[str]:
        """Return one text's words."""
        start, end = self.start_T[text : text + 2]
        return [self.dictionary[i] for i in self.index_W[start:end]]

    def ngrams(self, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the hashes of all runs of n words, and where each text's begin (one entry more).

        A text of fewer words is one run of all of them; a text of none has no run. Run i of a
        text begins at its word i.
        """
        count_T = np.diff(self.start_T)
        grams_T = np.where(count_T > 0, np.maximum(count_T - n + 1, 1), 0)
        first_T = np.r_[0, np.cumsum(grams_T)]
        text_G = np.repeat(np.arange(len(grams_T)), grams_T)
        place_G = np.arange(first_T[-1]) - first_T[text_G] + self.start_T[text_G]
        end_G = self.start_T[1:][text_G]
        hash_G = np.zeros(len(place_G), np.uint64)
        for step in range(n):
            at_G = place_G + step
            inside = at_G < end_G
            hash_G *= _MULTIPLIER
            hash_G[inside] += self.hash_W[at_G[inside]]
        return hash_G, first_T


def words(texts: pa.Array) -> Words:
    """Cut texts into words; a null is an empty text.

    A number's sign and what stands inside numbers and words belong to them (`-5`, `1.5`, `isn't`);
    every other symbol is a word of its own, but for the punctuation at a word's end and the quotes
    around it.
    """
    texts = _composed(texts.fill_null(""))
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        texts = pc.replace_substring_regex(texts, _UNSPACED, r" \1 ")
    lists = as_array(pc.utf8_split_whitespace(pc.utf8_lower(texts)))
    length_T = pc.list_value_length(lists).to_numpy() if len(lists) else np.zeros(0, np.int64)
    encoded = as_array(pc.dictionary_encode(lists.flatten()))
    cut = [_cut(piece) for piece in encoded.dictionary.to_pylist()]
    number_of: dict[str, int] = {}
    flat = [number_of.setdefault(word, len(number_of)) for word in chain.from_iterable(cut)]
    count = np.array([len(one) for one in cut], np.int64)
    piece_W = encoded.indices.to_numpy().astype(np.int64)
    end_W = np.cumsum(count[piece_W])
    start = np.cumsum(count) - count
    index_W = np.repeat(start[piece_W] - end_W + count[piece_W], count[piece_W])
    index_W = np.array(flat, np.int64)[index_W + np.arange(len(index_W))]
    hashes = np.frombuffer(
        b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in number_of),
        np.uint64,
    )
    start_T = np.r_[0, end_W][np.r_[0, np.cumsum(length_T)]]
    return Words(list(number_of), index_W, hashes[index_W], start_T)


def _cut(piece: str) -> list[str]:
    """Cut what stands between white space."""
    if piece.isascii() and piece.isalnum():
        return [piece]
    normal, word = _rules()
    piece = _SENTENCE_END.sub("", piece.translate(normal))
    return word.findall(_OPENING.sub(lambda found: re.sub("[\"'¿¡]", "", found[0]), piece))


@cache
def _rules() -> tuple[dict[int, str | None], re.Pattern[str]]:
    """Return what characters are replaced by, and the pattern of a word."""
    codes = chain(range(0x80, 0x20000), range(0xE0000, 0xE0200))  # beyond are only ideographs
    kinds = {code: unicodedata.category(chr(code)) for code in codes}
    dropped = [code for code, kind in kinds.items() if kind == "Cf" or chr(code) in _ALWAYS_DROPPED]
    dropped += range(0xFE00, 0xFE10)  # variation selectors: how a symbol is drawn
    normal: dict[int, str | None] = dict.fromkeys(dropped)
    normal |= {ord(curly): straight for curly, straight in _CURLY.items()}
    # Python's \w leaves out the marks that write the vowels of Hindi and its like.
    marks = "".join(chr(code) for code, kind in kinds.items() if kind[0] == "M")
    letter = rf"[\w{marks}]"
    sign = rf"(?:(?<![\w{marks})\]}}])(?:[+-]\.?|\.)(?=\d))?"
    inside = rf"(?:[.'-]{letter}+|(?<=\d)[,:](?=\d){letter}+)*"
    return normal, re.compile(rf"{sign}{letter}+{inside}|[^\w\s]")
