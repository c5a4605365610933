"""What tests of several folders share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.tiny_models import save_generator, save_reward

for number in (signal.SIGINT, signal.SIGHUP):
    # a shell's background job ignores them, and whatever it starts does too: no test could send one
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generator `gen` and a reward model `rm`, to be copied, not changed."""
    folder = tmp_path_factory.mktemp("models")
    save_generator(folder / "gen")
    save_reward(folder / "rm")
    return folder
