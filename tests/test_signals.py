"""Signals to a process that has taken them over; tests/faults/test_signals.py has the commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import os, signal, subprocess, sys, threading, time
from bon import signals
signals.take_over()
def send(name):
    os.kill(os.getpid(), signal.Signals[name])
"""


def run(body: str) -> tuple[int, str]:
    """Return the exit code of a program, and what it wrote on both streams."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + body], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_first_raises_and_second_ends_at_once(name: str) -> None:
    body = f"""
try:
    send({name!r})
except signals.Interrupted as stop:
    print(signal.Signals(stop.number).name, flush=True)
    try:
        send("SIGTERM")
    finally:
        print("too late", flush=True)
"""
    code, said = run(body)
    assert said == f"{name}\ninterrupted; what is committed stays, the same command goes on\n"
    assert code == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}[name]


def test_held_signals_come_at_the_end_of_the_block() -> None:
    body = """
try:
    with signals.held():
        with signals.held():
            send("SIGTERM")
        print("inside", flush=True)
    print("behind", flush=True)
except signals.Interrupted:
    print("stopped", flush=True)
"""
    assert run(body) == (0, "inside\nstopped\n")


def test_a_process_that_is_started_meanwhile_has_them_blocked() -> None:
    body = """
code = "import signal; print(sorted(int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
with signals.held():
    subprocess.run([sys.executable, "-c", code])
subprocess.run([sys.executable, "-c", code])
"""
    assert run(body) == (0, "[1, 2, 15]\n[]\n")


def test_a_signal_in_a_destructor_is_not_lost_and_shows_no_trace() -> None:
    body = """
class Deaf:
    def __del__(self):
        send("SIGTERM")
        for _ in range(1000):
            pass
try:
    Deaf()
    time.sleep(20)
except signals.Interrupted as stop:
    print("stopped by", stop.number, flush=True)
"""
    assert run(body) == (0, "stopped by 15\n")


def test_errors_in_destructors_are_shown_as_ever() -> None:
    code, said = run("class A:\n    def __del__(self): 1 / 0\nA()\n")
    assert code == 0
    assert "ZeroDivisionError" in said


def test_once_all_is_done_a_signal_only_ends_the_process() -> None:
    code, said = run("signals.ending()\nsend('SIGINT')\nprint('later')\n")
    assert code == 130
    assert "Traceback" not in said and "later" not in said
