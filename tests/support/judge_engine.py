"""The real vLLM as a judge, in a `Worker` process, and plain forward passes to hold it to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bon.records import CandidateGroup, Scores
from support.judges import judge_of

QUESTION = "{{ response }}"
"""A template that asks nothing more: the question is the response."""
MAX_MODEL_LEN = 128

_engine: list[Any] = []


def score(
    groups: Sequence[CandidateGroup], spec: str, options: str = ""
) -> tuple[list[Scores], int]:
    """Score groups on the process's one engine; also the tokens that were computed."""
    said = f"{spec}?max_model_len={MAX_MODEL_LEN}&kv_cache_gib=0.05{options}"
    judge = judge_of(said)
    if not _engine:
        judge.__enter__()
        _engine.append(judge.model._llm)  # type: ignore[attr-defined]
    else:
        with patch("bon.scorers.judge.vllm.import_llm", lambda advice: lambda **_: _engine[0]):
            judge.__enter__()
    return judge.score(groups), judge.num_tokens_computed


class Plain:
    """A language model of transformers, one conversation at a time."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def tokens(self, question: str) -> list[int]:
        """The question's token ids, its chat template included."""
        messages = [{"role": "user", "content": question}]
        return list(
            self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
        )

    def share(self, question: str, first: Sequence[str], second: Sequence[str]) -> float:
        """Softmax over the logits of two sets of tokens, as one probability of the first."""
        import torch

        ids = [self.tokenizer.encode(one)[0] for one in (*first, *second)]
        with torch.no_grad():
            logits = self.model(torch.tensor([self.tokens(question)])).logits[0, -1].double()
        return float(logits[ids].softmax(0)[: len(first)].sum())

    def says(self, question: str, num_tokens: int) -> str:
        """The likeliest token again and again."""
        import torch

        tokens = self.tokens(question)
        start = len(tokens)
        for _ in range(num_tokens):
            with torch.no_grad():
                tokens.append(int(self.model(torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] == self.tokenizer.eos_token_id:
                break
        return str(self.tokenizer.decode(tokens[start:], skip_special_tokens=True))
