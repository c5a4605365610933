"""Settings of what makes a pool: reading, generating, scoring, and how a run behaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from bon.config.base import Flag, PlaceSetting, Settings, number_as_text
from bon.redaction import holds_secret

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_REWARD",
    "INSTALL_ADVICE",
    "GenerateSettings",
    "InputSettings",
    "RunSettings",
    "ScoreSettings",
    "ScorerSettings",
    "VerifySettings",
]

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
DEFAULT_REWARD = "Skywork/Skywork-Reward-V2-Qwen3-0.6B"
INSTALL_ADVICE = (
    "install an engine: pip install 'bon-cli[vllm]' on a GPU machine, 'bon-cli[cpu]' on Linux "
    "without one, 'bon-cli[transformers]' elsewhere"
)
_COUNT_OR_SHARE = re.compile(r"\d+|\d+(\.\d+)?%", re.ASCII)
_NUMBER_OR_RANGE = re.compile(r"(\d{1,6})(?:\.\.(\d{1,6}))?", re.ASCII)


class InputSettings(Settings):
    """How prompts are read."""

    panel: ClassVar[str] = "Input"
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"limit"})

    layout: str | None = None
    """Name of the layout (prompt, messages, gsm8k, …); by default recognised by its columns."""
    prompt_column: str | None = None
    """Column that holds the prompt: a string or a list of messages."""
    id_column: str | None = None
    """Column that holds each row's id; without one, ids are made from the prompt's content."""
    split: str = "train"
    """Split of a Hub dataset."""
    limit: int | None = Field(default=None, ge=0)
    """Read only the first so many input rows."""


class GenerateSettings(Settings):
    """The model that samples, and how."""

    panel: ClassVar[str] = "Generation"
    runtime_fields: ClassVar[frozenset[str]] = frozenset(
        {
            *("tensor_parallel_size", "gpu_memory_utilization", "kv_cache_gib", "enforce_eager"),
            "generator_engine",  # the one that was chosen is in the fingerprint
            "allow_pickle",
        }
    )

    model: Annotated[str, Flag("-m", "BON_MODEL")] = DEFAULT_MODEL
    """Generator: a hub id, a folder, or server:URL[,URL…] of OpenAI-compatible servers."""
    model_revision: str | None = None
    """Branch, tag or commit of the generator on the hub."""
    num_candidates: Annotated[int, Flag("-n")] = Field(default=8, ge=1, le=100_000)
    """Candidates per prompt (N)."""
    temperature: float = Field(default=1.0, ge=0.0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Sample from the smallest set of tokens with this total probability."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the k likeliest tokens; 0 is all."""
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    """Leave out tokens less likely than this share of the likeliest one."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest response, in tokens."""
    stop: tuple[str, ...] = ()
    """Text at which a response ends (repeatable)."""
    seed: int = 0
    """Run seed; each candidate's own seed comes from it, the prompt's id and its number."""
    system_prompt: str | None = None
    """System message put before every prompt that has none."""
    raw: bool = False
    """Feed the prompt's text to the model as it is, without a chat template."""
    chat_template: Path | None = None
    """File with a Jinja chat template, in place of the model's own."""
    lora: str | None = None
    """LoRA adapter for the generator: a hub id or a folder."""
    allow_pickle: bool = False
    """Read weights of the generator, and of its adapter, that are pickles (.bin, .pt): whoever made
    them could have code run. Else only safetensors are read."""
    generator_engine: Literal["auto", "vllm", "transformers"] = "auto"
    """What runs the generator; auto takes vllm where it is installed, and says which."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the generator; auto is the checkpoint's own."""
    max_model_len: int | None = Field(default=None, ge=2)
    """Longest prompt plus response, in tokens; by default the model's own limit."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one copy of the generator."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0)
    """Share of the GPU's memory that the generator may take."""
    kv_cache_gib: float = Field(default=2.0, gt=0.0)
    """GiB for the KV cache on a machine without a GPU."""
    enforce_eager: bool | None = None
    """Skip compiling the model; by default only without a GPU."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Further vLLM engine argument as KEY=JSON (repeatable), passed through unchanged."""

    @field_validator("engine_args")
    @classmethod
    def _holds_no_secret(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if holds_secret(json.loads(json.dumps({name: value[name]}, default=str))):
                raise ValueError(
                    f"{name} is a secret, and settings are stored: set HF_TOKEN in the environment"
                )
        return value


class ScoreSettings(Settings):
    """The reward models that rank, as the command line says them."""

    panel: ClassVar[str] = "Scoring"

    reward: Annotated[tuple[str, ...], Flag("-r", "BON_REWARD")] = (DEFAULT_REWARD,)
    """Scorer as [NAME=]SPEC (repeatable): the hub id or folder of a reward model; server:URL;
    rule:RULE with RULE one of math, exact, regex, length, repetition, format, json, or
    rule:FILE.py:FUNCTION for your own; judge:MODEL or judge:server:URL. Options stand behind it:
    'rule:length?max=600'. See docs/rewards.md."""
    ref_model: str | None = None
    """Reference model (a hub id or a folder) for --kl-beta: its log-probabilities of the responses
    become the scores `ref`. The same as -r ref=logprob:MODEL."""
    reward_revision: str | None = None
    """Branch, tag or commit of the reward model on the hub."""
    reward_allow_pickle: bool = False
    """Read weights of models that score which are pickles (.bin, .pt): whoever made them could have
    code run. Else only safetensors are read."""
    reward_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the reward model; auto is the checkpoint's own."""
    reward_max_length: int | None = Field(default=None, ge=2)
    """Longest scored conversation, in tokens; by default the reward model's own limit."""
    reward_truncation_side: Literal["left", "right"] = "left"
    """Which end of a longer conversation is cut off: left keeps the response."""
    reward_template: Path | None = None
    """File with a Jinja chat template, in place of the reward model's own."""
    reward_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens computed in one forward pass; by default as many as are fast and fit into memory."""
    reward_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the reward model runs."""
    scorer_engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What runs reward models; auto takes the faster one of those that can, and says which."""
    step_separator: str | None = Field(default=None, min_length=1)
    r"""Text between the steps of a response, for process reward models (\n is a line break); by
    default the family's own: an empty line for Qwen2.5-Math-PRM, a line break for models that TRL
    trained."""
    step_aggregate: Literal["min", "product", "last", "mean"] = "min"
    """How a process reward model's step rewards become one."""
    rule_answer_column: str = "answer"
    """Input column with the right answer, for rules; where there is no answer, ground_truth."""
    rule_timeout_s: float = Field(default=5.0, gt=0.0)
    """Seconds of computing after which rule:math, regex, format and json give up on a candidate,
    which has no score."""
    server_concurrency: int = Field(default=32, ge=1, le=10_000)
    """Requests that are with a model server at once, for each URL."""
    server_timeout_s: float = Field(default=300.0, gt=0.0)
    """Seconds after which a model server's answer is given up and asked for again."""
    server_patience_s: float = Field(default=300.0, ge=0.0)
    """Seconds without any answer from the model servers after which the run ends."""

    @property
    def specs(self) -> tuple[str, ...]:
        """All scorers, as `-r` would say them."""
        reference = () if self.ref_model is None else (f"ref=logprob:{self.ref_model}",)
        return (*self.reward, *reference)


class VerifySettings(Settings):
    """The check of scores."""

    panel: ClassVar[str] = "Scoring"
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"verify"})

    verify: int | None = Field(default=None, ge=0)
    """Score so many random candidates (by --seed) again, one at a time by a plain forward pass, and
    tell the largest difference and whether a ranking would change; 0 is none."""


