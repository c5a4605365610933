"""Candidates from vLLM, in this process: one engine, kept full, one seed per candidate."""

from __future__ import annotations

import copy
import gc
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bon.config import GenerateSettings
from bon.errors import ModelError
from bon.records import Candidate, Drop, GenerationRequest, GenerationResult

__all__ = ["VllmGenerator"]

_GIB = 1 << 30
_CPU_BLOCK_TOKENS = 32  # the CPU default of 128 never caches a shorter shared prefix


@dataclass
class VllmGenerator:
    """`Generator` on vLLM.

    Candidate i of a prompt is sampled with `request.seed + i`, so it depends on nothing but its
    prompt, the settings and that seed: not on the batch, its neighbours or N.
    """

    settings: GenerateSettings
    model_path: str
    """Folder of the model."""
    lora_path: str | None = None
    chat_template: str | None = None
    """Jinja source in place of the model's own template."""

    def __enter__(self) -> VllmGenerator:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the worker process is ours
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM

        try:
            self._llm = LLM(**self._engine_arguments())
        except (ValueError, RuntimeError, OSError, TypeError, KeyError, ImportError) as error:
            raise ModelError(
                "vLLM cannot load the generator",
                where=self.model_path,
                why=_first_line(error),
                next_step="see the worker's log; where memory or the context is named, try "
                "--max-model-len, --kv-cache-gib or --gpu-memory-utilization",
            ) from error
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._check_template()
        config = self._llm.llm_engine.vllm_config
        self._context_tokens: int = config.model_config.max_model_len
        self._capacity = 2 * int(config.scheduler_config.max_num_seqs)
        self._lora = self._lora_request()
        self._sampling_parameters = self._common_sampling()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import torch

        del self._llm
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """Sample every request; holds at most two engine batches of unfinished candidates."""
        engine = self._llm.llm_engine
        waiting = iter(requests)
        in_flight: dict[str, GenerationRequest] = {}
        number, more = 0, True
        while more or in_flight:
            # candidates, not prompts: most of a prompt's may be done while one runs on
            while more and engine.get_num_unfinished_requests() < self._capacity:
                request = next(waiting, None)
                if request is None:
                    more = False
                    break
                tokens = self._encode(request)
                if isinstance(tokens, Drop):
                    yield GenerationResult(request.prompt_id, (), drop=tokens)
                    continue
                key, number = str(number), number + 1
                engine.add_request(
                    key,
                    {"prompt_token_ids": tokens},
                    self._sampling(request),
                    lora_request=self._lora,
                )
                in_flight[key] = request
            for output in engine.step() if in_flight else ():
                if output.finished:
                    yield _result(in_flight.pop(output.request_id), output)

    def _engine_arguments(self) -> dict[str, Any]:
        settings = self.settings
        arguments: dict[str, Any] = {
            "model": self.model_path,
            "dtype": _checkpoint_dtype(self.model_path)
            if settings.dtype == "auto"
            else settings.dtype,
            "max_model_len": settings.max_model_len,
            "tensor_parallel_size": settings.tensor_parallel_size,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "seed": 0,
        }
        arguments |= self._device_arguments()
        if self.lora_path:
            rank = json.loads((Path(self.lora_path) / "adapter_config.json").read_text())["r"]
            arguments |= {"enable_lora": True, "max_lora_rank": max(8, int(rank))}
        return arguments | settings.engine_args

    def _device_arguments(self) -> dict[str, Any]:
        from vllm.platforms import current_platform

        eager = self.settings.enforce_eager
        if not current_platform.is_cpu():
            return {
                "gpu_memory_utilization": self.settings.gpu_memory_utilization,
                "enforce_eager": bool(eager),
            }
        return {
            "kv_cache_memory_bytes": int(self.settings.kv_cache_gib * _GIB),
            "block_size": _CPU_BLOCK_TOKENS,
            # a seeded request that is split in its prefill fails on CPU
            "enable_chunked_prefill": False,
            "enforce_eager": True if eager is None else eager,
        }

    def _lora_request(self) -> Any:
        if not self.lora_path:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, self.lora_path)

    def _check_template(self) -> None:
        own = getattr(self._tokenizer, "chat_template", None)
        if not (self.settings.raw or self.chat_template or own):
            raise ModelError(
                "the generator has no chat template",
                where=self.model_path,
                why="its tokenizer defines none, so messages cannot be turned into text",
                next_step="give --chat-template FILE, or --raw for a base model",
            )

    def _encode(self, request: GenerationRequest) -> list[int] | Drop:
        """Return the prompt's token ids, or why it cannot be sampled from."""
        messages = list(request.messages)
        if self.settings.raw:
            if len(messages) != 1:
                return Drop("not_raw", f"--raw takes one message, not {len(messages)}")
            tokens: list[int] = self._tokenizer.encode(messages[0]["content"])
        else:
            if self.settings.system_prompt and messages[0]["role"] not in ("system", "developer"):
                messages.insert(0, {"role": "system", "content": self.settings.system_prompt})
            try:
                tokens = self._tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.chat_template,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=False,
                )
            except Exception as error:
                # Jinja's own errors and those that a template raises; the row is at fault
                return Drop("template_error", _first_line(error))
        room = self._context_tokens - len(tokens)
        if room < 1:
            return Drop(
                "prompt_too_long",
                f"{len(tokens)} tokens leave no room in a context of {self._context_tokens}",
            )
        return tokens if tokens else Drop("empty_prompt", "no tokens after templating")

    def _common_sampling(self) -> Any:
        """Build what all requests share; making it anew for each costs more than a decode step."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        settings = self.settings
        return SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            min_p=settings.min_p,
            max_tokens=settings.max_tokens,
            stop=list(settings.stop) or None,
            logprobs=0,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _sampling(self, request: GenerationRequest) -> Any:
        parameters = copy.copy(self._sampling_parameters)
        parameters.n, parameters.seed = request.num_candidates, request.seed
        return parameters


def _result(request: GenerationRequest, output: Any) -> GenerationResult:
    ordered = sorted(output.outputs, key=lambda completion: completion.index)
    candidates = tuple(
        Candidate(
            candidate=completion.index,
            response=completion.text,
            finish_reason=completion.finish_reason or "unknown",
            num_tokens=len(completion.token_ids),
            logprob=completion.cumulative_logprob,
            seed=request.seed + completion.index,
        )
        for completion in ordered
    )
    return GenerationResult(request.prompt_id, candidates, len(output.prompt_token_ids or ()))


def _checkpoint_dtype(model_path: str) -> str:
    """Return the data type the checkpoint was saved in (vLLM's auto halves float32)."""
    try:
        config = json.loads((Path(model_path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "auto"
    nested = config.get("text_config") or {}
    name = config.get("dtype") or config.get("torch_dtype") or nested.get("dtype") or "auto"
    return str(name).removeprefix("torch.")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
