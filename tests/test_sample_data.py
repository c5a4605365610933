"""The sample models and prompts: complete, small, held out, and as good as their report says."""

import importlib
import json
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_DATA = ROOT / "sample_data"
GENERATOR = SAMPLE_DATA / "models" / "generator"
REWARD = SAMPLE_DATA / "models" / "reward"
MAX_FOLDER_BYTES = 4_000_000

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def scripts_module(name):
    scripts = str(ROOT / "scripts")
    if scripts not in sys.path:
        sys.path.insert(0, scripts)
    return importlib.import_module(f"sample_models.{name}")


tasks = scripts_module("tasks")


@pytest.fixture(scope="module")
def rows():
    lines = (SAMPLE_DATA / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def report():
    return json.loads((SAMPLE_DATA / "models" / "REPORT.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(GENERATOR)


@pytest.fixture(scope="module")
def generator():
    return transformers.AutoModelForCausalLM.from_pretrained(GENERATOR)


@pytest.fixture(scope="module")
def reward_model():
    return transformers.AutoModelForSequenceClassification.from_pretrained(REWARD)


def test_prompts_are_many_and_their_ids_unique(rows):
    assert len(rows) >= 300
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert {row["family"] for row in rows} == set(tasks.FAMILIES)


def test_answers_follow_from_the_prompts(rows):
    for row in rows:
        assert tasks.parse(row["prompt"])[1] == row["answer"], row


def test_prompts_are_held_out(rows):
    for row in rows:
        assert tasks.split_of(tasks.parse(row["prompt"])[0]) == "test", row


@pytest.mark.parametrize("split", ["train", "dev"])
def test_drawn_tasks_never_ask_what_is_held_out(rows, split):
    held_out = {tasks.parse(row["prompt"])[0] for row in rows}
    rng = random.Random(7)
    for _ in range(2000):
        task = tasks.draw_task(rng, split, rng.choice(tasks.FAMILIES))
        assert tasks.parse(task.prompt) == (task.key, task.answer)
        assert task.key not in held_out


def test_order_of_summands_does_not_change_the_split():
    assert tasks.parse("What is 47 + 85?")[0] == tasks.parse("Add 85 and 47.")[0]


def test_made_up_wrong_responses_are_wrong():
    negatives = scripts_module("negatives")
    rng = random.Random(3)
    for _ in range(500):
        task = tasks.draw_task(rng, "train", rng.choice(tasks.FAMILIES))
        assert not tasks.is_right(task, negatives.wrong_response(rng, task))


def test_process_labels_turn_off_at_the_first_wrong_digit():
    still_right_labels = scripts_module("reward").still_right_labels
    digit_ids = {1, 2, 3}
    in_response = [False, True, True, True, True]
    assert still_right_labels([9, 8, 1, 2, 7], in_response, [1, 2], digit_ids) == [0, 1, 1, 1, 1]
    assert still_right_labels([9, 8, 1, 3, 7], in_response, [1, 2], digit_ids) == [0, 1, 1, 0, 0]
    assert still_right_labels([9, 8, 1, 7, 7], in_response, [1, 2], digit_ids) == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("folder", [GENERATOR, REWARD], ids=lambda folder: folder.name)
def test_model_folders_are_small_and_complete(folder):
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert sum(files.values()) < MAX_FOLDER_BYTES
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)


@pytest.mark.parametrize("folder", [GENERATOR, REWARD], ids=lambda folder: folder.name)
def test_chat_template_renders_chatml(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 4 + 85?"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 4 + 85?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_every_digit_is_a_token_and_any_text_survives(tokenizer):
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    text = "naïve 東京 🙂 x_1"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_generator_answers_easy_prompts_greedily(generator, tokenizer, rows):
    sampling = scripts_module("sampling")
    easy = sorted(
        (row for row in rows if row["family"] in ("sorting", "reversing")),
        key=lambda row: len(row["answer"]),
    )[:12]
    responses = sampling.sample_responses(
        generator, tokenizer, [row["prompt"] for row in easy], 1, greedy=True
    )
    right = [
        tasks.last_number(texts[0]) == row["answer"]
        for row, texts in zip(easy, responses, strict=True)
    ]
    assert sum(right) >= 9


def test_reward_model_prefers_right_answers(reward_model, tokenizer, rows):
    score_responses = scripts_module("reward").score_responses
    chosen = rows[:: len(rows) // 20][:20]
    right = [(row["prompt"], f"The answer is {row['answer']}.") for row in chosen]
    wrong = [(row["prompt"], f"The answer is {int(row['answer']) + 11}.") for row in chosen]
    empty = [(row["prompt"], "") for row in chosen]
    rewards = score_responses(reward_model, tokenizer, right + wrong + empty)
    assert sum(a > b for a, b in zip(rewards[:20], rewards[20:40], strict=True)) >= 17
    assert sum(a > b for a, b in zip(rewards[:20], rewards[40:], strict=True)) >= 19


def test_reward_does_not_depend_on_padding(reward_model, tokenizer, rows):
    score_responses = scripts_module("reward").score_responses
    conversations = [(row["prompt"], f"It is {row['answer']}.") for row in rows[::40]]
    together = score_responses(reward_model, tokenizer, conversations)
    alone = [score_responses(reward_model, tokenizer, [pair])[0] for pair in conversations]
    assert together == pytest.approx(alone, abs=1e-3)


def test_report_is_within_bounds(report):
    held_out = report["held_out"]
    assert not report["quick"]
    assert report["wall_s"] < 40 * 60
    assert 0.40 <= held_out["generator_accuracy"]["overall"] <= 0.65
    assert held_out["pair_accuracy"]["overall"] >= 0.85
    gain = held_out["best_of_n_accuracy"]["overall"] - held_out["random_candidate_accuracy"]
    assert gain >= 0.15


@pytest.mark.parametrize("name", ["generator", "reward"])
def test_report_describes_the_files(report, name):
    folder = SAMPLE_DATA / "models" / name
    assert report[name]["size_bytes"] == sum(file.stat().st_size for file in folder.iterdir())
