"""What the documents say, where a test can hold them to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bon.chat import ChatTemplate
from bon.records import Message

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
QUESTION: Message = {"role": "user", "content": "what is the sum?"}


def template_of(heading: str) -> str:
    """Return the template below a bold heading of docs/reward-models.md, as a file has it."""
    text = (ROOT / "docs" / "reward-models.md").read_text(encoding="utf-8")
    found = re.search(r"```jinja\n(.*?)```", text[text.index(f"**{heading}") :], re.DOTALL)
    assert found is not None
    return found[1]


def ids(tokens: Any, heading: str, *messages: Message) -> list[int]:
    return ChatTemplate(tokens, template_of(heading), "reward model", "-").tokens(messages)


@pytest.fixture(scope="module")
def deberta() -> Any:
    """A tokenizer of DeBERTa-v3's own class, with letters for words."""
    deberta_v2 = pytest.importorskip("transformers.models.deberta_v2.tokenization_deberta_v2")
    specials = [(name, 0.0) for name in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    pieces = [(piece, -1.0) for piece in [*"▁abcdefghijklmnopqrstuvwxyzI.,?0123456789", "▁is"]]
    return deberta_v2.DebertaV2Tokenizer(vocab=[*specials, *pieces, ("[MASK]", 0.0)], unk_id=3)


@pytest.mark.parametrize(
    ("question", "answer"),
    [("what is the sum?", "It is 4."), (" what\nis  ", "a\n\nb "), ("is", "\nIt is ~.")],
)
def test_the_template_for_deberta_gives_the_pairs_ids(
    question: str, answer: str, deberta: Any
) -> None:
    turn: tuple[Message, Message] = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    )
    assert ids(deberta, "DeBERTa", *turn) == deberta(question, answer)["input_ids"]


def test_the_template_for_deberta_refuses_several_turns(deberta: Any) -> None:
    with pytest.raises(Exception, match="one question, one answer"):
        ids(deberta, "DeBERTa", QUESTION, QUESTION, QUESTION)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_and_headings_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link) or "/results/" in link:  # a benchmark writes these
            continue
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, link
