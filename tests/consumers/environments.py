"""A virtual environment a trainer: its own version of everything that its data code checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR, ROOT

__all__ = ["TRAINERS", "Trainer", "install", "read_with"]

_NOT_TO_BE_HAD = ("No matching distribution found", "Max retries exceeded")
"""What pip says where it finds no such version for this platform or cannot ask for it (the same
text), and where a download ends in the middle."""
READERS = Path(__file__).parent / "readers"


@dataclass(frozen=True, slots=True)
class Trainer:
    """A trainer, and what its data code needs beside this repository's own environment."""

    reader: str
    requirements: tuple[str, ...]
    """Installed without what they ask for in turn: none of it is for data."""
    stand_ins: tuple[str, ...] = ()
    """Modules imported at start and never used for text, whose packages are built for CUDA."""


_TRANSFORMERS_5 = ("tokenizers==0.22.2", "huggingface_hub==1.33.0")
_OMEGACONF = ("omegaconf==2.3.1", "antlr4-python3-runtime==4.9.3")

TRAINERS = {
    "openrlhf": Trainer("read_with_openrlhf.py", ("openrlhf==0.11.2", "pylatexenc==2.11")),
    "llama-factory": Trainer(
        "read_with_llama_factory.py",
        (
            "llamafactory==0.9.5", "transformers==5.6.0", "datasets==4.0.0", "fsspec==2025.3.0",
            "peft==0.18.1", "accelerate==1.11.0", "trl==0.24.0", *_TRANSFORMERS_5, *_OMEGACONF,
        ),
        stand_ins=("torchaudio",),
    ),
    "ms-swift": Trainer(
        "read_with_ms_swift.py",
        (
            "ms-swift==4.6.0", "datasets==4.8.4", "modelscope==1.40.2", "modelscope-hub==0.5.1",
            "json-repair==0.64.5",
        ),
    ),
    "axolotl": Trainer(
        "read_with_axolotl.py",
        (
            "axolotl==0.19.0", "transformers==5.16.1", "datasets==4.8.4", "trl==1.9.0",
            "huggingface_hub==1.17.0", "addict==2.4.0", "backoff==2.2.1", "colorama==0.4.6",
            "distro==1.9.0", "fire==0.7.1", "posthog==7.91.1",
        ),
    ),
    "verl": Trainer(
        "read_with_verl.py",
        (
            "verl==0.9.1", "transformers==5.10.2", "tensordict==0.10.0", "pyvers==0.2.3",
            "ray==2.55.0", "msgpack==1.2.4", "codetiming==1.4.0", "hydra-core==1.3.8",
            *_TRANSFORMERS_5, *_OMEGACONF,
        ),
    ),
}  # fmt: skip
"""By the name of the export format."""


def read_with(name: str, data: Path, kind: str, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `data` as the trainer's own code understands them for this training.

    Skips the test where the trainer cannot be had here: see `install`.
    """
    trainer = TRAINERS[name]
    answer = folder / "understood.json"
    done = subprocess.run(
        [
            _python(name, trainer),
            READERS / trainer.reader,
            GENERATOR,
            data,
            kind,
            answer,
        ],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return list(json.loads(answer.read_text(encoding="utf-8")))


def _environment(folder: Path) -> dict[str, str]:
    caches = ("HF_HOME", "MODELSCOPE_CACHE", "XDG_CACHE_HOME")
    return {
        **os.environ,
        **{name: str(folder / "cache") for name in caches},
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _python(name: str, trainer: Trainer) -> Path:
    """Return the interpreter of the trainer's environment, made anew where its pins changed."""
    folder = Path(os.environ.get("BON_CONSUMERS_DIR", ROOT / ".consumers")) / name
    python, stamp = folder / "bin" / "python", folder / "requirements.json"
    site = sysconfig.get_path("purelib")
    wanted = json.dumps([sys.version, site, trainer.requirements, trainer.stand_ins])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(folder, clear=True, symlinks=True)
    own_site = next(folder.glob("lib/python*/site-packages"))
    # Found after the environment's own packages: torch and all that no trainer pins.
    (own_site / "zz-repository.pth").write_text(site + "\n", encoding="utf-8")
    for module in trainer.stand_ins:
        (own_site / f"{module}.py").write_text("", encoding="utf-8")
    install(name, python, trainer.requirements)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def install(name: str, python: Path, requirements: tuple[str, ...]) -> None:
    """Install a trainer's pins.

    Skips the test where the index cannot be reached or has no such version for this platform,
    unless `BON_CONSUMERS_REQUIRED` is 1; fails it where anything else goes wrong.
    """
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "-q"]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True, check=False)
    if not done.returncode:
        return
    why = f"{name} cannot be installed: {done.stderr.strip()[-2000:]}"
    if _is_required() or not any(text in done.stderr for text in _NOT_TO_BE_HAD):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def _is_required() -> bool:
    return os.environ.get("BON_CONSUMERS_REQUIRED") == "1"
