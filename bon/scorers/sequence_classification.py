"""Bradley-Terry reward models: `…ForSequenceClassification` with one label, on transformers."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.batching import length_sorted_batches
from bon.scorers.encoding import ConversationEncoder, Encoded

__all__ = ["SequenceClassificationScorer"]

_EAGER_ONLY = frozenset({"gemma2"})  # soft-capped attention: sdpa leaves the cap out
_UNLIMITED = 1 << 30


@dataclass
class SequenceClassificationScorer:
    """`Scorer` whose scores are those of one conversation at a time.

    Batches are padded on the right and the pooled position is computed here, so neither a pad
    token equal to eos nor its absence moves it.
    """

    settings: ScorerSettings
    model_path: str
    """Folder of the model."""
    template: str | None = None
    """Jinja source in place of the model's own template."""

    def __enter__(self) -> SequenceClassificationScorer:
        import torch
        from transformers import AutoTokenizer

        self._torch: Any = torch
        wanted = self.settings.device
        available = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = available if wanted == "auto" else wanted
        config = _checked_config(self.model_path)
        self._model = _load(self.model_path, config, self.settings.dtype).to(self._device).eval()
        tokenizer = AutoTokenizer.from_pretrained(self.model_path)
        self._encoder = ConversationEncoder(
            tokenizer,
            self.template,
            _max_length(config, tokenizer, self.settings.max_length),
            self.settings.truncation_side,
        )
        self._encoder.check(self.model_path)
        pad = tokenizer.pad_token_id
        self._pad_id: int = pad if pad is not None else (config.pad_token_id or 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._model
        gc.collect()
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score every response of every group; a failed one is none, with its reason."""
        encoded = [self._encoder.encode(group) for group in groups]
        flat = [item for items in encoded for item in items if isinstance(item, Encoded)]
        values = iter(self._forward([item.tokens for item in flat]))
        return [
            _scores(group, items, [next(values) if isinstance(i, Encoded) else None for i in items])
            for group, items in zip(groups, encoded, strict=True)
        ]

    def _forward(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Return one raw score per sequence of token ids."""
        rewards = [math.nan] * len(sequences)
        lengths = [len(sequence) for sequence in sequences]
        with self._torch.inference_mode():
            for batch in length_sorted_batches(lengths, self.settings.batch_tokens):
                logits = self._pooled([sequences[index] for index in batch])
                for index, value in zip(batch, logits.float().tolist(), strict=True):
                    rewards[index] = value
        return rewards

    def _pooled(self, batch_BT: Sequence[Sequence[int]]) -> Any:
        """Return the head's value at the last real token of each sequence, `[B]`."""
        torch = self._torch
        lengths_B = torch.tensor([len(tokens) for tokens in batch_BT], device=self._device)
        width = int(lengths_B.max())
        ids_BT = torch.tensor(
            [[*tokens, *[self._pad_id] * (width - len(tokens))] for tokens in batch_BT],
            device=self._device,
        )
        mask_BT = (torch.arange(width, device=self._device) < lengths_B[:, None]).long()
        if not hasattr(self._model, "score"):  # an encoder pools by itself
            return self._model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0]
        hidden_BTD = self._model.base_model(
            input_ids=ids_BT, attention_mask=mask_BT, use_cache=False
        ).last_hidden_state
        rows_B = torch.arange(len(batch_BT), device=self._device)
        return self._model.score(hidden_BTD[rows_B, lengths_B - 1])[:, 0]


def _scores(
    group: CandidateGroup, items: list[Encoded | Drop], values: list[float | None]
) -> Scores:
    reasons = {index: item for index, item in enumerate(items) if isinstance(item, Drop)}
    for index, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            reasons[index] = Drop("non_finite_score", f"the reward model gave {value}")
            values[index] = None
    return Scores(
        group.prompt_id,
        tuple(values),
        tuple(len(item.tokens) if isinstance(item, Encoded) else 0 for item in items),
        tuple(isinstance(item, Encoded) and item.truncated for item in items),
        reasons,
    )


def _checked_config(path: str) -> Any:
    """Load the configuration and refuse what is not a Bradley-Terry reward model."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            "cannot read the reward model's configuration",
            where=path,
            why=str(error).splitlines()[0],
            next_step="models whose code lives only in their repository are not supported",
        ) from error
    names = config.architectures or ["none"]
    if not names[0].endswith("ForSequenceClassification") or config.is_encoder_decoder:
        raise ModelError(
            f"{names[0]} is not a reward model that bon can load",
            where=path,
            why="known: …ForSequenceClassification with one label, decoder or encoder",
            next_step="give -r a reward model, not the generator",
        )
    if config.num_labels != 1:
        raise ModelError(
            f"the reward model has {config.num_labels} labels",
            where=path,
            why="a Bradley-Terry reward model gives one number; of several, none is the reward",
            next_step="give -r a model with num_labels=1",
        )
    return config


def _load(path: str, config: Any, dtype: str) -> Any:
    """Load the weights and refuse a checkpoint that leaves any of them random."""
    from transformers import AutoModelForSequenceClassification

    attention = "eager" if config.model_type in _EAGER_ONLY else "sdpa"
    model_class = AutoModelForSequenceClassification
    try:
        model, info = model_class.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation=attention,
            output_loading_info=True,
        )  # fmt: skip
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise ModelError(
            "cannot load the reward model", where=path, why=str(error).splitlines()[0]
        ) from error
    wrong = sorted(info["missing_keys"]) + sorted(str(k[0]) for k in info["mismatched_keys"])
    if wrong:
        raise ModelError(
            "the reward model's checkpoint leaves weights random",
            where=path,
            why=f"missing or of another shape: {', '.join(wrong[:5])}",
            next_step="give the folder that training saved, with its head (a base model has none)",
        )
    return model


def _max_length(config: Any, tokenizer: Any, wanted: int | None) -> int:
    """Return the longest conversation: the model's limit, or less where asked."""
    positions = getattr(config, "max_position_embeddings", None) or _UNLIMITED
    if "roberta" in config.model_type:  # its positions start behind the pad id
        positions -= (config.pad_token_id or 0) + 1
    limit = min(int(positions), int(min(tokenizer.model_max_length, _UNLIMITED)))
    return min(limit, wanted) if wanted else limit
