"""`-m server:URL[,URL…]`: a generator behind servers that speak OpenAI's API."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bon.config import GenerateSettings
from bon.config.base import Settings
from bon.config.scorer_spec import parse_options, parse_scorer_spec
from bon.errors import SettingsError
from bon.generators.server import PREFIX, ServerGenerator
from bon.generators.server.bodies import Asker
from bon.pipeline.plans import GenerationPlan
from bon.serving.addresses import is_openai, parse_urls
from bon.serving.contact import first_contact
from bon.serving.models import ServedModel, find_served_model
from bon.serving.sampling import TRUNCATES

__all__ = ["ServerOptions", "server_plan"]

_OF_ENGINES_HERE = (
    *("model_revision", "chat_template", "lora", "generator_engine", "dtype", "max_model_len"),
    *("tensor_parallel_size", "gpu_memory_utilization", "kv_cache_gib", "enforce_eager"),
    *("engine_args", "allow_pickle"),
)
"""Settings that only an engine in this process reads."""


class ServerOptions(Settings):
    """What stands behind `server:URL?`."""

    model: str | None = None
    """Which of the server's models; by default its only one."""
    logprobs: bool = True
    """Whether log-probabilities are asked for; some servers refuse that."""
    concurrency: int = Field(default=32, ge=1, le=10_000)
    """Requests that are with a server at once, for each URL."""
    timeout_s: float = Field(default=600.0, gt=0.0)
    """Seconds after which an answer is given up and asked for again."""
    patience_s: float = Field(default=300.0, ge=0.0)
    """Seconds without any answer from the servers after which the run ends."""


def server_plan(settings: GenerateSettings) -> GenerationPlan:
    """Plan the sampling behind servers; they are asked for their model, and sample nothing yet.

    Raises:
        SettingsError: settings that a server cannot read, or a URL or an option that cannot be.
        ServerError: none is reached, or it has no such model.
    """
    # first of all: messages show what was said, and a URL may hold a password
    urls = parse_urls(settings.model.removeprefix(PREFIX).partition("?")[0])
    _refuse_idle(settings)
    said = parse_scorer_spec(settings.model, kinds=(PREFIX,), flag="-m")
    options = parse_options(ServerOptions, said.options, f"-m {said.spec}")
    model = _find(urls, options)
    _refuse_truncation(settings, model)
    generator = ServerGenerator(
        Asker(settings, model, options.logprobs, any(map(is_openai, urls))),
        urls,
        options.concurrency,
        options.timeout_s,
        options.patience_s,
    )
    fingerprint = settings.fingerprint() | {
        "model": f"{PREFIX}{model.name}",
        "engine": "server",
        "server": model.owner,
        "server_logprobs": options.logprobs,
    }
    kind = model.owner or "an unnamed kind of server"
    why = f"{model.id} ({kind}) at {', '.join(urls)}, {options.concurrency} requests at once"
    return GenerationPlan(
        generator, fingerprint, settings.num_candidates, settings.seed, "server", why
    )


def _find(urls: tuple[str, ...], options: ServerOptions) -> ServedModel:
    with first_contact(
        urls,
        timeout_s=options.timeout_s,
        patience_s=options.patience_s,
        otherwise="the model server is not reached",
    ) as client:
        return find_served_model(client, options.model)


def _refuse_idle(settings: GenerateSettings) -> None:
    for name in _OF_ENGINES_HERE:
        if getattr(settings, name) != _default(name):
            raise SettingsError(
                f"--{name.replace('_', '-')} does nothing here",
                why="the server loads the model and templates the prompts",
                next_step="leave it out, and start the server with it",
            )


def _default(name: str) -> Any:
    return GenerateSettings.model_fields[name].get_default(call_default_factory=True)


def _refuse_truncation(settings: GenerateSettings, model: ServedModel) -> None:
    for name in ("top_k", "min_p"):
        if getattr(settings, name) and model.owner not in TRUNCATES:
            raise SettingsError(
                f"--{name.replace('_', '-')} may do nothing here",
                why="of the servers that bon knows, only vLLM, SGLang and llama.cpp take it",
                next_step="leave it out",
            )
