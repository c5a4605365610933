"""Bradley-Terry reward models: `…ForSequenceClassification` with one label, on transformers."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bon.chat import ChatTemplate, check_vocabulary
from bon.config import ScorerSettings
from bon.errors import ModelError, first_line
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.batching import length_sorted_batches
from bon.scorers.encoding import ConversationEncoder, Encoded

__all__ = ["SequenceClassificationScorer"]

_EAGER_ONLY = frozenset({"gemma2"})  # soft-capped attention: sdpa leaves the cap out
_ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "eurobert"}
    | {"megatron-bert", "modernbert", "nomic_bert", "rembert", "roberta", "roformer"}
    | {"xlm-roberta"}
)
"""Measured to score a padded row as they score it alone (convbert, fnet and others do not)."""
_POSITIONS_BEHIND_PAD = frozenset({"camembert", "roberta", "xlm-roberta"})
_HARMLESS = re.compile(r"lm_head|pooler|rotary_emb|position_ids|masked_bias|attn\.bias|^cls\.")
"""Weights that a checkpoint may have and a scorer need not use."""
_UNLIMITED = 1 << 30


@dataclass
class SequenceClassificationScorer:
    """`Scorer` whose scores are those of one conversation at a time.

    Batches are padded on the right, each row with its own last token, and the pooled position is
    computed here: no pad token is needed, and whatever the model's own is moves nothing.
    """

    settings: ScorerSettings
    model_path: str
    """Folder of the model."""
    template: str | None = None
    """Jinja source in place of the model's own template."""

    def __enter__(self) -> SequenceClassificationScorer:
        import torch

        self._torch: Any = torch
        wanted = self.settings.device
        available = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = available if wanted == "auto" else wanted
        config = _checked_config(self.model_path)
        self._model = _load(self.model_path, config, self.settings.dtype).to(self._device).eval()
        tokenizer = _tokenizer(self.model_path)
        chat = ChatTemplate(tokenizer, self.template, "reward model", "--reward-template")
        chat.check(self.model_path)
        self._encoder = ConversationEncoder(
            chat,
            _max_length(config, tokenizer, self.settings.max_length),
            self.settings.truncation_side,
            self._model.get_input_embeddings().weight.shape[0],
        )
        return self

    def __exit__(self, *_: object) -> None:
        del self._model
        gc.collect()
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score every response of every group; a failed one is none, with its reason.

        Equal conversations are computed once, so equal responses get equal scores to the bit.
        """
        encoded = [self._encoder.encode(group) for group in groups]
        flat = [item for items in encoded for item in items]
        distinct = list(dict.fromkeys(item.tokens for item in flat if isinstance(item, Encoded)))
        values = dict(zip(distinct, self._forward(distinct), strict=True))
        return [
            _scores(
                group,
                items,
                [values[item.tokens] if isinstance(item, Encoded) else None for item in items],
            )
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
            [[*tokens, *[tokens[-1]] * (width - len(tokens))] for tokens in batch_BT],
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
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
    )

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # its checks raise kinds of their own
        raise ModelError(
            "cannot read the reward model's configuration",
            where=path,
            why=first_line(error),
            next_step="give a folder saved with save_pretrained; models whose code lives only in "
            "their repository are not supported",
        ) from error
    name = (config.architectures or ["none"])[0]
    if name != CLASSES.get(config.model_type, "") or config.is_encoder_decoder:
        raise ModelError(
            f"{name} is not a reward model that bon can load",
            where=path,
            why="known: …ForSequenceClassification of transformers with one label, decoder or "
            f"encoder (its type is {config.model_type})",
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
    """Load the weights; refuse a checkpoint that does not fit, and an encoder not measured."""
    from transformers import AutoModelForSequenceClassification

    attention = "eager" if config.model_type in _EAGER_ONLY else None  # none: its own default
    model_class = AutoModelForSequenceClassification
    try:
        model, info = model_class.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation=attention,
            output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False,
        )  # fmt: skip
    except Exception as error:  # damaged files raise kinds of their own (SafetensorError)
        raise ModelError(
            "cannot load the reward model",
            where=path,
            why=first_line(error),
            next_step="copy or download the whole folder again; see the worker's log",
        ) from error
    _refuse_misfits(path, info)
    if not hasattr(model, "score") and config.model_type not in _ENCODERS:
        raise ModelError(
            f"{type(model).__name__} is not a reward model that bon can load",
            where=path,
            why="padding may change its scores; known encoders: " + ", ".join(sorted(_ENCODERS)),
            next_step="give -r a decoder or one of these",
        )
    return model


def _refuse_misfits(path: str, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that leaves weights random, or has some that would be left out."""
    wrong = sorted(info["missing_keys"]) + sorted(str(k[0]) for k in info["mismatched_keys"])
    if wrong:
        raise ModelError(
            "the reward model's checkpoint leaves weights random",
            where=path,
            why=f"missing or of another shape: {', '.join(wrong[:5])}",
            next_step="give the folder that training saved, with its head (a base model has none)",
        )
    unused = sorted(key for key in info["unexpected_keys"] if not _HARMLESS.search(key))
    if unused:
        raise ModelError(
            "the reward model's checkpoint has weights that its class does not use",
            where=path,
            why=f"left out, the scores would be another model's: {', '.join(unused[:5])}",
            next_step="its architecture is another than config.json says; correct it or give "
            "another model",
        )


def _tokenizer(path: str) -> Any:
    """Load the tokenizer; where its files are missing, transformers makes an empty one up."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(
            "cannot load the reward model's tokenizer",
            where=path,
            why=first_line(error),
            next_step="give a folder that holds the model's tokenizer as well as its weights",
        ) from error
    check_vocabulary(tokenizer, "reward model", path)
    return tokenizer


def _max_length(config: Any, tokenizer: Any, wanted: int | None) -> int:
    """Return the longest conversation: the model's limit, or less where asked."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or _UNLIMITED
    if config.model_type in _POSITIONS_BEHIND_PAD:
        positions -= (config.pad_token_id or 0) + 1
    limit = min(int(positions), int(min(tokenizer.model_max_length, _UNLIMITED)))
    return min(limit, wanted) if wanted else limit
