"""What the commands that write sets share: the pool to read, the dataset card, the upload."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bon import __version__
from bon.chat import ChatTemplate, check_vocabulary
from bon.cli.closing import making_steps
from bon.cli.console import note
from bon.cli.flags import Invocation
from bon.cli.places import SourceKind
from bon.cli.stages import Made, given_pool, make_pool
from bon.config import (
    ExportSettings,
    GenerateSettings,
    InputSettings,
    PairSettings,
    ResponseSettings,
    ScoreSettings,
)
from bon.errors import InputError, ModelNotFoundError, SettingsError, first_line
from bon.exports.card import CardFacts
from bon.exports.formats import Format
from bon.exports.hub import check_push, push_folder
from bon.exports.target import target_of
from bon.pipeline.export import Written
from bon.pipeline.pairing import Tokenize
from bon.pipeline.ranked import scorer_names
from bon.places import Place, place
from bon.pool.pool import Pool
from bon.records import Message
from bon.redaction import redacted_command
from bon.sources.responses import has_answers

__all__ = [
    "card_facts",
    "check_upload",
    "note_unused_answers",
    "output_paths",
    "pair_tokenizer",
    "publish",
    "ready_pool",
    "run_seed",
    "step_texts",
]

_SAMPLING = ("num_candidates", "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed")


def ready_pool(
    call: Invocation, kind: SourceKind, root: Place, *, group: bool, with_scores: bool
) -> Made:
    """Open, import or make the pool that a source stands for."""
    if kind == "pool":
        return Made(Pool.open(root))
    if kind == "prompts":
        return make_pool(call, root, with_scores=with_scores)
    return given_pool(call, root, group=group, with_scores=with_scores)


def note_unused_answers(call: Invocation, kind: SourceKind) -> None:
    """Say that rows taken for prompts end with an answer, unless they were said to be prompts."""
    responses = call.settings(ResponseSettings)
    if kind != "prompts" or responses.source_kind != "auto":
        return
    with suppress(InputError):  # reading the prompts says what is wrong with the input
        if has_answers(call.source, call.settings(InputSettings), responses):
            text = "the rows end with an answer, which is not used: responses are sampled anew; "
            note(f"{text}--source-kind responses takes it", quiet=call.quiet)


def run_seed(call: Invocation, made: Made) -> int:
    """Return the seed of draws: --seed where given, else the run seed that the pool has."""
    generation = made.pool.manifest.generation
    if call.given("seed") or generation is None:
        return call.settings(GenerateSettings).seed
    return int(generation.get("seed", 0))


def step_texts(call: Invocation, kind: SourceKind, root: Place, *, with_scores: bool) -> list[str]:
    """Say what `ready_pool` would do."""
    if kind == "pool":
        return []
    steps = making_steps(call, root)
    if kind != "prompts":
        steps = [f"read {kind} from {call.source} into {root}"]
    specs = call.settings(ScoreSettings).specs if with_scores else ()
    return [*steps, *(f"score with {spec}" for spec in specs)]


def check_upload(export: ExportSettings, output: Place) -> None:
    """Find before any work what would stop the upload.

    Raises:
        SettingsError: no folder to upload, no token, or no huggingface_hub.
    """
    if export.push_to_hub is None:
        return
    if not isinstance(output, Path):
        raise SettingsError(
            "--push-to-hub needs an output folder on this machine",
            where=str(output),
            next_step="give -o a local folder, or leave --push-to-hub out",
        )
    if output.suffix and not output.is_dir():
        raise SettingsError(
            "--push-to-hub needs an output folder",
            where=str(output),
            why="the Hub takes a folder with shards and a dataset card",
            next_step=f"give -o {output.with_suffix('')}/",
        )
    check_push(export.push_to_hub)


def output_paths(output: Place, form: Format, export: ExportSettings) -> list[Place]:
    """Return every place that a result takes: its folder, or a file for each split."""
    return target_of(output, form).places(export.splits)


def publish(
    call: Invocation, export: ExportSettings, output: Place, written: Written
) -> dict[str, Any]:
    """Upload what was written where that is wanted, and say where everything is."""
    facts: dict[str, Any] = {
        "output": str(output),
        "files": [str(path) for path in written.files],
        "written_rows": written.rows,
        "merged_rows": written.merged,
    }
    if export.push_to_hub is not None and isinstance(output, Path):
        facts["hub"] = push_folder(output, export.push_to_hub, private=not export.public)
        note(f"uploaded to {facts['hub']}", quiet=call.quiet)
    return facts


def card_facts(
    call: Invocation, made: Made, report: Mapping[str, Any], method: dict[str, Any]
) -> CardFacts:
    """Gather what the dataset card says of how a set was made."""
    manifest = made.pool.manifest
    generation = manifest.generation or {}
    models = {"generator": _with_revision(generation, "model")} if "model" in generation else {}
    return CardFacts(
        name=(call.output or place(call.source)).resolve().name,
        command=redacted_command(["bon", *sys.argv[1:]]),
        version=__version__,
        source=str(manifest.input.get("source", call.source)),
        models=models,
        sampling={name: generation[name] for name in _SAMPLING if name in generation},
        scorers={
            name: _with_revision(manifest.scorers.get(name, {}), "spec")
            for name in scorer_names(made.pool)
        },
        method=method,
        input_rows=report["input_rows"],
        drops=report["drops"],
        candidate_drops=report["candidate_drops"],
    )


def _with_revision(said: Mapping[str, Any], key: str) -> str:
    revision = said.get("model_revision") or said.get("revision")
    digest = said.get("model_digest") or said.get("digest")
    parts = [str(said.get(key, "")), f"revision {revision}" if revision else ""]
    parts += [f"digest {str(digest)[:16]}" if digest else ""]
    return ", ".join(part for part in parts if part)


def pair_tokenizer(settings: PairSettings) -> Tokenize | None:
    """Load the tokenizer of the model that will be trained, where --max-length needs it.

    Raises:
        ModelNotFoundError: there is no such tokenizer.
        ModelError: it knows no words, or can template no conversation.
    """
    if settings.max_length is None or settings.tokenizer is None:
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer, trust_remote_code=False)
    except Exception as error:  # whatever transformers, its parsers and the network raise
        raise ModelNotFoundError(
            f"cannot load the tokenizer {settings.tokenizer!r}",
            where="--tokenizer",
            why=first_line(error),
            next_step="give the model that will be trained: a hub id, or a folder with its "
            "tokenizer's files",
        ) from error
    check_vocabulary(tokenizer, "trained model", settings.tokenizer)
    template = ChatTemplate(tokenizer, None, "trained model", "--tokenizer")
    template.check(settings.tokenizer)
    return _PairTokens(tokenizer, template)


@dataclass(frozen=True, slots=True)
class _PairTokens:
    """Tokens of conversations; can be pickled."""

    tokenizer: Any
    template: ChatTemplate

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        return [self._tokens(one) for one in conversations]

    def _tokens(self, conversation: Sequence[Message]) -> list[int]:
        try:
            return self.template.tokens(conversation)
        except Exception:  # whatever a template raises, such as for roles that it does not know
            # No reason to lose the run: pairs can be told apart by their texts' tokens as well.
            text = "\n".join(message["content"] for message in conversation)
            return list(self.tokenizer.encode(text))
