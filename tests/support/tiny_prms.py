"""Tiny random process reward models on disk, and conversations whose responses have steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bon.records import CandidateGroup, Message, Scores
from support.tiny_models import config, edit_config, tokenizer

STEP_TOKEN = "<extra_0>"


def save_qwen2_process(
    folder: Path, *, seed: int = 7, dtype: str = "float32",
    tokenizer_options: dict[str, Any] | None = None, step_token: str = STEP_TOKEN, **changes: Any,
) -> Path:  # fmt: skip
    """Save a random model as Qwen2.5-Math-PRM lies on the hub, the names of its code included."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Model

    torch.manual_seed(seed)
    settings = config("qwen2", **changes)
    body, width = Qwen2Model(settings), settings.hidden_size
    _spread(body)
    with torch.no_grad():  # what is read at the step token is its context, not itself
        body.embed_tokens.weight[260] *= 0.05
    tensors = {f"model.{name}": tensor for name, tensor in body.state_dict().items()}
    tensors |= {
        "score.0.weight": torch.randn(width, width) / 4,
        "score.0.bias": torch.randn(width) / 4,
        "score.2.weight": torch.randn(2, width) / 8,
        "score.2.bias": torch.tensor([0.0, 0.25]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings.to_dict() | {"dtype": dtype}))
    code = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    edit_config(folder, architectures=["Qwen2ForProcessRewardModel"], auto_map=code)
    tokens = tokenizer(**(tokenizer_options or {}))
    tokens.add_special_tokens({"additional_special_tokens": [step_token]})
    tokens.save_pretrained(folder)
    return folder


def save_token_classifier(
    folder: Path, *, kind: str = "qwen3", seed: int = 5, dtype: str = "float32",
    num_labels: int = 2, tokenizer_options: dict[str, Any] | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """Save a random model as TRL saves its process reward models."""
    import torch
    from transformers import AutoModelForTokenClassification

    torch.manual_seed(seed)
    settings = config(kind, num_labels=num_labels, **changes)
    model = AutoModelForTokenClassification.from_config(settings)
    _spread(model)
    tokens = tokenizer(**(tokenizer_options or {}))
    (line_break,) = tokens.encode("\n", add_special_tokens=False)[-1:]
    with torch.no_grad():  # what is read there is its context, not itself
        model.get_input_embeddings().weight[line_break] *= 0.05
        if hasattr(model, "score"):
            model.score.bias.copy_(torch.linspace(0.2, -0.2, num_labels))  # zero would hide it
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def _spread(model: Any) -> None:
    """Enlarge matrices, so that rewards are not all alike."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)


@cache
def step_groups(separator: str, token: str = STEP_TOKEN) -> tuple[CandidateGroup, ...]:
    """Conversations with one to five steps, blank ones, the step token typed here and there."""

    def steps(*parts: str) -> str:
        return separator.join(parts)

    user: Message = {"role": "user", "content": "How many eggs are left?\n\nCount."}
    typing: Message = {"role": "user", "content": f"a{token}b{separator}c{token}"}
    system: Message = {"role": "system", "content": f"mark{token} steps"}
    hesitating: Message = {"role": "assistant", "content": f"hm{token}"}
    one_turn = (
        steps("Sixteen eggs.", "Three are eaten: 16 - 3 = 13.", "So 13 é🙂."),
        steps("It is 4."),
        steps("", "No.", "  ", "", "Yes, 7. ", ""),
        steps("No.", "Yes, 7."),
        steps(*"abcde"),
    )
    by_others = (steps("x = 1", "y = 2", "z = 3" * 20), steps("only this"))
    by_model = (steps(f"a{token}b", "end"), steps("a", "b", "end"), steps(token, f"z{token}"))
    return (
        CandidateGroup("one turn", (user,), one_turn),
        CandidateGroup("typed by others", (system, typing), by_others),
        CandidateGroup("typed by the model", (typing,), by_model),
        CandidateGroup("several turns", (user, hesitating, user), (steps("first", "second"),)),
    )


def reasons(results: Sequence[Scores]) -> list[str]:
    """Return why scores are none, in order."""
    return [drop.reason for result in results for drop in result.reasons.values()]
