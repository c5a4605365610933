"""Wrong and worthless responses made up on purpose, so that the reward model knows their kind."""

from __future__ import annotations

import random

from . import tasks

GARBAGE_RATE = 0.25
GARBAGE = ("", " ", "The answer is", "It is .", "I do not know.", "Hello!", "...", "??", "1 2 3")
WORDS = ("the", "answer", "number", "is", "digits", "of", "and", "what", "it", "times", "how")


def near_miss(rng: random.Random, task: tasks.Task) -> str:
    """Return a wrong answer that looks like the right one."""
    edits = (change_digit, swap_digits, drop_digit, repeat_digit, shift_value, copy_operand)
    while True:
        wrong = rng.choice(edits)(rng, task)
        if wrong not in ("", task.answer):
            return wrong


def change_digit(rng: random.Random, task: tasks.Task) -> str:
    """Return the answer with one digit replaced."""
    i = rng.randrange(len(task.answer))
    return task.answer[:i] + rng.choice("0123456789") + task.answer[i + 1 :]


def swap_digits(rng: random.Random, task: tasks.Task) -> str:
    """Return the answer with two neighbouring digits swapped."""
    i = rng.randrange(len(task.answer))
    return task.answer[:i] + task.answer[i : i + 2][::-1] + task.answer[i + 2 :]


def drop_digit(rng: random.Random, task: tasks.Task) -> str:
    """Return the answer with one digit left out."""
    i = rng.randrange(len(task.answer))
    return task.answer[:i] + task.answer[i + 1 :]


def repeat_digit(rng: random.Random, task: tasks.Task) -> str:
    """Return the answer with one digit written twice."""
    i = rng.randrange(len(task.answer))
    return task.answer[:i] + task.answer[i] + task.answer[i:]


def shift_value(rng: random.Random, task: tasks.Task) -> str:
    """Return the answer moved by one, two or ten."""
    return str(abs(int(task.answer) + rng.choice((-10, -2, -1, 1, 2, 10))))


def copy_operand(rng: random.Random, task: tasks.Task) -> str:
    """Return a number out of the question."""
    numbers = [word.strip("?.,:") for word in task.prompt.split()]
    return rng.choice([word for word in numbers if word.isdigit()])


def garbage(rng: random.Random, task: tasks.Task) -> str:
    """Return an empty, truncated, babbling or self-contradicting response."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(GARBAGE)
    if kind == 1:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))
    response = tasks.response_text(rng, task.answer)
    if kind == 2:
        return response[: rng.randrange(max(1, response.rfind(task.answer[-1])))]
    return f"{response} {tasks.response_text(rng, near_miss(rng, task))}"


def wrong_response(rng: random.Random, task: tasks.Task) -> str:
    """Return a made-up response that is not right: mostly a near miss, sometimes garbage."""
    while True:
        if rng.random() < GARBAGE_RATE:
            response = garbage(rng, task)
        else:
            response = tasks.response_text(rng, near_miss(rng, task))
        if not tasks.is_right(task, response):
            return response
