"""`logprob:MODEL`: what it is planned as, what decides its scores, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR, REWARD

from bon.cli.build import scorer_settings, scoring_plans
from bon.config import ScoreSettings
from bon.errors import ModelError, ModelNotFoundError, SettingsError, UnknownChoiceError
from bon.pipeline.plans import ScoringPlan
from bon.scorers.logprob import LogprobScorer


def plan(spec: str = f"ref=logprob:{GENERATOR}", **settings: Any) -> ScoringPlan:
    (found,) = scoring_plans(ScoreSettings(reward=(spec,), **settings))
    return found


def test_a_reference_is_a_scorer_like_any_other() -> None:
    found = plan(reward_dtype="float32", reward_batch_tokens=500, reward_device="cpu")
    scorer, reference = found.scorer, found.reference
    assert isinstance(scorer, LogprobScorer)
    assert isinstance(reference, LogprobScorer)
    assert (scorer.alone, reference.alone, scorer.settings) == (False, True, reference.settings)
    said = scorer.settings
    assert (said.dtype, said.batch_tokens, said.device) == ("float32", 500, "cpu")
    assert found.reads_candidates
    assert (found.name, found.engine, found.engine_why) == ("ref", "transformers", "token tries")
    assert found.fingerprint["spec"] == "logprob:generator"


def test_the_fingerprint_holds_what_decides_the_scores(tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    plain = plan().fingerprint
    assert len(plain["digest"]) == 64
    same = [plan(reward_batch_tokens=7), plan(reward_device="cpu"), plan(reward_max_length=9)]
    assert [one.fingerprint for one in same] == [plain] * 3
    for other in (
        plan(reward_dtype="bfloat16"),
        plan(f"ref=logprob:{GENERATOR}?template={template}"),
        plan(f"ref=logprob:{GENERATOR}?revision=x"),
        plan(f"other=logprob:{GENERATOR}"),
    ):
        (key,) = (key for key in plain if other.fingerprint[key] != plain[key])
        assert key in ("dtype", "template", "revision", "name")


def test_ref_model_is_short_for_a_scorer_named_ref() -> None:
    settings = ScoreSettings(reward=("rule:exact",), ref_model=str(GENERATOR))
    rule, ref = scorer_settings(settings)
    (same,) = scorer_settings(ScoreSettings(reward=(f"ref=logprob:{GENERATOR}",)))
    assert rule.spec == "rule:exact"
    assert ref == same
    twice = settings.model_copy(update={"reward": (f"ref=logprob:{GENERATOR}",)})
    with pytest.raises(SettingsError, match="two scorers are named 'ref'"):
        scorer_settings(twice)


@pytest.mark.parametrize(
    ("spec", "kind", "said"),
    [
        ("logprob:", SettingsError, "there is no model in this scorer's spec"),
        ("logprob:x?templat=y", UnknownChoiceError, "unknown option 'templat'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    spec: str, kind: type[SettingsError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        scorer_settings(ScoreSettings(reward=(spec,)))


def test_what_is_no_language_model_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Qwen3ForSequenceClassification is not a causal"):
        plan(f"ref=logprob:{REWARD}")
    with pytest.raises(ModelNotFoundError):
        plan(f"ref=logprob:{tmp_path}/nothing")
    with pytest.raises(SettingsError, match="cannot read the file of"):
        plan(f"ref=logprob:{GENERATOR}?template={tmp_path}/nothing")
