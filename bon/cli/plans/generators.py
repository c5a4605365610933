"""`-m MODEL`: what samples the candidates."""

from __future__ import annotations

from importlib.util import find_spec

from bon.cli.plans.files import read_text, text_digest
from bon.cli.plans.language_models import refuse_reward_models
from bon.cli.plans.server_generator import server_plan
from bon.config import GenerateSettings
from bon.errors import SettingsError
from bon.generators.engine_choice import choose_engine
from bon.generators.server import PREFIX
from bon.generators.transformers import TransformersGenerator
from bon.generators.vllm import VllmGenerator
from bon.pipeline.models import read_config, resolve_adapter, resolve_model
from bon.pipeline.plans import GenerationPlan
from bon.pipeline.trust import Pickles

__all__ = ["generation_plan"]


def generation_plan(settings: GenerateSettings) -> GenerationPlan:
    """Plan the sampling; a model is found (and downloaded, or asked for) here, not loaded.

    Raises:
        SettingsError, ModelError: the settings contradict each other, or there is no such model.
        ServerError: a server is not reached, or has no such model.
    """
    if settings.raw and (settings.system_prompt or settings.chat_template):
        raise SettingsError(
            "--raw excludes --system-prompt and --chat-template",
            why="raw prompts go to the model as they are",
        )
    is_remote = settings.model.startswith(PREFIX)
    return server_plan(settings) if is_remote else _local_plan(settings)


def _local_plan(settings: GenerateSettings) -> GenerationPlan:
    choice = choose_engine(
        settings,
        has_vllm=find_spec("vllm") is not None,
        has_transformers=find_spec("transformers") is not None,
    )
    pickles = Pickles(settings.allow_pickle, "--allow-pickle")
    model = resolve_model(settings.model, settings.model_revision, pickles)
    refuse_reward_models(read_config(model, owner="generator"), model.path)
    lora = resolve_adapter(settings.lora, pickles) if settings.lora else None
    template = read_text(settings.chat_template, "--chat-template")
    fingerprint = settings.fingerprint() | {
        "model": model.name,
        "model_digest": model.digest,
        "lora": lora and lora.digest,
        "chat_template": text_digest(template),
        "engine": choice.engine,
    }
    kind = VllmGenerator if choice.engine == "vllm" else TransformersGenerator
    generator = kind(settings, model.path, lora.path if lora else None, template)
    return GenerationPlan(
        generator,
        fingerprint,
        settings.num_candidates,
        settings.seed,
        choice.engine,
        choice.why,
    )
