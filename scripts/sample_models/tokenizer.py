"""The sample models' tokenizer: byte-level BPE, every digit a token of its own, ChatML."""

from __future__ import annotations

import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from . import tasks

VOCAB_SIZE = 512
MAX_NUM_TOKENS = 4096
SPECIAL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
SYSTEM_PROMPT = "You are a helpful assistant."

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ENGLISH = """
system user assistant You are a helpful assistant. Please solve the problem step by step and give
the final answer at the end. There are many people who buy and sell things in the market every day.
If she makes some of them in the morning and the rest in the afternoon, how much money does she earn
each week? He has twice as many books as his sister, and their friends have more than both of them.
Write a short story about a journey to an island that you have read about. Explain what the words
mean and why it would matter. How long will it take for the train to reach the station? They were
not able to finish their work before the other team came back from the school. What is the total
cost of these items after the discount, and how many of those would be left over for the next month?
"""


def training_texts(seed: int, num_tasks: int = 2000) -> list[str]:
    """Return what the merges are learned from: task prompts, responses and some English."""
    rng = random.Random(seed)
    texts = [ENGLISH] * 20
    for _ in range(num_tasks):
        task = tasks.draw_task(rng, "train", rng.choice(tasks.FAMILIES))
        texts += [task.prompt, tasks.response_text(rng, task.answer), "user", "assistant", "system"]
    return texts


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the vocabulary has every byte, so any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_NUM_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def render(
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    response: str | None = None,
    system_prompt: str | None = None,
) -> str:
    """Return the templated conversation; without a response it ends where one would begin."""
    messages = [{"role": "user", "content": prompt}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    if response is not None:
        messages.append({"role": "assistant", "content": response})
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=response is None
    )
    return text
