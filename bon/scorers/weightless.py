"""What scorers would make of conversations, found without their weights: for `bon validate`."""

from __future__ import annotations

from functools import partial

from bon.chat import ChatTemplate
from bon.protocols import Scorer
from bon.scorers.adapters import tokenizer_folder
from bon.scorers.conversations import Encoder, make_encoder
from bon.scorers.families import internlm2
from bon.scorers.families.loading import without_weights
from bon.scorers.judge import JudgeScorer
from bon.scorers.judge.vllm import VllmJudge
from bon.scorers.judge.words import find_word_tokens
from bon.scorers.logprob import LogprobScorer
from bon.scorers.logprob.model import OWNER, load_reference
from bon.scorers.reward_model import RewardModelScorer, find_device
from bon.scorers.server import ServerScorer
from bon.scorers.server.reading import served_encoder
from bon.scorers.vllm import VllmRewardScorer

__all__ = ["check_weightless"]


def check_weightless(scorer: Scorer) -> Encoder | None:
    """Check what a scorer would load, but its weights; return what encodes its conversations.

    None where it templates nothing by itself, as rules and judges do.

    Raises:
        ModelError: what entering the scorer would raise, as far as no weight has to be read.
    """
    if isinstance(scorer, RewardModelScorer):
        find_device(scorer.settings.device)
        return _reward_encoder(scorer)
    if isinstance(scorer, VllmRewardScorer):
        return _reward_encoder(scorer)
    if isinstance(scorer, ServerScorer):
        return served_encoder(
            scorer.tokenizer_path,
            scorer.family,
            scorer.config,
            scorer.settings,
            scorer.template,
            scorer.server.max_length,
        )
    if isinstance(scorer, LogprobScorer):
        find_device(scorer.settings.device)
        with without_weights():
            model = load_reference(scorer.model_path, scorer.settings)
        chat = ChatTemplate(model.tokenizer, scorer.template, OWNER, "logprob:MODEL?template=")
        chat.check(scorer.model_path)
    if isinstance(scorer, JudgeScorer) and isinstance(scorer.model, VllmJudge):
        chat, words = scorer.model._load_chat(), scorer.model.asking.words
        if words is not None:
            find_word_tokens(chat.tokenizer, words, scorer.model.model_path)
    return None


def _reward_encoder(scorer: RewardModelScorer | VllmRewardScorer) -> Encoder:
    family, settings, path = scorer.family, scorer.settings, scorer.model_path
    config, template, load = scorer.config, scorer.template, scorer.family.load
    if isinstance(load, partial):  # an adapter: merging it would read every weight
        path = tokenizer_folder(path, load.keywords["adapter_path"])
    if isinstance(load, partial) or family is internlm2.FAMILY:  # whose weights are renamed
        return served_encoder(path, family, config, settings, template, None)
    with without_weights():
        model = load(path, settings)
    return make_encoder(model, family, config, settings, template, path)
