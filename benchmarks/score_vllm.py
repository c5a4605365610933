"""vLLM's pooling engine as a contender of bench_score.py, in a process of its own."""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from score_peers import Run

__all__ = ["VllmOptions", "VllmPeer", "save_folder", "start_engines"]

START_TIMEOUT_S = 900.0
RUN_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How one engine is started."""

    folder: str
    dtype: str
    device: str
    block_size: int
    eager: bool
    max_model_len: int
    has_weights: bool = True
    """Without, the engine makes up its own: its times count, its scores do not."""

    def __str__(self) -> str:
        return f"vLLM, block {self.block_size}, {'eager' if self.eager else 'compiled'}"

    def arguments(self) -> dict[str, Any]:
        """Return what `vllm.LLM` is given; all else, threads included, is its own choice."""
        memory: dict[str, Any] = {"gpu_memory_utilization": 0.4}
        if self.device == "cpu":
            memory = {"kv_cache_memory_bytes": 1 << 30}
        return memory | {
            "model": self.folder,
            "runner": "pooling",
            "dtype": self.dtype,
            "block_size": self.block_size,
            "enforce_eager": self.eager,
            "max_model_len": self.max_model_len,
            "enable_prefix_caching": True,
            "pooler_config": {"task": "classify", "use_activation": False},
            "load_format": "auto" if self.has_weights else "dummy",
            "disable_log_stats": True,
        }


class VllmPeer:
    """An engine in a process of its own; between runs it waits on a pipe."""

    def __init__(self, options: VllmOptions, log: Path) -> None:
        """Start it; raises RuntimeError if it does not start."""
        self.options = options
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, options, str(log)), daemon=True)
        self._process.start()
        other.close()
        try:
            self.threads: int = self._answer(START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int | None:
        """The engine's process."""
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def run(self, conversations: Sequence[tuple[int, ...]]) -> Run:
        """Score them, the prefix cache emptied before; sending them to the process takes no time
        that counts."""
        self._connection.send([list(tokens) for tokens in conversations])
        return Run(*self._answer(RUN_TIMEOUT_S))

    def _answer(self, timeout_s: float) -> Any:
        try:
            if not self._connection.poll(timeout_s):
                raise RuntimeError(f"{self.options}: no answer in {timeout_s:g} s")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"{self.options}: its process has ended") from error
        if isinstance(answer, str):
            raise RuntimeError(f"{self.options}: {answer}")
        return answer


def serve(connection: Any, options: VllmOptions, log: str) -> None:
    """Be the engine's process: start, answer with its threads, then with seconds and scores."""
    with Path(log).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # this process is its own already
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import torch
        from vllm import LLM, PoolingParams

        from bon.scorers.host_memory import keep_freed_memory

        if options.device == "cpu":
            keep_freed_memory()  # as bon does in its own process: vLLM is to be at its best
        llm = LLM(**options.arguments())
        connection.send(torch.get_num_threads())
        parameters = PoolingParams(task="classify", use_activation=False)
        while True:
            prompts = [{"prompt_token_ids": tokens} for tokens in connection.recv()]
            llm.reset_prefix_cache()
            started = time.perf_counter()
            outputs = llm.classify(prompts, pooling_params=parameters, use_tqdm=False)
            seconds = time.perf_counter() - started
            connection.send((seconds, [float(output.outputs.probs[0]) for output in outputs]))
    except EOFError:
        os._exit(0)
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        os._exit(1)


def start_engines(
    model: Any, longest: int, folder: Path, stack: ExitStack, arguments: argparse.Namespace
) -> tuple[dict[str, VllmPeer], dict[str, Any]]:
    """Start vLLM in each way that is asked for; one that does not start is told about and left."""
    engines: dict[str, VllmPeer] = {}
    facts: dict[str, Any] = {}
    if arguments.no_vllm or importlib.util.find_spec("vllm") is None:
        return engines, facts
    saved = folder / "model"
    save_folder(model, saved, weights=not arguments.shape_8b)
    for options in engine_options(str(saved), longest, arguments):
        print(f"starting {options}", file=sys.stderr)
        try:
            engine = stack.enter_context(VllmPeer(options, folder / f"{options}.log"))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            facts[str(options)] = {"did_not_start": str(error)}
        else:
            engines[str(options)] = engine
            facts[str(options)] = {"threads": engine.threads}
    return engines, facts


def engine_options(
    folder: str, longest: int, arguments: argparse.Namespace
) -> Iterator[VllmOptions]:
    """Yield every way to start the engine: block sizes, each eager and compiled."""
    for mode in arguments.vllm_modes.split(","):
        for block_size in arguments.vllm_block_sizes.split(","):
            yield VllmOptions(
                folder, arguments.dtype, arguments.device, int(block_size),
                eager=mode == "eager", max_model_len=-(-(longest + 16) // 256) * 256,
                has_weights=not arguments.shape_8b,
            )  # fmt: skip


def save_folder(model: Any, folder: Path, *, weights: bool) -> None:
    """Save what vLLM needs: configuration, a tokenizer that it never uses, weights if wanted."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    if weights:
        model.save_pretrained(folder)
    else:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
    words = {f"t{number}": number for number in range(model.config.vocab_size)}
    inner = Tokenizer(WordLevel(words, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="t0").save_pretrained(folder)
