"""Batches against one candidate at a time, without a cache."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR, PROMPTS, bon, bon_stopped, pool_files
from support.tiny_models import CHATML, config, edit_config, edit_weights, save_generator, tokenizer

from bon.cli.build import generation_plan
from bon.config import GenerateSettings
from bon.errors import EngineError, ModelError
from bon.generators.transformers import TransformersGenerator
from bon.pipeline.generate import sampling_seed
from bon.pool.pool import CANDIDATES, Pool
from bon.records import Candidate, GenerationRequest, GenerationResult, Message

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

EOS, MAX_TOKENS, CONTEXT = 2, 24, 256
TRUNCATING = {"temperature": 0.7, "top_p": 0.95, "top_k": 60, "min_p": 0.01}
KINDS: dict[str, dict[str, Any]] = {
    "mistral": {},
    "gemma2": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512},
    "bloom": {"n_layer": 2, "n_head": 2},
    "qwen3_moe": {},
    "lfm2": {},
}
"""Sliding windows, soft-capping, learned positions, ALiBi, experts, convolutions."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator whose tokenizer has grown: its last token has no row in the model."""
    folder = save_generator(tmp_path_factory.mktemp("generator"), scale=6)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    tokens.add_tokens([f"<|new {number}|>" for number in range(5)])
    tokens.save_pretrained(folder)
    return folder


