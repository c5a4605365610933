"""What a generator would make of prompts, found without its weights: for `bon validate`."""

from __future__ import annotations

from typing import Any

from bon.chat import ChatTemplate
from bon.config import INSTALL_ADVICE
from bon.errors import ModelError, first_line
from bon.generators.loading import context_tokens, load_model
from bon.generators.prompting import PromptEncoder
from bon.generators.transformers import TransformersGenerator
from bon.generators.vllm import VllmGenerator
from bon.vllm_engine import import_llm

__all__ = ["prompt_encoder"]


def prompt_encoder(generator: TransformersGenerator | VllmGenerator) -> PromptEncoder:
    """Return what encodes the prompts of a run, with the limits that its engine would have.

    Raises:
        ModelError: what entering the generator would raise, as far as no weight has to be read.
    """
    if isinstance(generator, VllmGenerator):
        tokenizer, context, vocab_size = _of_vllm(generator)
    else:
        tokenizer, context, vocab_size = _of_transformers(generator)
    settings = generator.settings
    chat = ChatTemplate(tokenizer, generator.chat_template, "generator", "--chat-template")
    encoder = PromptEncoder(settings, chat, context, vocab_size)
    encoder.check(generator.model_path)
    return encoder


def _of_transformers(generator: TransformersGenerator) -> tuple[Any, int, int]:
    """Return tokenizer, context and vocabulary; the model is made on no device.

    An adapter is not put into it: that would need the weights.
    """
    settings, path = generator.settings, generator.model_path
    model, tokenizer = load_model(settings, path, None, "meta", device_map="meta")
    context = context_tokens(settings, model.config, tokenizer, path)
    return tokenizer, context, int(model.get_input_embeddings().num_embeddings)


def _of_vllm(generator: VllmGenerator) -> tuple[Any, int, int]:
    """Return tokenizer, context and vocabulary as vLLM takes them; no engine is started."""
    import_llm(INSTALL_ADVICE)
    from vllm.engine.arg_utils import EngineArgs
    from vllm.tokenizers import cached_tokenizer_from_config

    try:
        config = EngineArgs(**generator._engine_arguments()).create_model_config()
        tokenizer = cached_tokenizer_from_config(config)
    except ModelError:
        raise
    except Exception as error:  # what is wrong with the files raises kinds of its own
        raise ModelError(
            "vLLM cannot load the generator",
            where=generator.model_path,
            why=first_line(error),
            next_step="give a folder saved with save_pretrained, and --max-model-len that fits it",
        ) from error
    return tokenizer, int(config.max_model_len), int(config.get_vocab_size())
