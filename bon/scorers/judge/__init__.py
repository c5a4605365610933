"""Judges: language models that are asked how good a response is."""

from bon.scorers.judge.options import PREFIX, SERVER, JudgeOptions, is_server
from bon.scorers.judge.scorer import JudgeScorer
from bon.scorers.judge.templates import Question, read_question

__all__ = [
    "PREFIX",
    "SERVER",
    "JudgeOptions",
    "JudgeScorer",
    "Question",
    "is_server",
    "read_question",
]
