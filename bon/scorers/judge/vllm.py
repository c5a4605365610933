"""A judge on vLLM, in this process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bon.chat import ChatTemplate, check_vocabulary
from bon.config import INSTALL_ADVICE
from bon.errors import EngineError, ModelError, first_line
from bon.heartbeat import beat
from bon.records import Drop
from bon.scorers.judge.model import Answer, Asking, thinking_variables
from bon.scorers.judge.options import JudgeOptions
from bon.scorers.judge.words import find_word_tokens, log_sum
from bon.vllm_engine import (
    checkpoint_dtype,
    device_arguments,
    free_accelerator,
    import_llm,
    weights_arguments,
)

__all__ = ["VllmJudge"]


@dataclass
class VllmJudge:
    """`JudgeModel` on one engine, kept full."""

    options: JudgeOptions
    asking: Asking
    model_path: str
    """Folder of the model."""
    chat_template: str | None = None
    """Jinja source in place of the model's own template."""
    num_tokens_computed: int = 0
    """Tokens of questions that the prefix cache did not have, and of answers."""

    def __enter__(self) -> VllmJudge:
        llm_class = import_llm(f"{INSTALL_ADVICE}; or ask a server: judge:server:URL")
        self._chat = self._load_chat()  # seconds, where the engine takes a minute
        words = self.asking.words
        self._words = words and find_word_tokens(self._chat.tokenizer, words, self.model_path)
        try:
            self._llm = llm_class(**self._engine_arguments())
        except Exception as error:  # damaged files raise kinds of their own, even MemoryError
            raise ModelError(
                "vLLM cannot load the judge",
                where=self.model_path,
                why=first_line(error),
                next_step="see the worker's log; where memory or the context is named, try "
                "max_model_len, kv_cache_gib or gpu_memory_utilization behind the judge's ?",
            ) from error
        config = self._llm.llm_engine.vllm_config.model_config
        self._context_tokens, self._vocab_size = config.max_model_len, config.get_vocab_size()
        scheduler = self._llm.llm_engine.vllm_config.scheduler_config
        self._capacity = 2 * int(scheduler.max_num_seqs)
        self._sampling = self._sampling_parameters()
        self._num_requests = self.num_tokens_computed = 0
        return self

    def __exit__(self, *_: object) -> None:
        del self._llm
        free_accelerator()

    def answer(self, questions: Iterable[str]) -> list[Answer | Drop]:
        """Answer each question, or say why not; in their order.

        They are encoded as the engine takes them, a few more than it runs at once: a part of many
        pairs would not fit into memory as token ids. In the order of the groups, a prompt's
        questions find what they share in the prefix cache.
        """
        engine, waiting = self._llm.llm_engine, enumerate(questions)
        found: dict[int, Answer | Drop] = {}
        in_flight: dict[str, int] = {}
        more = True
        try:
            while more or in_flight:
                while more and len(in_flight) < self._capacity:
                    number, question = next(waiting, (-1, None))
                    if question is None:
                        more = False
                        break
                    tokens = self._encode(question)
                    if isinstance(tokens, Drop):
                        found[number] = tokens
                        continue
                    key, self._num_requests = str(self._num_requests), self._num_requests + 1
                    engine.add_request(key, {"prompt_token_ids": tokens}, self._sampling)
                    in_flight[key] = number
                beat()
                for output in engine.step() if in_flight else ():
                    if output.finished:
                        found[in_flight.pop(output.request_id)] = self._answer(output)
        except Exception as error:  # the model's own kernels raise many kinds
            raise self._failure(error) from error
        finally:  # an interrupted part must not go on running in the engine
            if in_flight:
                engine.abort_request(list(in_flight))
        return [found[number] for number in range(len(found))]

    def _failure(self, error: Exception) -> EngineError:
        return EngineError(
            "vLLM failed while judging",
            where=self.model_path,
            why=first_line(error),
            next_step="see the worker's log",
        )

    def _load_chat(self) -> ChatTemplate:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model_path, trust_remote_code=False)
        except Exception as error:  # damaged files raise kinds of their own
            raise ModelError(
                "cannot load the judge's tokenizer", where=self.model_path, why=first_line(error)
            ) from error
        check_vocabulary(tokenizer, "judge", self.model_path)
        chat = ChatTemplate(tokenizer, self.chat_template, "judge", "chat_template=")
        chat.check(self.model_path)
        return chat

    def _engine_arguments(self) -> dict[str, Any]:
        options = self.options
        dtype = checkpoint_dtype(self.model_path) if options.dtype == "auto" else options.dtype
        return {
            "model": self.model_path,
            "runner": "generate",  # a reward model is refused
            "dtype": dtype,
            "max_model_len": options.max_model_len,
            "tensor_parallel_size": options.tensor_parallel_size,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "seed": 0,
            **weights_arguments(self.model_path),
        } | device_arguments(
            gpu_memory_utilization=options.gpu_memory_utilization, kv_cache_gib=options.kv_cache_gib
        )

    def _sampling_parameters(self) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # not allowed_token_ids with logprobs: those are the likeliest of all before the mask
        ids = self._words and [token for tokens in self._words for token in tokens]
        return SamplingParams(
            temperature=0,
            max_tokens=self.asking.max_tokens,
            logprob_token_ids=ids,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _encode(self, question: str) -> list[int] | Drop:
        """Return a question's token ids, or why the engine cannot take them: it would fail all."""
        try:
            tokens = self._chat.tokens(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                variables=thinking_variables(self.asking.thinking),
            )
        except Exception as error:  # Jinja's own errors and those that a template raises
            return Drop("template_error", f"the judge's chat template: {first_line(error)}")
        if len(tokens) + self.asking.max_tokens > self._context_tokens:
            return Drop(
                "prompt_too_long",
                f"the judge's question has {len(tokens)} tokens; with {self.asking.max_tokens} for "
                f"the answer that is more than its context of {self._context_tokens}",
            )
        if not tokens or max(tokens) >= self._vocab_size:
            return Drop(
                "unknown_token",
                f"token {max(tokens)} is not in the judge's vocabulary of {self._vocab_size}"
                if tokens
                else "the judge's question has no tokens",
            )
        return tokens

    def _answer(self, output: Any) -> Answer:
        (completion,) = output.outputs
        num_tokens = len(output.prompt_token_ids)
        self.num_tokens_computed += num_tokens - (output.num_cached_tokens or 0)
        self.num_tokens_computed += len(completion.token_ids)
        if self._words is None:
            is_cut = completion.finish_reason == "length"
            return Answer(num_tokens, completion.text, is_cut=is_cut)
        found = completion.logprobs[0]
        first, second = (log_sum([found[token].logprob for token in one]) for one in self._words)
        return Answer(num_tokens, completion.text, (first, second))
