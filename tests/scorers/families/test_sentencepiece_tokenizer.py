"""Token ids of tokenizers built from sentencepiece models against sentencepiece's own."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_families import sentencepiece_model
from support.tiny_models import CHATML
from support.tiny_models import tokenizer as byte_tokenizer

from bon.errors import ModelError
from bon.scorers.families.sentencepiece_tokenizer import load_tokenizer_of, merges

pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

KINDS: dict[str, dict[str, Any]] = {
    "internlm2's": {},
    "llama's": {"prefix": True},
    "sentencepiece's default": {"prefix": True, "spaces": True, "rule": "nmt_nfkc"},
    "with symbols": {"symbols": ("[UNUSED_TOKEN_1]", "[UNUSED_TOKEN_2]")},
}
CONFIG: dict[str, Any] = {
    "tokenizer_class": "InternLM2Tokenizer",
    "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.EvilFast"]},
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "</s>",
    "model_max_length": 777,
    "sp_model_kwargs": None,
    "chat_template": "{{ bos_token }}" + CHATML,
}


def save(folder: Path, added: dict[int, str], **options: Any) -> Any:
    """Save a tokenizer as InternLM2's repositories do; return sentencepiece's own."""
    folder.mkdir(parents=True, exist_ok=True)
    model = sentencepiece_model(folder, **options)
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokens = {
        str(number): {"content": name, "special": True, **flags} for number, name in added.items()
    }
    config = CONFIG | {"added_tokens_decoder": tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return sentencepiece.SentencePieceProcessor(model_file=str(model))


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("tokenizer")
    own = save(folder, {0: "<unk>", 1: "<s>", 2: "</s>"}, **KINDS[request.param])
    return own, load_tokenizer_of(str(folder))


def texts() -> list[str]:
    letters = random.Random(0)
    words = [
        "the",
        "quick",
        " brown",
        "  fox",
        "jumps\n",
        "\t",
        "é",
        "🙂",
        "ﬁ",
        "12",
        "7919",
        "<0x41>",
    ]
    words += ["[UNUSED_TOKEN_1]", "漢字", " ", "   ", "lazy", "thetheother", "▁", "\u00a0"]
    return ["", " ", "a", *("".join(letters.choices(words, k=12)) for _ in range(300))]


def test_ids_are_sentencepieces_own(pair: tuple[Any, Any]) -> None:
    own, built = pair
    for text in texts():
        assert built.encode(text, add_special_tokens=False) == own.encode(text), text


def test_text_comes_back(tmp_path: Path) -> None:
    save(tmp_path, {0: "<unk>", 1: "<s>", 2: "</s>"})
    built = load_tokenizer_of(str(tmp_path))
    for text in ("the quick brown fox", " 漢字 🙂\n", ""):
        assert built.decode(built.encode(text, add_special_tokens=False)) == text


@given(text=st.text(alphabet="thequickbrown  é\n漢", max_size=40))
@settings(deadline=None)
def test_ids_of_any_text_are_sentencepieces_own(pair: tuple[Any, Any], text: str) -> None:
    own, built = pair
    assert built.encode(text, add_special_tokens=False) == own.encode(text)


def test_conversations_go_through_the_repositorys_template(tmp_path: Path) -> None:
    own = save(tmp_path, {}, size=400)
    end, start = own.get_piece_size() - 2, own.get_piece_size() - 1
    own = save(
        tmp_path, {0: "<unk>", 1: "<s>", 2: "</s>", end: "<|im_end|>", start: "<|im_start|>"}
    )
    built = load_tokenizer_of(str(tmp_path))
    messages = [{"role": "user", "content": "the fox"}, {"role": "assistant", "content": " jumps"}]
    ids = built.apply_chat_template(messages, tokenize=True, return_dict=False)
    turns = [("user", "the fox"), ("assistant", " jumps")]
    assert ids == [
        1,
        *(
            token
            for role, text in turns
            for token in [start, *own.encode(f"{role}\n{text}"), end, *own.encode("\n")]
        ),
    ]
    assert built.model_max_length == 777
    assert (built.bos_token_id, built.eos_token_id) == (1, 2)


def test_tokens_behind_the_pieces_keep_their_numbers(tmp_path: Path) -> None:
    size = save(tmp_path, {}).get_piece_size()
    save(tmp_path, {size: "<|a|>", size + 1: "<|b|>"})
    assert load_tokenizer_of(str(tmp_path)).encode("<|b|><|a|>") == [size + 1, size]


def test_tokens_with_a_gap_before_them_are_refused(tmp_path: Path) -> None:
    size = save(tmp_path, {}).get_piece_size()
    save(tmp_path, {size + 5: "<|a|>"})
    with pytest.raises(ModelError, match="tokenizer") as caught:
        load_tokenizer_of(str(tmp_path))
    assert "<|a|>" in caught.value.why


def test_tokenizer_json_is_taken_first(tmp_path: Path) -> None:
    save(tmp_path, {})
    byte_tokenizer().save_pretrained(tmp_path)
    assert load_tokenizer_of(str(tmp_path)).encode("hi") == byte_tokenizer().encode("hi")


def test_without_sentencepiece_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, {})
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(ModelError) as caught:
        load_tokenizer_of(str(tmp_path))
    assert caught.value.next_step == "pip install sentencepiece protobuf"


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    save(tmp_path, {}, kind="unigram", size=300)
    with pytest.raises(ModelError) as caught:
        load_tokenizer_of(str(tmp_path))
    assert "byte-pair" in caught.value.why


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer_config.json"])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    save(tmp_path, {1: "<s>"})
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError) as caught:
            load_tokenizer_of(str(tmp_path))
        assert caught.value.where == str(tmp_path)


def test_no_file_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_tokenizer_of(str(tmp_path))
    assert "neither" in caught.value.why


def test_merges_are_all_splits_of_a_piece_in_its_order() -> None:
    assert merges(["ab", "abc", "a", "b", "c", "bc"]) == [
        ("a", "b"),
        ("a", "bc"),
        ("ab", "c"),
        ("b", "c"),
    ]