class ScorerSettings(Settings):
    """One scorer, resolved."""

    runtime_fields: ClassVar[frozenset[str]] = frozenset(
        {"batch_tokens", "device", "engine", "allow_pickle"}
        | {"server_concurrency", "server_timeout_s", "server_patience_s"}
    )
    rule_fields: ClassVar[frozenset[str]] = frozenset({"answer_column", "rule_timeout_s"})
    """Fields that only rules read; a rule's fingerprint is made by `RuleScorer`."""
    step_fields: ClassVar[frozenset[str]] = frozenset({"step_separator", "step_aggregate"})
    """Fields that only process reward models read."""

    name: str
    """Its folder's name in the pool."""
    spec: str
    """What follows `NAME=` on the command line, its options aside."""
    options: dict[str, str] = Field(default_factory=dict)
    """What stands behind the `?` of a rule, server or judge."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    allow_pickle: bool = False
    """Its weights may be pickles."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type; auto is the checkpoint's own."""
    max_length: int | None = None
    """Longest scored conversation, in tokens."""
    truncation_side: Literal["left", "right"] = "left"
    """Which end of a longer conversation is cut off."""
    template: Path | None = None
    """File with a Jinja chat template."""
    batch_tokens: int | None = None
    """Tokens computed in one forward pass; none: found by the scorer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What runs it."""
    step_separator: str | None = None
    """Text between the steps of a response."""
    step_aggregate: Literal["min", "product", "last", "mean"] = "min"
    """How step rewards become one."""
    answer_column: str = "answer"
    """Input column with the right answer."""
    rule_timeout_s: float = 5.0
    """Seconds of computing for one candidate."""
    server_concurrency: int = 32
    """Requests with a model server at once, for each URL."""
    server_timeout_s: float = 300.0
    """Seconds for one answer."""
    server_patience_s: float = 300.0
    """Seconds without any answer after which the run ends."""

    @property
    def said(self) -> str:
        """The spec with its options, as on the command line."""
        options = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.spec}?{options}" if options else self.spec

    def fingerprint(self, *, reads_steps: bool = True) -> dict[str, Any]:
        """Return what decides a reward model's scores; it may be one that reads no steps."""
        idle = self.rule_fields if reads_steps else self.rule_fields | self.step_fields
        return self.model_dump(mode="json", exclude={*self.runtime_fields, *idle, "options"})


