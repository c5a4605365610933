"""The real engine: what is sampled depends on the prompt, the settings and the seed alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import vllm_worker
from support.tiny_models import CHATML, edit_config, save_generator
from support.vllm_worker import Sampled, Worker

from bon.errors import ModelError
from bon.records import GenerationRequest, Message

pytest.importorskip("vllm")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CONTEXT, NUM_SEQS = vllm_worker.ENGINE["max_model_len"], 16
LOGPROB_TOLERANCE = 1e-3
EOS = 2
TRUNCATING = {"temperature": 0.7, "top_p": 0.95, "top_k": 60, "min_p": 0.01}

Sample = Callable[..., dict[str, Sampled]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator whose tokenizer has grown: its last token has no row in the model."""
    folder = save_generator(tmp_path_factory.mktemp("generator"), scale=6)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    tokens.add_tokens([f"<|new {number}|>" for number in range(5)])
    assert len(tokens) == transformers.AutoConfig.from_pretrained(folder).vocab_size + 1
    tokens.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tmp_path_factory.mktemp("engine") / "log") as worker:
        worker.ask(vllm_worker.start, model)
        yield worker


@pytest.fixture(scope="module")
def bare(engine: Worker) -> Worker:
    """The process without its engine, for those that do not start: no test after may need one."""
    engine.ask(vllm_worker.stop)
    return engine


@pytest.fixture
def sample(engine: Worker) -> Sample:
    return lambda *requests, **options: engine.ask(vllm_worker.sample, requests, **options)


