"""Settings: frozen pydantic models whose fields are the flags and the keys of a config file.

A field `num_candidates` is the flag `--num-candidates` and the key `num_candidates`; the sentence
under it is its help. Order: defaults < config file < flags. Validating does no I/O.
"""

from bon.config.base import Flag, Settings, read_config_file, resolve
from bon.config.curation import (
    ExportSettings,
    FilterCommandSettings,
    PairSettings,
    RankingSettings,
    ResponseSettings,
    SelectSettings,
)
from bon.config.making import (
    DEFAULT_MODEL,
    DEFAULT_REWARD,
    INSTALL_ADVICE,
    GenerateSettings,
    InputSettings,
    RunSettings,
    ScorerSettings,
    ScoreSettings,
    VerifySettings,
)

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_REWARD",
    "GROUPS",
    "INSTALL_ADVICE",
    "ExportSettings",
    "FilterCommandSettings",
    "Flag",
    "GenerateSettings",
    "InputSettings",
    "PairSettings",
    "RankingSettings",
    "ResponseSettings",
    "RunSettings",
    "ScoreSettings",
    "ScorerSettings",
    "SelectSettings",
    "Settings",
    "VerifySettings",
    "known_keys",
    "read_config_file",
    "resolve",
]

GROUPS: dict[str, tuple[type[Settings], ...]] = {
    "select": (
        InputSettings,
        GenerateSettings,
        ScoreSettings,
        RankingSettings,
        SelectSettings,
        ExportSettings,
        RunSettings,
    ),
    "generate": (InputSettings, GenerateSettings, RunSettings),
    "score": (
        InputSettings,
        ResponseSettings,
        GenerateSettings,
        ScoreSettings,
        VerifySettings,
        RunSettings,
    ),
    "build-dpo": (
        InputSettings,
        ResponseSettings,
        GenerateSettings,
        ScoreSettings,
        RankingSettings,
        PairSettings,
        ExportSettings,
        RunSettings,
    ),
    "filter": (
        InputSettings,
        ResponseSettings,
        GenerateSettings,
        ScoreSettings,
        RankingSettings,
        FilterCommandSettings,
        ExportSettings,
        RunSettings,
    ),
    "convert": (InputSettings, ResponseSettings, ExportSettings, RunSettings),
    "validate": (
        InputSettings,
        ResponseSettings,
        GenerateSettings,
        ScoreSettings,
        RankingSettings,
        ExportSettings,
        RunSettings,
    ),
}
"""The groups of each command."""


def known_keys() -> dict[str, set[str]]:
    """Return the keys that each command takes from a config file."""
    return {
        command: {name for group in groups for name in group.model_fields}
        for command, groups in GROUPS.items()
    }
