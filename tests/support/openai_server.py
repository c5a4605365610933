"""A small server of OpenAI's contract, for `FakeServer`; each of its habits can be another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from support.servers import Answer, Asked


def response_of(prompt: str, seed: int) -> str:
    """The response that `OpenAI` gives for a prompt and the seed of one choice."""
    return hashlib.sha256(f"{prompt}|{seed}".encode()).hexdigest()[: 4 + seed % 5]


def logprobs_of(response: str) -> list[float]:
    """Its log-probabilities: one token a letter, and one for the end."""
    return [-(ord(letter) % 7) / 4 for letter in response] + [-0.5]


@dataclass
class OpenAI:
    """/v1/models, /v1/chat/completions and /v1/completions; choice i has the seed `seed + i`."""

    models: tuple[str, ...] = ("tiny",)
    owner: str = "someone"
    most_choices: int = 1000
    """It gives no more, whatever is asked."""
    refuses_several: bool = False
    """It answers 400 where n is more than 1."""
    limit_of_choices: int = 1000
    """It answers 400 where n is more."""
    refuses: str = "refuse me"
    """It answers 400 to prompts with this text."""
    busy_every: int = 0
    has_logprobs: bool = True
    has_usage: bool = True
    changes: dict[str, Any] = field(default_factory=dict)
    """Of each choice; a value that is an object is merged."""
    answer: Any = None
    """What is sent in place of a completion."""

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/v1/models":
            rows = [{"id": name, "object": "model", "owned_by": self.owner} for name in self.models]
            return Answer({"object": "list", "data": rows})
        if asked.path not in ("/v1/chat/completions", "/v1/completions"):
            return Answer({"detail": "Not Found"}, status=404)
        if self.busy_every and asked.number % self.busy_every == 0:
            return Answer({"error": "busy"}, status=429, headers={"Retry-After": "0.01"})
        return self._completion(asked.body)

    def _completion(self, body: dict[str, Any]) -> Answer:
        prompt = body["prompt"] if "prompt" in body else json.dumps(body["messages"])
        most = 1 if self.refuses_several else self.limit_of_choices
        if self.refuses in prompt or body["n"] > most:
            return Answer({"error": {"message": f"cannot do {prompt[:40]}"}}, status=400)
        if self.answer is not None:
            return Answer(self.answer)
        responses = [
            response_of(prompt, body["seed"] + number)
            for number in range(min(body["n"], self.most_choices))
        ]
        choices = [self._choice(body, number, text) for number, text in enumerate(responses)]
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": sum(len(logprobs_of(text)) for text in responses),
        }
        return Answer({"choices": choices[::-1], **({"usage": usage} if self.has_usage else {})})

    def _choice(self, body: dict[str, Any], number: int, text: str) -> dict[str, Any]:
        is_chat = "messages" in body
        found = logprobs_of(text)
        choice: dict[str, Any] = {"index": number, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        # llama.cpp gives none where no others are asked for
        has_none = self.owner == "llamacpp" and body.get("top_logprobs") == 0
        if self.has_logprobs and "logprobs" in body and not has_none:
            others = [{"token": "y", "logprob": -0.01}] * body.get("top_logprobs", 0)
            content = [{"token": "x", "logprob": one, "top_logprobs": others} for one in found]
            choice["logprobs"] = {"content": content} if is_chat else {"token_logprobs": found}
        for name, value in self.changes.items():
            choice[name] = {**choice[name], **value} if isinstance(value, dict) else value
        return choice