def user(content: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": content},)


def request(
    number: int, messages: tuple[Message, ...] | str = "", *, n: int = 8, seed: int | None = None
) -> GenerationRequest:
    if isinstance(messages, str):
        messages = user(messages or f"question {number} " + "abc " * (number % 9))
    return GenerationRequest(f"p{number}", messages, n, 1000 * number if seed is None else seed)


def chatml_ids(model: Path, messages: tuple[Message, ...]) -> list[int]:
    """Token ids of a prompt in ChatML, written out rather than templated."""
    tokens = transformers.AutoTokenizer.from_pretrained(model)
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return list(tokens(text + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"])


@torch.inference_mode()
def logprobs(model: Any, prompt: list[int], response: tuple[int, ...]) -> Any:
    """Log-probabilities of a response's tokens under a model, as it is (temperature 1)."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double()
    taken = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    return taken.gather(1, torch.tensor(response)[:, None])[:, 0]


def causal(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def assert_same(some: Sampled, others: Sampled, *, n: int | None = None) -> None:
    """Tokens, text, count, ending and seed are equal; the log-probability up to rounding."""
    assert some.tokens == others.tokens[:n]
    pairs = zip(some.result.candidates, others.result.candidates[:n], strict=True)
    for left, right in pairs:
        assert left.logprob == pytest.approx(right.logprob, abs=1e-4)
        for name in ("candidate", "response", "finish_reason", "num_tokens", "seed"):
            assert getattr(left, name) == getattr(right, name)


@pytest.mark.parametrize("settings", [{}, TRUNCATING], ids=["plain", "truncating"])
def test_candidates_depend_on_no_neighbour_order_or_n(settings: Any, sample: Sample) -> None:
    requests = [request(number) for number in range(30)]
    together = sample(*requests, **settings)
    assert list(together) != sorted(together)  # they end in another order than they came
    backwards = sample(*requests[::-1], **settings)
    for number, prompt in enumerate(requests):
        assert_same(backwards[prompt.prompt_id], together[prompt.prompt_id])
        if number % 6 == 0:
            alone = sample(request(number, n=4), **settings)[prompt.prompt_id]
            assert_same(alone, together[prompt.prompt_id], n=4)
    assert sample(request(1), **settings)["p1"].tokens == together["p1"].tokens


def test_candidate_i_is_the_first_of_a_seed_that_is_i_higher(sample: Sample) -> None:
    (first,) = sample(request(0, "x", n=3, seed=70)).values()
    (third,) = sample(request(0, "x", n=1, seed=72)).values()
    assert third.tokens[0] == first.tokens[2]
    assert [candidate.seed for candidate in first.result.candidates] == [70, 71, 72]
    assert third.result.candidates[0].seed == 72


def test_candidates_and_seeds_differ(sample: Sample) -> None:
    results = sample(
        request(0, "x", seed=1), request(1, "x", seed=2**47 + 99), request(2, "y", seed=1)
    )
    drawn = [tokens for result in results.values() for tokens in result.tokens]
    assert len(set(drawn)) == 24


def test_two_prompts_of_one_id_do_not_mix(engine: Worker) -> None:
    twins = [request(0, "x", seed=1), request(0, "y", seed=5)]
    assert len(engine.ask(vllm_worker.pulls, twins)) == 2


@pytest.mark.parametrize("settings", [{}, TRUNCATING, {"temperature": 0.0}])
def test_logprob_is_the_models_own(settings: Any, sample: Sample, model: Path) -> None:
    reference = causal(model)
    results = sample(*(request(number, n=3) for number in range(4)), **settings)
    for number in range(4):
        prompt = chatml_ids(model, request(number).messages)
        result = results[f"p{number}"]
        assert result.result.num_prompt_tokens == len(prompt)
        for tokens, candidate in zip(result.tokens, result.result.candidates, strict=True):
            assert candidate.num_tokens == len(tokens)
            want = logprobs(reference, prompt, tokens).sum().item()
            assert candidate.logprob == pytest.approx(want, abs=LOGPROB_TOLERANCE)


def test_temperature_shapes_the_draw(sample: Sample) -> None:
    def mean_logprob(temperature: float) -> float:
        results = sample(*(request(number) for number in range(4)), temperature=temperature)
        found = [c for result in results.values() for c in result.result.candidates]
        return sum(c.logprob or 0.0 for c in found) / sum(c.num_tokens for c in found)

    assert mean_logprob(1.5) < mean_logprob(1.0) - 0.1
    assert mean_logprob(1.0) < mean_logprob(0.5) - 0.1


def test_greedy_candidates_are_all_the_likeliest_one(sample: Sample, model: Path) -> None:
    (result,) = sample(request(3, n=5, seed=40), temperature=0.0).values()
    assert len(set(result.tokens)) == 1
    candidates = result.result.candidates
    assert [candidate.candidate for candidate in candidates] == [0, 1, 2, 3, 4]
    assert [candidate.seed for candidate in candidates] == [40, 41, 42, 43, 44]
    assert len({(candidate.response, candidate.logprob) for candidate in candidates}) == 1
    prompt = chatml_ids(model, request(3).messages)
    want = causal(model).generate(
        torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    assert list(result.tokens[0]) == want[0, len(prompt) :].tolist()
    assert candidates[0].num_tokens == len(want[0]) - len(prompt)


def test_an_ending_is_eos_or_the_limit(sample: Sample) -> None:
    results = sample(*(request(number) for number in range(20)))
    pairs = [
        (tokens, candidate)
        for result in results.values()
        for tokens, candidate in zip(result.tokens, result.result.candidates, strict=True)
    ]
    assert {candidate.finish_reason for _, candidate in pairs} == {"stop", "length"}
    for tokens, candidate in pairs:
        assert (candidate.finish_reason == "stop") == (tokens[-1] == EOS)
        assert candidate.num_tokens == 24 or candidate.finish_reason == "stop"
        assert "<|im_end|>" not in candidate.response


def test_a_response_is_the_text_of_its_tokens(sample: Sample, model: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for result in sample(*(request(number) for number in range(5))).values():
        for tokens, candidate in zip(result.tokens, result.result.candidates, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            # a character that the limit cuts in two is left out
            assert candidate.response.rstrip("�") == text.rstrip("�")


def test_max_tokens_is_the_longest_response(sample: Sample) -> None:
    (result,) = sample(request(0), max_tokens=3).values()
    assert max(candidate.num_tokens for candidate in result.result.candidates) == 3


def test_a_stop_string_ends_a_response_and_is_not_part_of_it(sample: Sample) -> None:
    whole = sample(request(0, n=20), max_tokens=100)["p0"].result.candidates
    cut = sample(request(0, n=20), max_tokens=100, stop=("e", "A"))["p0"].result.candidates
    stopped = 0
    for before, after in zip(whole, cut, strict=True):
        ends = [place for place in (before.response.find(s) for s in "eA") if place >= 0]
        assert after.response == before.response[: min(ends, default=None)]
        if ends:
            stopped += 1
            assert after.finish_reason == "stop"
    assert stopped > 2


def test_a_prompt_over_the_context_is_a_drop_and_the_rest_completes(
    sample: Sample, model: Path
) -> None:
    around = len(chatml_ids(model, user("")))
    requests = [
        request(0),
        request(1, "x" * (CONTEXT - around)),
        request(2, "x" * 5000),
        request(3, "x" * (CONTEXT - 1 - around)),
        request(4),
    ]
    results = sample(*requests)
    for prompt_id, tokens in (("p1", CONTEXT), ("p2", 5000 + around)):
        drop = results[prompt_id].result.drop
        assert drop is not None
        assert drop.reason == "prompt_too_long"
        assert str(tokens) in drop.detail
        assert str(CONTEXT) in drop.detail
        assert results[prompt_id].result.candidates == ()
    assert results["p3"].result.num_prompt_tokens == CONTEXT - 1
    for candidate in results["p3"].result.candidates:
        assert candidate.num_tokens == 1
    assert_same(results["p4"], sample(request(4))["p4"])


def test_a_response_ends_with_the_context(sample: Sample, model: Path) -> None:
    around = len(chatml_ids(model, user("")))
    (result,) = sample(request(0, "x" * (CONTEXT - 10 - around))).values()
    assert max(candidate.num_tokens for candidate in result.result.candidates) == 10


def test_a_whole_conversation_is_templated(sample: Sample, model: Path) -> None:
    messages: tuple[Message, ...] = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "naïve 你好 🙂"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": ""},
    )
    (result,) = sample(request(0, messages, n=2)).values()
    prompt = chatml_ids(model, messages)
    want = logprobs(causal(model), prompt, result.tokens[0]).sum().item()
    assert result.result.num_prompt_tokens == len(prompt)
    assert result.result.candidates[0].logprob == pytest.approx(want, abs=LOGPROB_TOLERANCE)


def test_a_system_prompt_comes_before_prompts_that_have_none(sample: Sample) -> None:
    def system(content: str) -> tuple[Message, ...]:
        return ({"role": "system", "content": content}, *user("x"))

    set_by_flag = sample(
        request(0, "x", seed=1), request(1, system("own"), seed=1), system_prompt="flag"
    )
    by_hand = sample(request(0, system("flag"), seed=1), request(1, system("own"), seed=1))
    assert_same(set_by_flag["p0"], by_hand["p0"])
    assert_same(set_by_flag["p1"], by_hand["p1"])
    assert by_hand["p0"].tokens != by_hand["p1"].tokens


def test_raw_feeds_the_text_as_it_is(sample: Sample, model: Path) -> None:
    tokens = transformers.AutoTokenizer.from_pretrained(model)
    text = "Once upon a time"
    results = sample(
        request(0, text, n=2),
        request(1, ({"role": "system", "content": "s"}, *user(text))),
        raw=True,
    )
    prompt = tokens.encode(text)
    assert results["p0"].result.num_prompt_tokens == len(prompt) == len(text)
    want = logprobs(causal(model), prompt, results["p0"].tokens[0]).sum().item()
    first = results["p0"].result.candidates[0]
    assert first.logprob == pytest.approx(want, abs=LOGPROB_TOLERANCE)
    drop = results["p1"].result.drop
    assert drop is not None
    assert drop.reason == "not_raw"
    assert "2" in drop.detail


def test_a_given_template_takes_the_place_of_the_models_own(sample: Sample) -> None:
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    templated = sample(request(0, "Once upon"), template=template)
    assert_same(templated["p0"], sample(request(0, "Once upon"), raw=True)["p0"])


@pytest.mark.parametrize(
    ("messages", "settings", "reason"),
    [
        (user("refuse me"), {}, "template_error"),
        (user(""), {"raw": True}, "empty_prompt"),
        ((), {"raw": True}, "not_raw"),
        ((), {"system_prompt": "be brief"}, None),
    ],
)
def test_a_prompt_that_cannot_be_sampled_costs_only_itself(
    messages: Any, settings: Any, reason: str | None, sample: Sample
) -> None:
    refusing = "{% if 'refuse' in messages[-1]['content'] %}{{ raise_exception('no') }}{% endif %}"
    results = sample(
        request(0), request(1, messages), request(2), template=refusing + CHATML, **settings
    )
    assert len(results["p0"].tokens) == len(results["p2"].tokens) == 8
    drop = results["p1"].result.drop
    assert (drop.reason if drop else None) == reason
    assert drop is None or drop.detail


def test_a_token_that_the_model_has_no_row_for_costs_only_its_prompt(sample: Sample) -> None:
    results = sample(request(0), request(1, "what is <|new 4|>?"), request(2, "<|new 3|>"))
    assert len(results["p0"].tokens) == len(results["p2"].tokens) == 8
    drop = results["p1"].result.drop
    assert drop is not None
    assert drop.reason == "unknown_token"
    assert "vocabulary" in drop.detail


def test_prompts_are_pulled_no_further_than_the_engine_holds(engine: Worker) -> None:
    requests = [request(number, n=4) for number in range(60)]
    most = 2 * NUM_SEQS // 4 + 1
    seen = engine.ask(vllm_worker.pulls, requests)
    assert len(seen) == 60
    assert max(pulled - ended for pulled, ended in seen) <= most
    assert seen[0][0] >= NUM_SEQS // 4  # and no less than keeps it full
    assert engine.ask(vllm_worker.pulled_before_first_use, requests) == 0


def test_drops_do_not_wait_for_the_engine(engine: Worker) -> None:
    requests = [request(0), *(request(number, "x" * 999) for number in range(1, 40))]
    seen = engine.ask(vllm_worker.pulls, requests)
    assert len(seen) == 40
    assert seen[0] == (2, 1)


def test_a_prompt_with_more_candidates_than_the_engine_holds(sample: Sample) -> None:
    results = sample(request(0, n=100), request(1, n=1))
    assert len(set(results["p0"].tokens)) == 100
    assert_same(sample(request(0, n=8))["p0"], results["p0"], n=8)


def test_a_stream_that_was_left_leaves_nothing_behind(engine: Worker, sample: Sample) -> None:
    abandoned = [request(number, n=1) for number in range(10, 50)]
    wanted = [request(number) for number in range(3)]
    after = engine.ask(vllm_worker.sample_after_abandoning, abandoned, wanted)
    assert sorted(after) == ["p0", "p1", "p2"]
    for prompt_id, want in sample(*wanted).items():
        assert [c.response for c in after[prompt_id].candidates] == [
            c.response for c in want.result.candidates
        ]


def test_no_requests_give_no_results(sample: Sample) -> None:
    assert sample() == {}


def test_the_engine_runs_as_the_settings_say(engine: Worker) -> None:
    assert engine.ask(vllm_worker.engine_facts) == {
        "max_num_seqs": NUM_SEQS,
        "max_model_len": CONTEXT,
        "dtype": "torch.float32",  # auto: the checkpoint's, which vLLM itself would halve
        "prefix_caching": True,
        "eager": True,
    }


def test_a_template_that_is_not_jinja_ends_the_run_at_its_start(engine: Worker) -> None:
    with pytest.raises(ModelError, match="not valid Jinja"):
        engine.ask(vllm_worker.sample, [request(0)], template="{% for m in messages %}{{ oops }")


def test_a_lora_adapter_gives_what_the_merged_model_gives(
    model: Path, engine: Worker, sample: Sample, tmp_path: Path
) -> None:
    adapter = save_adapter(model, tmp_path / "adapter", rank=12)
    peft = pytest.importorskip("peft")
    merged = peft.PeftModel.from_pretrained(causal(model), adapter).merge_and_unload()
    plain = sample(request(0, n=1), temperature=0.0)["p0"]
    engine.ask(vllm_worker.stop)  # its process has another engine from here on
    engine.ask(vllm_worker.start, model, lora=adapter)
    drawn = sample(request(0, n=4))["p0"]
    greedy = sample(request(0, n=1), temperature=0.0)["p0"]
    prompt = chatml_ids(model, request(0).messages)
    for tokens, candidate in zip(drawn.tokens, drawn.result.candidates, strict=True):
        want = logprobs(merged, prompt, tokens).sum().item()
        assert candidate.logprob == pytest.approx(want, abs=LOGPROB_TOLERANCE)
        base = logprobs(causal(model), prompt, tokens).sum().item()
        assert abs(base - want) > 0.1
    likeliest = merged.generate(
        torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    assert list(greedy.tokens[0]) == likeliest[0, len(prompt) :].tolist()
    assert greedy.tokens != plain.tokens


def save_adapter(model: Path, folder: Path, *, rank: int) -> Path:
    """Save a LoRA adapter that changes what the model says."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(5)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=["q_proj", "v_proj", "down_proj"],
        init_lora_weights=False,
    )
    adapted = peft.get_peft_model(causal(model), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.15)
    adapted.save_pretrained(folder)
    return folder


def refused(bare: Worker, folder: Path, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        bare.ask(vllm_worker.load, folder, **options)
    assert caught.value.where == str(options.get("lora", folder))
    assert caught.value.why
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"<html>rate limited" * 100),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: edit_config(folder, architectures=["MysteryForCausalLM"], model_type="x"),
        lambda folder: edit_config(folder, max_position_embeddings=64),
    ],
    ids=["weights", "no weights", "config", "tokenizer", "unknown", "context"],
)
def test_a_broken_model_is_refused(
    damage: Callable[[Path], object], bare: Worker, tmp_path: Path
) -> None:
    folder = save_generator(tmp_path)
    damage(folder)
    refused(bare, folder)


def test_a_tokenizer_is_not_made_up(bare: Worker, tmp_path: Path) -> None:
    folder = save_generator(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "tokenizer" in refused(bare, folder).what


def test_no_chat_template_is_refused(bare: Worker, tmp_path: Path) -> None:
    error = refused(bare, save_generator(tmp_path, template=None))
    assert "--chat-template" in error.next_step
    assert "--raw" in error.next_step


@pytest.mark.parametrize("damage", ["no config", "config", "weights"])
def test_a_broken_adapter_is_refused_at_the_start(
    damage: str, model: Path, bare: Worker, tmp_path: Path
) -> None:
    adapter = save_adapter(model, tmp_path / "adapter", rank=4)
    config = adapter / "adapter_config.json"
    if damage == "no config":
        config.unlink()
    elif damage == "config":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"r": "four"}))
    else:
        (adapter / "adapter_model.safetensors").write_bytes(b"<html>rate limited" * 100)
    refused(bare, model, lora=adapter)
