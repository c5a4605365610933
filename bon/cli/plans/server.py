"""`-r [NAME=]server:URL[,URL…]`: a reward model behind vLLM's or SGLang's server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from bon.cli.plans.files import read_text, text_digest
from bon.cli.plans.kinds import ScorerKind
from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.config.scorer_spec import parse_options
from bon.errors import ModelNotFoundError
from bon.pipeline.models import ResolvedModel, local_folder, read_config, resolve_tokenizer
from bon.pipeline.plans import ScoringPlan
from bon.scorers.encoding import ENCODER_VERSION
from bon.scorers.families import Family
from bon.scorers.families.steps import separator_of
from bon.scorers.server import PREFIX, ServerScorer
from bon.scorers.server.discovery import FoundServer, ServerKind, find_servers
from bon.scorers.server.reading import family_of
from bon.serving.addresses import find_api_key, parse_urls
from bon.serving.contact import first_contact
from bon.shown import shown

__all__ = ["SERVER"]

_READS = dict.fromkeys(
    (
        *("reward_max_length", "reward_truncation_side", "reward_template"),
        *("step_separator", "step_aggregate"),
        *("server_concurrency", "server_timeout_s", "server_patience_s"),
    ),
    "server:http://HOST:PORT",
)


class ServerOptions(Settings):
    """What stands behind `server:URL?`."""

    panel: ClassVar[str] = "Server"

    model: str | None = None
    """Which of the server's models; by default its only one."""
    tokenizer: str | None = None
    """Hub id or folder on this machine of the model's tokenizer and config.json; by default the
    name that the server gives."""
    revision: str | None = None
    """Branch, tag or commit of the tokenizer on the hub."""
    kind: ServerKind | None = None
    """vllm or sglang; by default the server is asked."""


def check(settings: ScorerSettings) -> None:
    """Raise where a URL, an option or the key in the environment cannot be; asks no server."""
    find_api_key(parse_urls(settings.spec.removeprefix(PREFIX)))
    _options(settings)


def plan(settings: ScorerSettings) -> ScoringPlan:
    """Plan a server's reward model; the server is asked what it is, and scores nothing yet.

    Raises:
        ServerError: it is not reached, or gives no rewards.
        ModelError: its tokenizer is not on this machine, nor on the hub.
        SettingsError: the template's file cannot be read.
    """
    options = _options(settings)
    urls = parse_urls(settings.spec.removeprefix(PREFIX))
    found = _find(settings, options, urls)
    tokenizer = _tokenizer(options, found)
    has_config = (Path(tokenizer.path) / "config.json").is_file()
    config = read_config(tokenizer) if has_config else {}
    family = family_of(config, tokenizer.path)
    template = read_text(settings.template, "--reward-template")
    scorer = ServerScorer(settings, urls, found, tokenizer.path, family, config, template)
    is_here = _is_its_folder(found, tokenizer)
    fingerprint = {
        "kind": "server",
        "name": settings.name,
        "spec": f"{PREFIX}{tokenizer.name if is_here else found.name}",
        "server": found.kind,
        "digest": tokenizer.digest if is_here else None,
        "tokenizer": tokenizer.name,
        "tokenizer_digest": tokenizer.digest,
        "template": text_digest(template),
        **_reading(settings, family, found),
    }
    at_once = settings.server_concurrency
    why = f"{found.root} at {', '.join(urls)}, {at_once} requests at once for each"
    engine = f"a {'vLLM' if found.kind == 'vllm' else 'SGLang'} server"
    return ScoringPlan(settings.name, scorer, fingerprint, None, engine, why)


def _options(settings: ScorerSettings) -> ServerOptions:
    return parse_options(ServerOptions, settings.options, f"-r {settings.spec}")


def _find(settings: ScorerSettings, options: ServerOptions, urls: tuple[str, ...]) -> FoundServer:
    with first_contact(
        urls,
        timeout_s=settings.server_timeout_s,
        patience_s=settings.server_patience_s,
        otherwise="the model server does not answer",
    ) as client:
        found, lost = find_servers(client, options.model, options.kind)
    for url in lost:
        print(shown(f"{url} is not reached: the others serve until it is"), file=sys.stderr)
    return found


def _tokenizer(options: ServerOptions, found: FoundServer) -> ResolvedModel:
    try:
        return resolve_tokenizer(options.tokenizer or found.tokenizer, options.revision)
    except ModelNotFoundError as error:
        if options.tokenizer:
            raise
        raise ModelNotFoundError(
            "the tokenizer of the server's model is not on this machine",
            where=found.tokenizer,
            why=error.why,
            next_step="conversations are templated here: name a hub id, or a folder with the "
            "tokenizer's files and config.json: ?tokenizer=…",
        ) from error


def _is_its_folder(found: FoundServer, tokenizer: ResolvedModel) -> bool:
    """Tell whether the model's own folder is here, so that its weights are known as well."""
    folder = local_folder(found.root)
    return folder is not None and str(folder) == tokenizer.path


def _reading(settings: ScorerSettings, family: Family, found: FoundServer) -> dict[str, Any]:
    """Return how conversations are read and cut."""
    limits = [one for one in (settings.max_length, found.max_length) if one]
    reading: dict[str, Any] = {
        "max_length": min(limits, default=None),
        "truncation_side": settings.truncation_side,
        "family": family.name,
        "family_version": family.version,
        "encoder_version": ENCODER_VERSION,
    }
    if family.step_separator is not None:
        reading["step_separator"] = separator_of(settings, family.step_separator)
        reading["step_aggregate"] = settings.step_aggregate
    return reading


SERVER = ScorerKind(
    prefix=PREFIX,
    noun="a model server",
    reads=_READS,
    reads_of=lambda settings: _READS,
    gives_verdicts=lambda settings: False,
    check=check,
    plan=plan,
)