def user(content: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": content},)


def request(
    number: int, messages: tuple[Message, ...] | str = "", *, n: int = 4, seed: int | None = None
) -> GenerationRequest:
    if isinstance(messages, str):
        messages = user(messages or f"question {number} " + "abc " * (3 * number % 11))
    return GenerationRequest(f"p{number}", messages, n, 1000 * number if seed is None else seed)


def generator(
    folder: Path, *, lora: Path | None = None, template: str | None = None, **settings: Any
) -> TransformersGenerator:
    values = {"model": str(folder), "max_tokens": MAX_TOKENS, "num_candidates": 4, **settings}
    values = {"max_model_len": CONTEXT, **values}
    return TransformersGenerator(
        GenerateSettings(**values), str(folder), str(lora) if lora else None, template
    )


def sample(
    folder: Path, *requests: GenerationRequest, **options: Any
) -> dict[str, GenerationResult]:
    with generator(folder, **options) as made:
        return {result.prompt_id: result for result in made.stream(iter(requests))}


def causal(folder: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def chatml_ids(messages: tuple[Message, ...]) -> list[int]:
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return list(tokenizer().encode(text + "<|im_start|>assistant\n"))


@torch.inference_mode()
def plain(model: Any, prompt: list[int], seed: int) -> tuple[tuple[int, ...], float]:
    """Sample one candidate, every token by a forward pass over the whole of the text."""
    numbers, tokens, logprob = random.Random(seed), list[int](), 0.0
    while len(tokens) < MAX_TOKENS and EOS not in tokens:
        logits = model(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[0, -1]
        sums = logits.double().softmax(-1).cumsum(-1)
        token = int((sums <= numbers.random()).sum())
        tokens.append(token)
        logprob += float(logits.double().log_softmax(-1)[token])
    return tuple(tokens), logprob


def assert_plain(folder: Path, found: dict[str, GenerationResult], **options: Any) -> None:
    reference = causal(folder, **options)
    for number in range(len(found)):
        prompt = chatml_ids(request(number).messages)
        result = found[f"p{number}"]
        assert result.num_prompt_tokens == len(prompt)
        for candidate in result.candidates:
            assert candidate.seed is not None
            tokens, logprob = plain(reference, prompt, candidate.seed)
            assert candidate.token_ids == tokens
            assert candidate.num_tokens == len(tokens)
            assert candidate.logprob == pytest.approx(logprob, abs=1e-4)
            assert (candidate.finish_reason == "stop") == (tokens[-1] == EOS)


def close(some: tuple[Candidate, ...], others: tuple[Candidate, ...]) -> None:
    """Everything is equal, the log-probability up to rounding."""
    for left, right in zip(some, others, strict=True):
        assert left.logprob == pytest.approx(right.logprob, abs=1e-4)
        assert replace(left, logprob=None) == replace(right, logprob=None)


def test_batches_give_what_one_candidate_at_a_time_gives(model: Path) -> None:
    found = sample(model, *(request(number) for number in range(7)))
    assert_plain(model, found)
    ended = {c.finish_reason for result in found.values() for c in result.candidates}
    assert ended == {"stop", "length"}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_models_do(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(config(kind, **KINDS[kind]))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    made.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    found = sample(tmp_path, *(request(number, n=2) for number in range(4)))
    assert_plain(tmp_path, found, attn_implementation="eager")


@pytest.mark.parametrize("settings", [{}, TRUNCATING], ids=["plain", "truncating"])
def test_candidates_depend_on_no_neighbour_order_or_n(settings: Any, model: Path) -> None:
    requests = [request(number, n=6) for number in range(11)]
    together = sample(model, *requests, **settings)
    backwards = sample(model, *requests[::-1], **settings)
    for number, prompt in enumerate(requests):
        close(backwards[prompt.prompt_id].candidates, together[prompt.prompt_id].candidates)
        if number % 5 == 0:
            (alone,) = sample(model, request(number, n=3), **settings).values()
            close(alone.candidates, together[prompt.prompt_id].candidates[:3])
    (shifted,) = sample(model, request(0, n=1, seed=2)).values()
    assert shifted.candidates[0].seed == 2
    if not settings:
        assert shifted.candidates[0].token_ids == together["p0"].candidates[2].token_ids


@pytest.mark.parametrize("settings", [TRUNCATING, {"temperature": 0.0}])
def test_logprob_is_before_temperature_and_truncation(settings: Any, model: Path) -> None:
    reference = causal(model)
    (result,) = sample(model, request(1), **settings).values()
    prompt = chatml_ids(request(1).messages)
    for candidate in result.candidates:
        tokens = list(candidate.token_ids or ())
        with torch.inference_mode():
            logits = reference(input_ids=torch.tensor([prompt + tokens])).logits[0].double()
        want = logits.log_softmax(-1)[range(len(prompt) - 1, len(prompt) - 1 + len(tokens)), tokens]
        assert candidate.logprob == pytest.approx(want.sum().item(), abs=1e-4)


def test_greedy_candidates_are_all_the_likeliest_one(model: Path) -> None:
    (result,) = sample(model, request(3, n=3, seed=40), temperature=0.0).values()
    assert [candidate.candidate for candidate in result.candidates] == [0, 1, 2]
    assert [candidate.seed for candidate in result.candidates] == [40, 41, 42]
    assert len({(c.response, c.logprob, c.token_ids) for c in result.candidates}) == 1
    prompt = chatml_ids(request(3).messages)
    want = causal(model).generate(
        torch.tensor([prompt]), max_new_tokens=MAX_TOKENS, do_sample=False, pad_token_id=0
    )
    assert list(result.candidates[0].token_ids or ()) == want[0, len(prompt) :].tolist()


def test_a_stop_text_ends_a_response_and_is_not_part_of_it(model: Path) -> None:
    whole = sample(model, request(0, n=20), max_tokens=100)["p0"].candidates
    cut = sample(model, request(0, n=20), max_tokens=100, stop=("e", "A"))["p0"].candidates
    stopped = 0
    for before, after in zip(whole, cut, strict=True):
        ends = [place for place in (before.response.find(s) for s in "eA") if place >= 0]
        assert after.response == before.response[: min(ends, default=None)]
        stopped += bool(ends)
        assert not ends or after.finish_reason == "stop"
    assert stopped > 2


def test_a_prompt_over_the_context_is_a_drop_and_the_rest_completes(model: Path) -> None:
    around = len(chatml_ids(user("")))
    results = sample(
        model,
        request(0),
        request(1, "x" * (CONTEXT - around)),
        request(2, "x" * (CONTEXT - 1 - around)),
        request(3, "x" * (CONTEXT - 10 - around)),
    )
    drop = results["p1"].drop
    assert drop is not None
    assert (drop.reason, results["p1"].candidates) == ("prompt_too_long", ())
    assert str(CONTEXT) in drop.detail
    assert {candidate.num_tokens for candidate in results["p2"].candidates} == {1}
    assert max(candidate.num_tokens or 0 for candidate in results["p3"].candidates) == 10
    close(sample(model, request(0))["p0"].candidates, results["p0"].candidates)


def test_system_prompt_raw_and_template(model: Path) -> None:
    flag = sample(model, request(0, "x", seed=1), system_prompt="be brief")["p0"]
    messages: tuple[Message, ...] = ({"role": "system", "content": "be brief"}, *user("x"))
    close(flag.candidates, sample(model, request(0, messages, seed=1))["p0"].candidates)
    assert flag.num_prompt_tokens == len(chatml_ids(messages))
    raw = sample(model, request(0, "Once upon"), request(1, messages), raw=True)
    assert raw["p0"].num_prompt_tokens == len("Once upon")
    drop = raw["p1"].drop
    assert drop is not None
    assert drop.reason == "not_raw"
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    templated = sample(model, request(0, "Once upon"), template=template)["p0"]
    close(templated.candidates, raw["p0"].candidates)


@pytest.mark.parametrize(
    ("messages", "settings", "reason"),
    [
        (user("refuse me"), {}, "template_error"),
        (user(""), {"raw": True}, "empty_prompt"),
        (user("what is <|new 4|>?"), {}, "unknown_token"),
    ],
)
def test_a_prompt_that_cannot_be_sampled_costs_only_itself(
    messages: Any, settings: Any, reason: str, model: Path
) -> None:
    refusing = "{% if 'refuse' in messages[-1]['content'] %}{{ raise_exception('no') }}{% endif %}"
    results = sample(
        model, request(0), request(1, messages), request(2), template=refusing + CHATML, **settings
    )
    assert len(results["p0"].candidates) == len(results["p2"].candidates) == 4
    drop = results["p1"].drop
    assert drop is not None
    assert drop.reason == reason
    assert drop.detail


def test_a_model_that_gives_no_numbers_loses_the_prompt_and_says_why(tmp_path: Path) -> None:
    save_generator(tmp_path)
    edit_weights(tmp_path, lambda weights: weights["model.norm.weight"].fill_(float("nan")))
    drop = sample(tmp_path, request(0))["p0"].drop
    assert drop is not None
    assert drop.reason == "non_finite_logits"


def test_prompts_of_one_id_do_not_mix_and_none_give_none(model: Path) -> None:
    twins = [request(0, "x", seed=1), request(0, "y", seed=5)]
    with generator(model) as made:
        found = {result.candidates[0].seed: result for result in made.stream(iter(twins))}
    assert found.keys() == {1, 5}
    for twin in twins:
        close(sample(model, twin)["p0"].candidates, found[twin.seed].candidates)
    assert sample(model) == {}


def test_prompts_are_pulled_lazily_and_drops_do_not_wait(model: Path) -> None:
    pulled = 0

    def counted() -> Iterator[GenerationRequest]:
        nonlocal pulled
        for number in range(500):
            pulled += 1
            yield request(number, "x" * 999 if number % 2 else "", n=64)

    with generator(model, num_candidates=64, max_tokens=1) as made:
        stream = made.stream(counted())
        assert pulled == 0
        assert next(stream).drop is not None
        assert pulled <= 8
        assert next(stream).drop is not None
        assert len(next(stream).candidates) == 64
        stream.close()
        assert pulled <= 8
        again = {result.prompt_id: result for result in made.stream([request(0)])}
    close(again["p0"].candidates, sample(model, request(0), max_tokens=1)["p0"].candidates)


def test_little_memory_makes_small_batches_and_changes_no_candidate(model: Path) -> None:
    requests = [request(number, n=20) for number in range(5)]
    with generator(model, kv_cache_gib=0.0005) as made:
        passes = short_of_memory(made, most_rows=1000)
        found = {result.prompt_id: result for result in made.stream(requests)}
    longest = max(len(chatml_ids(one.messages)) for one in requests)
    bytes_a_row = (longest + MAX_TOKENS) * 2 * 2 * 32 * 4  # keys and values, layers, width, float32
    assert passes[1] == int(0.0005 * 2**30) // bytes_a_row
    assert max(passes) < 2 * passes[1]  # later prompts are shorter
    for prompt_id, result in sample(model, *requests).items():
        close(found[prompt_id].candidates, result.candidates)


def short_of_memory(made: TransformersGenerator, most_rows: int) -> list[int]:
    """Have the model's memory run out over so many rows; return the rows of all passes."""
    forward, passes = made._decoder.model.forward, list[int]()

    def limited(*, input_ids: Any, **others: Any) -> Any:
        passes.append(len(input_ids))
        if len(input_ids) > most_rows and input_ids.shape[1] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        return forward(input_ids=input_ids, **others)

    made._decoder.model.forward = limited
    return passes


def test_where_memory_runs_out_batches_are_halved_and_done_again(model: Path) -> None:
    requests = [request(number, n=6) for number in range(6)]
    with generator(model) as made:
        passes = short_of_memory(made, most_rows=5)
        found = {result.prompt_id: result for result in made.stream(requests)}
    assert max(passes) == 36
    for prompt_id, result in sample(model, *requests).items():
        close(found[prompt_id].candidates, result.candidates)


def test_memory_for_not_even_one_candidate_ends_the_run_with_advice(model: Path) -> None:
    with generator(model) as made:
        short_of_memory(made, most_rows=0)
        with pytest.raises(EngineError, match="memory is too small") as caught:
            list(made.stream([request(0)]))
    assert "--max-tokens" in caught.value.next_step


def save_adapter(model: Path, folder: Path) -> Path:
    peft = pytest.importorskip("peft")
    torch.manual_seed(5)
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    peft.get_peft_model(causal(model), lora).save_pretrained(folder)
    return folder


def test_a_lora_adapter_gives_what_the_merged_model_gives(model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(model, tmp_path / "adapter")
    peft = pytest.importorskip("peft")
    merged = peft.PeftModel.from_pretrained(causal(model), adapter).merge_and_unload()
    found = sample(model, request(0), lora=adapter)["p0"].candidates
    prompt = chatml_ids(request(0).messages)
    for candidate in found:
        assert candidate.seed is not None
        tokens, logprob = plain(merged, prompt, candidate.seed)
        assert candidate.token_ids == tokens
        assert candidate.logprob == pytest.approx(logprob, abs=1e-4)
    base = sample(model, request(0))["p0"].candidates
    assert [c.token_ids for c in base] != [c.token_ids for c in found]


def refused(folder: Path, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught, generator(folder, **options):
        pass
    assert caught.value.where == str(options.get("lora", folder))
    assert caught.value.why
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"<html>rate limited" * 100),
        lambda folder: edit_weights(folder, lambda found: found.pop("model.norm.weight")),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: edit_config(folder, architectures=["MysteryForCausalLM"], model_type="x"),
        lambda folder: edit_config(folder, max_position_embeddings=64),
        lambda folder: (folder / "chat_template.jinja").unlink(),
    ],
    ids=["weights", "weight", "none", "config", "tokenizer", "unknown", "context", "template"],
)
def test_a_broken_model_is_refused(damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = save_generator(tmp_path)
    damage(folder)
    refused(folder)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("mamba", {}), ("recurrent_gemma", {"lru_width": 64, "attention_window_size": 16})],
)
def test_a_model_with_a_state_of_its_own_is_refused(
    kind: str, changes: Any, tmp_path: Path
) -> None:
    made = transformers.AutoModelForCausalLM.from_config(config(kind, **changes))
    made.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    error = refused(tmp_path)
    assert "state" in error.why
    assert "--generator-engine vllm" in error.next_step


@pytest.mark.parametrize("damage", ["no config", "weights", "weight", "other layers"])
def test_a_broken_adapter_is_refused(damage: str, model: Path, tmp_path: Path) -> None:
    adapter = save_adapter(model, tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    if damage == "no config":
        file.unlink()
    elif damage == "weights":
        (adapter / "adapter_model.safetensors").write_bytes(b"<html>rate limited" * 100)
    elif damage == "weight":
        from safetensors.torch import load_file, save_file

        weights = load_file(adapter / "adapter_model.safetensors")
        del weights[next(iter(weights))]
        save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    else:
        said = json.loads(file.read_text()) | {"target_modules": ["no_such_layer"]}
        file.write_text(json.dumps(said))
    refused(model, lora=adapter)


def test_generate_killed_in_the_middle_resumes_to_the_same_candidates(tmp_path: Path) -> None:
    pool = tmp_path / "killed.pool"
    flags = ("generate", PROMPTS, "-m", GENERATOR, "--generator-engine", "transformers")
    flags = (*flags, "-n", 4, "--max-tokens", MAX_TOKENS, "--limit", 60, "--part-size", 4)
    killed = bon_stopped(
        *(*flags, "--pool", pool),
        cwd=tmp_path,
        when=lambda: any(pool.glob("candidates/*.parquet")),
        how=signal.SIGKILL,
    )
    assert killed.returncode == -signal.SIGKILL
    before = pool_files(pool)
    done = bon(*flags, "--pool", pool, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "transformers, as --generator-engine says" in done.stderr
    assert before.items() <= pool_files(pool).items()

    made = Pool.open(pool)
    prompts = [prompt for part in made.parts() for prompt in made.prompts(part)]
    wanted = sample(GENERATOR, *(
        GenerationRequest(one.prompt_id, one.messages, 4, sampling_seed(0, one.prompt_id))
        for one in prompts
    ), max_model_len=None)  # fmt: skip
    assert len(wanted) == 60
    for part in made.parts():
        for row in made.read(CANDIDATES, part).to_pylist():
            found = wanted[row.pop("prompt_id")].candidates[row["candidate"]]
            ids = tuple(row.pop("token_ids"))
            close((Candidate(**row, token_ids=ids),), (found,))


@pytest.mark.parametrize("part", range(3))
def test_a_part_sampled_again_alone_has_the_same_bits(tmp_path: Path, part: int) -> None:
    pool = tmp_path / "pool"
    flags = ("generate", PROMPTS, "-m", GENERATOR, "--generator-engine", "transformers", "-n", 2)
    flags = (*flags, "--max-tokens", 8, "--limit", 7, "--part-size", 3, "--pool", pool)
    assert bon(*flags, cwd=tmp_path).returncode == 0
    before = pool_files(pool)
    Pool.open(pool).layout.part(CANDIDATES, part).unlink()
    assert bon(*flags, cwd=tmp_path).returncode == 0
    assert pool_files(pool) == before


def test_a_pool_knows_which_engine_sampled_it() -> None:
    engines = {
        name: generation_plan(GenerateSettings(model=str(GENERATOR), generator_engine=name))
        for name in ("auto", "transformers")
    }
    plan = engines["transformers"]
    assert (plan.engine, plan.fingerprint["engine"]) == ("transformers", "transformers")
    assert isinstance(plan.generator, TransformersGenerator)
    assert "generator_engine" not in plan.fingerprint
    has_vllm = find_spec("vllm") is not None
    assert engines["auto"].fingerprint["engine"] == ("vllm" if has_vllm else "transformers")
