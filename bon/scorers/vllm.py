"""The scorer of reward models on vLLM's pooling engine, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bon.config import INSTALL_ADVICE, ScorerSettings
from bon.errors import EngineError, ModelError, first_line
from bon.heartbeat import beat
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.conversations import make_encoder, score_conversations
from bon.scorers.encoding import Encoded
from bon.scorers.engine_choice import refuse_for_vllm, vllm_refusal
from bon.scorers.families.base import Family, VllmUse
from bon.scorers.families.loading import without_weights
from bon.scorers.families.steps import rewards_of_steps
from bon.scorers.vllm_arguments import engine_arguments
from bon.vllm_engine import free_accelerator, import_llm

__all__ = ["VllmRewardScorer"]


@dataclass
class VllmRewardScorer:
    """`Scorer` whose scores are those of one conversation at a time, up to rounding.

    Token ids come from the same encoder as on transformers; vLLM never sees a text.
    """

    settings: ScorerSettings
    model_path: str
    """Folder of the model."""
    family: Family
    config: dict[str, Any]
    """Its config.json."""
    template: str | None = None
    """Jinja source in place of the model's own template."""
    num_tokens_computed: int = 0
    """Tokens given since the scorer was entered, less those that the prefix cache had."""
    halved_batch_tokens: int | None = None
    """None: vLLM takes its memory at the start."""

    def __enter__(self) -> VllmRewardScorer:
        self._use = self._vllm_use()
        llm_class = import_llm(f"{INSTALL_ADVICE}; or give --scorer-engine transformers")
        is_cpu = self._runs_on_cpu()
        with without_weights():  # vLLM leaves missing weights random: checked as on transformers
            model = self.family.load(self.model_path, self.settings)
        self._encoder = make_encoder(
            model, self.family, self.config, self.settings, self.template, self.model_path
        )
        arguments = engine_arguments(
            self.model_path,
            model.body.config,
            str(model.body.dtype).removeprefix("torch."),
            self._use,
            longest=self._encoder.max_length,
            batch_tokens=self.settings.batch_tokens,
            is_cpu=is_cpu,
        )
        del model
        try:
            self._llm = llm_class(**arguments)
        except Exception as error:  # damaged files raise kinds of their own, even MemoryError
            raise ModelError(
                "vLLM cannot load the reward model",
                where=self.model_path,
                why=first_line(error),
                next_step="see the worker's log; where memory or the context is named, try "
                "--reward-max-length, else --scorer-engine transformers",
            ) from error
        self._capacity = 2 * int(self._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs)
        self._num_requests = self.num_tokens_computed = 0
        return self

    def __exit__(self, *_: object) -> None:
        del self._llm
        free_accelerator()

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score every response of every group; a failed one is none, with its reason."""
        return score_conversations(self._encoder, groups, self._rewards)

    def _rewards(self, items: Sequence[Encoded]) -> list[float | Drop]:
        """Return each conversation's raw reward, or why it has none.

        In the order of their tokens, those that share a prefix follow each other, and find it in
        the prefix cache. The cache gives no rows of what it holds, so a conversation whose rows
        are needed there is computed once more without it.
        """
        rewards: dict[int, float | Drop] = {}
        order = sorted(range(len(items)), key=lambda index: items[index].tokens)
        for read_cache in (True, False):
            left = [(index, items[index]) for index in order if index not in rewards]
            for index, output in self._outputs(left, read_cache):
                reward = output if isinstance(output, Drop) else self._reward(items[index], output)
                if reward is not None:
                    rewards[index] = reward
        lost = Drop("vllm_error", "vLLM gave fewer rows than tokens")
        return [rewards.get(index, lost) for index in range(len(items))]

    def _outputs(
        self, items: Iterable[tuple[int, Encoded]], read_cache: bool
    ) -> Iterator[tuple[int, Any]]:
        """Run conversations, each with its number, and yield vLLM's outputs as they come."""
        engine, waiting = self._llm.llm_engine, iter(items)
        parameters = self._pooling_parameters(read_cache)
        in_flight: dict[str, int] = {}
        more = True
        try:
            while more or in_flight:
                while more and len(in_flight) < self._capacity:
                    index, item = next(waiting, (-1, None))
                    if item is None:
                        more = False
                        break
                    key, self._num_requests = str(self._num_requests), self._num_requests + 1
                    refusal = self._submit(key, item, parameters)
                    if refusal is not None:
                        yield index, refusal
                        continue
                    in_flight[key] = index
                for output in self._step() if in_flight else ():
                    if output.finished:
                        yield in_flight.pop(output.request_id), self._checked(output)
        finally:  # an interrupted part must not go on running in the engine
            if in_flight:
                engine.abort_request(list(in_flight))

    def _submit(self, key: str, item: Encoded, parameters: Any) -> Drop | None:
        """Give a conversation to the engine; return why it takes none such, if so."""
        prompt = {"prompt_token_ids": list(item.tokens)}
        try:
            self._llm.llm_engine.add_request(key, prompt, parameters)
        except _faults_of_requests() as error:
            return Drop("vllm_error", first_line(error))
        except Exception as error:  # the engine is at fault: the next one would fail as well
            raise self._failure(error) from error
        return None

    def _step(self) -> list[Any]:
        beat()
        try:
            return list(self._llm.llm_engine.step())
        except Exception as error:  # the model's own kernels raise many kinds
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> EngineError:
        return EngineError(
            "vLLM failed while scoring",
            where=self.model_path,
            why=first_line(error),
            next_step="see the worker's log; or give --scorer-engine transformers",
        )

    def _checked(self, output: Any) -> Any:
        """Count what an output took; return it, or why there is none."""
        self.num_tokens_computed += len(output.prompt_token_ids) - (output.num_cached_tokens or 0)
        error = getattr(output, "error", None)
        return Drop("vllm_error", str(error)) if error else output.outputs.data

    def _reward(self, item: Encoded, rows_RL: Any) -> float | None:
        """Return a conversation's reward, none where rows that it needs are missing."""
        rows_RL = rows_RL.float()
        if self._use.task == "classify":
            return float(rows_RL.reshape(()))
        first = len(item.tokens) - len(rows_RL)  # the cache had those before
        if item.reads[0] < first:
            return None
        read_RL = rows_RL[[position - first for position in item.reads]]
        if not self._use.per_step:
            return float(read_RL[-1].reshape(()))
        how = self.settings.step_aggregate
        return float(rewards_of_steps(read_RL, [len(read_RL)], how)[0])

    def _pooling_parameters(self, read_cache: bool) -> Any:
        from vllm import PoolingParams

        return PoolingParams(
            task=self._use.task,
            use_activation=False,  # its default squeezes one label through a sigmoid
            skip_reading_prefix_cache=not read_cache,
        )

    def _vllm_use(self) -> VllmUse:
        refuse_for_vllm(vllm_refusal(self.family, self.config), self.model_path)
        assert self.family.vllm is not None
        return self.family.vllm

    def _runs_on_cpu(self) -> bool:
        """Tell what this vLLM is built for; it runs on nothing else."""
        from vllm.platforms import current_platform

        built_for = "cpu" if current_platform.is_cpu() else "cuda"
        if self.settings.device not in ("auto", built_for):
            raise ModelError(
                f"this vLLM is built for {built_for}",
                where=f"--reward-device {self.settings.device}",
                next_step="leave the flag out, or give --scorer-engine transformers",
            )
        return built_for == "cpu"


def _faults_of_requests() -> tuple[type[Exception], ...]:
    """Return what vLLM raises where a request itself cannot be taken; older ones know no own."""
    try:
        from vllm.exceptions import VLLMClientError
    except ImportError:
        return (ValueError,)
    return ValueError, VLLMClientError
