"""Which engine runs a generator in this process: vLLM or transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bon.config import INSTALL_ADVICE, GenerateSettings
from bon.errors import ModelError, SettingsError

__all__ = ["EngineChoice", "choose_engine"]

_FOR_VLLM = ("engine_args", "enforce_eager", "tensor_parallel_size")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What runs a generator, and why, for people."""

    engine: Literal["vllm", "transformers"]
    why: str


def choose_engine(
    settings: GenerateSettings, *, has_vllm: bool, has_transformers: bool
) -> EngineChoice:
    """Choose from what is installed; nothing is loaded.

    Raises:
        ModelError: the engine that was asked for, or any, is not installed.
        SettingsError: settings that only vLLM reads, and another engine.
    """
    said = settings.generator_engine
    if said == "vllm" or (said == "auto" and has_vllm):
        if not has_vllm:
            raise _missing("vLLM", "; or give --generator-engine transformers")
        return EngineChoice("vllm", _reason(said, "it is installed"))
    if not has_transformers:
        raise _missing("transformers")
    _refuse_settings_of_vllm(settings)
    return EngineChoice("transformers", _reason(said, "vLLM is not installed"))


def _reason(said: str, otherwise: str) -> str:
    return otherwise if said == "auto" else "as --generator-engine says"


def _missing(name: str, otherwise: str = "") -> ModelError:
    return ModelError(f"{name} is not installed", next_step=INSTALL_ADVICE + otherwise)


def _refuse_settings_of_vllm(settings: GenerateSettings) -> None:
    for name in _FOR_VLLM:
        if getattr(settings, name) != type(settings).model_fields[name].get_default(
            call_default_factory=True
        ):
            raise SettingsError(
                f"--{name.replace('_', '-')} does nothing here",
                why="it is for vLLM, and transformers runs the generator",
                next_step="leave it out, or give --generator-engine vllm",
            )
