"""Candidates from vLLM, in this process: one engine, kept full, one seed per candidate."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bon.chat import ChatTemplate
from bon.config import INSTALL_ADVICE, GenerateSettings
from bon.errors import ModelError, first_line
from bon.generators.prompting import PromptEncoder, is_greedy, numbered
from bon.heartbeat import beat
from bon.records import Candidate, Drop, GenerationRequest, GenerationResult
from bon.vllm_engine import (
    checkpoint_dtype,
    device_arguments,
    free_accelerator,
    import_llm,
    weights_arguments,
)

__all__ = ["VllmGenerator"]

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM accepts


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
        llm_class = import_llm(INSTALL_ADVICE)
        try:
            self._llm = llm_class(**self._engine_arguments())
        except ModelError:
            raise
        except Exception as error:  # damaged files raise kinds of their own, even MemoryError
            raise ModelError(
                "vLLM cannot load the generator",
                where=self.model_path,
                why=first_line(error),
                next_step="see the worker's log; where memory or the context is named, try "
                "--max-model-len, --kv-cache-gib or --gpu-memory-utilization",
            ) from error
        config = self._llm.llm_engine.vllm_config
        self._prompts = PromptEncoder(
            self.settings,
            ChatTemplate(
                self._llm.get_tokenizer(), self.chat_template, "generator", "--chat-template"
            ),
            context_tokens=int(config.model_config.max_model_len),
            vocab_size=int(config.model_config.get_vocab_size()),
        )
        self._prompts.check(self.model_path)
        # a prompt is read and its responses are written within as many steps, even one token each
        self._most_steps = 2 * int(config.model_config.max_model_len) + 1000
        self._capacity = 2 * int(config.scheduler_config.max_num_seqs)
        self._lora = self._lora_request()
        self._sampling_parameters = self._common_sampling()
        return self

    def __exit__(self, *_: object) -> None:
        del self._llm
        free_accelerator()

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """Sample every request; holds at most two engine batches of unfinished candidates."""
        engine = self._llm.llm_engine
        waiting = iter(requests)
        in_flight: dict[str, GenerationRequest] = {}
        number, more, num_steps = 0, True, 0
        try:
            while more or in_flight:
                # candidates, not prompts: most of a prompt's may be done while one runs on
                while more and engine.get_num_unfinished_requests() < self._capacity:
                    request = next(waiting, None)
                    if request is None:
                        more = False
                        break
                    tokens = self._prompts.encode(request)
                    if isinstance(tokens, Drop):
                        yield GenerationResult(request.prompt_id, (), drop=tokens)
                        continue
                    key, number = str(number), number + 1
                    self._submit(key, tokens, request)
                    in_flight[key] = request
                num_steps += 1
                if num_steps < self._most_steps:  # else it turns round without getting anywhere
                    beat()
                for output in engine.step() if in_flight else ():
                    if output.finished:
                        num_steps = 0
                        yield _result(in_flight.pop(output.request_id), output)
        finally:  # a stream that is left must not go on running in the engine
            if in_flight:
                engine.abort_request(list(in_flight))

    def _submit(self, key: str, tokens: list[int], request: GenerationRequest) -> None:
        self._llm.llm_engine.add_request(
            key,
            {"prompt_token_ids": tokens},
            self._sampling(request),
            lora_request=self._lora,
        )

    def _engine_arguments(self) -> dict[str, Any]:
        settings = self.settings
        arguments: dict[str, Any] = {
            "model": self.model_path,
            "dtype": checkpoint_dtype(self.model_path)
            if settings.dtype == "auto"
            else settings.dtype,
            "max_model_len": settings.max_model_len,
            "tensor_parallel_size": settings.tensor_parallel_size,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "seed": 0,
            **weights_arguments(self.model_path),
        }
        arguments |= device_arguments(
            gpu_memory_utilization=settings.gpu_memory_utilization,
            kv_cache_gib=settings.kv_cache_gib,
            enforce_eager=settings.enforce_eager,
        )
        if self.lora_path:
            arguments |= {"enable_lora": True, "max_lora_rank": _lora_rank(self.lora_path)}
        return arguments | settings.engine_args

    def _lora_request(self) -> Any:
        if not self.lora_path:
            return None
        from vllm.lora.request import LoRARequest

        request = LoRARequest("adapter", 1, self.lora_path)
        try:
            self._llm.llm_engine.add_lora(request)  # now, not with the first prompt
        except Exception as error:
            raise _bad_adapter(self.lora_path, error) from error
        return request

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
        parameters.n = 1 if is_greedy(self.settings) else request.num_candidates
        parameters.seed = request.seed
        return parameters


def _result(request: GenerationRequest, output: Any) -> GenerationResult:
    sampled = [
        Candidate(
            candidate=completion.index,
            response=completion.text,
            finish_reason=completion.finish_reason or "unknown",
            num_tokens=len(completion.token_ids),
            logprob=completion.cumulative_logprob,
            seed=None,
            token_ids=tuple(completion.token_ids),
        )
        for completion in sorted(output.outputs, key=lambda completion: completion.index)
    ]
    num_prompt_tokens = len(output.prompt_token_ids or ())
    return GenerationResult(request.prompt_id, numbered(request, sampled), num_prompt_tokens)


def _lora_rank(path: str) -> int:
    """Return the smallest rank vLLM has room for that is no less than the adapter's."""
    try:
        config = json.loads((Path(path) / "adapter_config.json").read_text(encoding="utf-8"))
        rank = max(int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values()), 1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad_adapter(path, error) from error
    return next((room for room in _LORA_RANKS if room >= rank), rank)


def _bad_adapter(path: str, error: BaseException) -> ModelError:
    return ModelError(
        "vLLM cannot load the LoRA adapter",
        where=path,
        why=first_line(error),
        next_step="give an adapter saved with peft's save_pretrained for this generator",
    )
