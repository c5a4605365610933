"""Native rows by hand, as curation hands them to exports."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

SYSTEM = {"role": "system", "content": "Be short."}
ONE = [{"role": "user", "content": "1+1?"}]
TWO = [SYSTEM, {"role": "user", "content": "Hi 🙂"}]
EXTRA = (pa.field("answer", pa.string()), pa.field("topic", pa.string()))


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def pair(
    prompt_id: str, prompt: list[dict[str, str]], numbers: tuple[int, int], margin: float
) -> dict[str, Any]:
    chosen, rejected = numbers
    return {
        "answer": f"so #### {prompt_id[1:]}",
        "topic": "maths",
        "prompt": prompt,
        "chosen": said(f"{prompt_id}-{chosen}"),
        "rejected": said(f"{prompt_id}-{rejected}"),
        "score_chosen": margin,
        "score_rejected": 0.0,
        "margin": margin,
        "prompt_id": prompt_id,
        "candidate_chosen": chosen,
        "candidate_rejected": rejected,
        "num_tokens_chosen": 3,
        "num_tokens_rejected": 4,
    }


def response(prompt_id: str, prompt: list[dict[str, str]], number: int) -> dict[str, Any]:
    text = f"{prompt_id}-{number}"
    return {
        "answer": f"so #### {prompt_id[1:]}",
        "topic": "maths",
        "prompt_id": prompt_id,
        "prompt": prompt[-1]["content"],
        "response": text,
        "messages": [*prompt, *said(text)],
        "reward": 0.1,
        "candidate": number,
        "num_candidates": 4,
        "rewards": [0.1, None],
        "finish_reason": "stop",
        "num_tokens": 3,
    }