class RunSettings(Settings):
    """How a run behaves."""

    panel: ClassVar[str] = "Run"
    engine_fields: ClassVar[frozenset[str]] = frozenset(
        {"engine", "ray_address", "num_workers", "gpus_per_worker", "cpus_per_worker"}
    )
    """Where its models run: with other values a pool goes on as it is."""

    pool: PlaceSetting | None = None
    """Folder of the pool, or s3://BUCKET/NAME (gs://, …); by default beside the output, named after
    the input."""
    part_size: int | None = Field(default=None, ge=1)
    """Input rows in one part: what is committed, and redone after a fault, at once; by default
    128, or what the pool has."""
    max_drops: str | None = None
    """Drops above this count or share (`20`, `1.5%`) end the run with exit code 3."""
    engine: Literal["local", "ray"] = "local"
    """Where the models run: on this machine, or on a Ray cluster (pip install 'bon-cli[ray]')."""
    ray_address: str | None = None
    """Ray cluster as HOST:PORT, or auto for the one that this machine is a node of; by default Ray
    is started on this machine alone."""
    num_workers: str | None = None
    """Workers that share the parts, each with a copy of the model and a share of the machine; with
    --engine ray also a range such as 2..8, within which Ray starts and ends them; by default 1. So
    many processes also read and curate a large pool."""
    gpus_per_worker: int | None = Field(default=None, ge=0)
    """GPUs of each worker; by default 1 where there are any, or --tensor-parallel-size."""
    cpus_per_worker: int | None = Field(default=None, ge=1)
    """Cores of each worker, and threads of its model; by default an even share of this machine, or
    on a Ray cluster 1."""
    repair: bool = False
    """Check every file of the pool first, move damaged ones to its .bon/damaged, and make exactly
    these parts again."""
    stall_timeout: float = Field(default=600.0, gt=0.0)
    """Seconds without any sign of life after which a model's process is taken for hung; it is ended
    and started again. While a user's own rule runs they do not count."""
    load_timeout: float = Field(default=3600.0, gt=0.0)
    """Seconds that a model may take to load."""
    placement: Literal["auto", "stream", "in-turn"] = "auto"
    """When responses are scored: `stream`, each part as soon as it is sampled, by workers beside
    those that sample; `in-turn`, once all are sampled, so each stage has the whole machine; `auto`:
    in turn, but on a Ray cluster with room for all of them at once, `stream`."""

    @property
    def worker_range(self) -> tuple[int, int]:
        """Fewest and most workers."""
        least, _, most = (self.num_workers or "1").partition("..")
        return int(least), int(most or least)

    @field_validator("num_workers", mode="before")
    @classmethod
    def _is_number_or_range(cls, value: Any) -> Any:
        value = number_as_text(value)
        if value is None:
            return None
        found = _NUMBER_OR_RANGE.fullmatch(value) if isinstance(value, str) else None
        if found is None or not 1 <= int(found[1]) <= int(found[2] or found[1]):
            raise ValueError("give a number such as 4, or a range such as 2..8")
        return value

    @field_validator("max_drops", mode="before")
    @classmethod
    def _is_count_or_share(cls, value: Any) -> Any:
        value = number_as_text(value)
        if value is not None and not (isinstance(value, str) and _COUNT_OR_SHARE.fullmatch(value)):
            raise ValueError("give a count such as 20, or a share such as 1.5%")
        return value
