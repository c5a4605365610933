"""Tokenizers whose class is not transformers' own: tokenizer.json, or a sentencepiece model.

A sentencepiece model of byte-pair encoding becomes a tokenizer of the tokenizers package, as for
Llama's: the pieces by their number, the merges by what they make, bytes for what is not known.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bon.chat import check_vocabulary
from bon.errors import ModelError, first_line

__all__ = ["load_tokenizer_of", "merges"]

_BPE = 2  # sentencepiece's numbers of a model's type and of a piece's
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_SPACE = "▁"
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def load_tokenizer_of(path: str) -> Any:
    """Load a folder's tokenizer without the class that it names.

    Raises:
        ModelError: a file is missing or damaged, sentencepiece is not installed, or the model is
            not of byte-pair encoding.
    """
    from transformers import PreTrainedTokenizerFast

    given = {} if (Path(path) / "tokenizer.json").is_file() else {"tokenizer_object": _built(path)}
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, **given)
    except Exception as error:  # damaged files raise many kinds
        raise _unusable(path, first_line(error)) from error
    check_vocabulary(tokenizer, "reward model", path)
    return tokenizer


def merges(pieces: list[str]) -> list[tuple[str, str]]:
    """Return byte-pair encoding's merges, in order, of pieces that stand by falling score.

    Sentencepiece makes the best-scored piece of any two neighbours: every split of a piece into
    two pieces is a merge, at that piece's rank.
    """
    known = set(pieces)
    return [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]


def _built(path: str) -> Any:
    """Build the tokenizer of tokenizer.model and of the tokens that tokenizer_config.json adds."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    proto, added = _proto(path), _added_tokens(path)
    # an added token takes the name of the piece with its number
    named = [
        (str(added[number]) if number in added else piece.piece, piece)
        for number, piece in enumerate(proto.pieces)
    ]
    best_first = sorted(named, key=lambda item: -item[1].score)
    names = [name for name, _ in named]
    inner = Tokenizer(
        models.BPE(
            vocab={name: number for number, name in enumerate(names)},
            merges=merges([name for name, piece in best_first if piece.type == _NORMAL]),
            unk_token=names[proto.trainer_spec.unk_id],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    inner.normalizer = _normalizer(proto.normalizer_spec)
    inner.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    whole = [AddedToken(n, normalized=False, special=True) for n, p in named if p.type == _CONTROL]
    whole += [AddedToken(n, normalized=False) for n, p in named if p.type == _USER_DEFINED]
    inner.add_tokens([*whole, *(added[number] for number in sorted(added))])
    moved = [
        str(token) for number, token in added.items() if inner.token_to_id(str(token)) != number
    ]
    if moved:
        raise _unusable(path, f"tokenizer_config.json and tokenizer.model disagree on {moved[:3]}")
    return inner


def _normalizer(spec: Any) -> Any:
    """Return what sentencepiece does to a text before it cuts it into pieces."""
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _proto(path: str) -> Any:
    file = Path(path) / "tokenizer.model"
    if not file.is_file():
        raise _unusable(path, "there is neither tokenizer.json nor tokenizer.model")
    try:
        from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
    except ImportError as error:
        raise ModelError(
            "cannot load the reward model's tokenizer",
            where=path,
            why=f"tokenizer.model needs the sentencepiece package: {first_line(error)}",
            next_step="pip install sentencepiece protobuf",
        ) from error
    proto = ModelProto()
    try:
        proto.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf's own kinds
        raise _unusable(path, first_line(error)) from error
    if proto.trainer_spec.model_type != _BPE or not proto.pieces:
        raise _unusable(path, "tokenizer.model is not a model of byte-pair encoding")
    return proto


def _added_tokens(path: str) -> dict[int, Any]:
    """Return the tokens that tokenizer_config.json adds, by number."""
    from tokenizers import AddedToken

    file = Path(path) / "tokenizer_config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        tokens = found.get("added_tokens_decoder") or {}
        return {
            int(number): AddedToken(token["content"], **{f: bool(token.get(f)) for f in _FLAGS})
            for number, token in tokens.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, f"tokenizer_config.json: {first_line(error)}") from error


def _unusable(path: str, why: str) -> ModelError:
    return ModelError(
        "cannot load the reward model's tokenizer",
        where=path,
        why=why,
        next_step="give a folder that holds the model's tokenizer as well as its weights",
    )
