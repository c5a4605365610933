"""Short tasks with a checkable answer, in plain English: five families, one number each.

A task belongs to the training, development or held-out side by a hash of what is asked (family and
operands, not the wording), so a held-out task is never trained on in any phrasing.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "dev", "test"]

FAMILIES = ("addition", "sorting", "reversing", "counting", "comparing")
TEST_PERCENT = 8
DEV_PERCENT = 4

RESPONSE_STYLES = (
    "The answer is {answer}.",
    "It is {answer}.",
    "That gives {answer}.",
    "After working it out, I get {answer}.",
    "{answer}",
)


@dataclass(frozen=True)
class Task:
    """One question: `key` says what is asked whatever the wording, and decides the split."""

    family: str
    key: str
    prompt: str
    answer: str

    @property
    def split(self) -> Split:
        """The side of the held-out line that this task's key falls on."""
        return split_of(self.key)


def split_of(key: str) -> Split:
    """Return the split that the hash of `key` falls into."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "dev" if bucket < TEST_PERCENT + DEV_PERCENT else "train"


def random_digits(rng: random.Random, num_digits: int, alphabet: str = "123456789") -> str:
    """Return `num_digits` digits drawn from `alphabet` (no zeros unless it has them)."""
    return "".join(rng.choice(alphabet) for _ in range(num_digits))


def make_addition(rng: random.Random) -> Task:
    """Draw a sum of two numbers of one to three digits."""
    a, b = (rng.randint(10 ** (k - 1), 10**k - 1) for k in rng.choices((1, 2, 3), (2, 5, 2), k=2))
    phrasings = (f"What is {a} + {b}?", f"Add {a} and {b}.", f"Calculate the sum of {a} and {b}.")
    low, high = sorted((a, b))
    return Task("addition", f"addition {low} {high}", rng.choice(phrasings), str(a + b))


def make_sorting(rng: random.Random) -> Task:
    """Draw a number of three to seven digits whose digits are to be put in order."""
    digits = random_digits(rng, rng.randint(3, 7))
    order = rng.choice(("ascending", "descending"))
    range_words = "smallest to largest" if order == "ascending" else "largest to smallest"
    phrasings = (
        f"Write the digits of {digits} in {order} order.",
        f"Sort the digits of {digits} from {range_words}.",
        f"Put the digits of {digits} into {order} order.",
    )
    answer = "".join(sorted(digits, reverse=order == "descending"))
    return Task("sorting", f"sorting {order} {digits}", rng.choice(phrasings), answer)


def make_reversing(rng: random.Random) -> Task:
    """Draw a number of three to eight digits that is to be read backwards."""
    digits = random_digits(rng, rng.randint(3, 8))
    phrasings = (
        f"Reverse the digits of {digits}.",
        f"Write {digits} backwards.",
        f"What do you get if you read {digits} from right to left?",
    )
    return Task("reversing", f"reversing {digits}", rng.choice(phrasings), digits[::-1])


def make_counting(rng: random.Random) -> Task:
    """Draw a number of three to nine digits, few of them distinct, and one digit to count."""
    alphabet = "".join(rng.sample("123456789", rng.randint(2, 4)))
    digits = random_digits(rng, rng.randint(3, 9), alphabet)
    digit = rng.choice(alphabet)
    phrasings = (
        f"How many times does the digit {digit} appear in {digits}?",
        f"Count how often {digit} occurs in {digits}.",
        f"In the number {digits}, how many digits are equal to {digit}?",
    )
    key = f"counting {digit} {digits}"
    return Task("counting", key, rng.choice(phrasings), str(digits.count(digit)))


def make_comparing(rng: random.Random) -> Task:
    """Draw three to five look-alike numbers, the largest or smallest of which is asked for."""
    num_digits = rng.randint(2, 4)
    alphabet = "".join(rng.sample("123456789", num_digits + 1))
    numbers: list[str] = []
    for _ in range(rng.randint(3, 5)):
        number = random_digits(rng, num_digits, alphabet)
        if number not in numbers:
            numbers.append(number)
    if len(numbers) < 2:
        return make_comparing(rng)
    which = rng.choice(("largest", "smallest"))
    head, last = ", ".join(numbers[:-1]), numbers[-1]
    phrasings = (
        f"Which number is the {which}: {head} or {last}?",
        f"Find the {which} of {head} and {last}.",
        f"Of the numbers {head} and {last}, which is the {which}?",
    )
    key = " ".join(["comparing", which, *sorted(numbers)])
    answer = max(numbers) if which == "largest" else min(numbers)
    return Task("comparing", key, rng.choice(phrasings), answer)


MAKERS: dict[str, Callable[[random.Random], Task]] = {
    "addition": make_addition,
    "sorting": make_sorting,
    "reversing": make_reversing,
    "counting": make_counting,
    "comparing": make_comparing,
}


def draw_task(rng: random.Random, split: Split, family: str) -> Task:
    """Draw tasks of `family` until one falls on the wanted side of the split."""
    while True:
        task = MAKERS[family](rng)
        if task.split == split:
            return task


def unique_tasks(rng: random.Random, split: Split, num_per_family: int) -> Iterator[Task]:
    """Yield `num_per_family` tasks of each family, no two of them asking the same."""
    for family in FAMILIES:
        keys: set[str] = set()
        while len(keys) < num_per_family:
            task = draw_task(rng, split, family)
            if task.key not in keys:
                keys.add(task.key)
                yield task


def parse(prompt: str) -> tuple[str, str]:
    """Return the key and the answer of a prompt, worked out anew from its words."""
    numbers = re.findall(r"\d+", prompt)
    if re.search(r"\+|\b[Aa]dd\b|\bsum\b", prompt):
        low, high = sorted(map(int, numbers))
        return f"addition {low} {high}", str(low + high)
    if re.search("backwards|Reverse|right to left", prompt):
        return f"reversing {numbers[0]}", "".join(reversed(numbers[0]))
    if re.search("ascending|descending|smallest to|largest to", prompt):
        falling = re.search("descending|largest to", prompt) is not None
        order = "descending" if falling else "ascending"
        answer = "".join(sorted(numbers[0], reverse=falling))
        return f"sorting {order} {numbers[0]}", answer
    if re.search("How many|how many|how often", prompt):
        digit, digits = sorted(numbers, key=len)
        return f"counting {digit} {digits}", str(sum(d == digit for d in digits))
    which = "largest" if "largest" in prompt else "smallest"
    values = sorted(map(int, numbers))
    key = " ".join(["comparing", which, *sorted(numbers)])
    return key, str(values[-1] if which == "largest" else values[0])


def response_text(rng: random.Random, answer: str) -> str:
    """Return a reference response: the answer in one of a few wordings."""
    return rng.choice(RESPONSE_STYLES).format(answer=answer)


def last_number(response: str) -> str | None:
    """Return the last run of digits in a response, or None where there is none."""
    numbers = re.findall(r"\d+", response)
    return numbers[-1] if numbers else None


def is_right(task: Task, response: str) -> bool:
    """Say whether the last number in the response is the task's answer."""
    return last_number(response) == task.answer
