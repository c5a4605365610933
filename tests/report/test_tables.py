from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bon.report.tables import closing_table

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e"
BOOKS: dict[str, Any] = {
    "input_rows": 1200,
    "kept_rows": 1199,
    "output_rows": 1199,
    "drops": {},
    "candidate_drops": {},
    "drop_examples": [],
    "stages": [],
    "pool": None,
}
EXAMPLE = {"reason": "empty", "detail": "no text", "where": "a.jsonl:3", "id": "p", "candidate": 2}


def printed(capsys: pytest.CaptureFixture[str], title: str = "best", **facts: Any) -> list[str]:
    closing_table(title, BOOKS | facts)
    captured = capsys.readouterr()
    assert captured.out == ""
    return [line.rstrip() for line in captured.err.splitlines()]


def cells(lines: list[str]) -> list[tuple[str, str]]:
    """Name and value of each row of the table, in order."""
    rows = [line.split("│")[1:3] for line in lines if line.startswith("│")]
    return [(name[1:].rstrip(), value.strip()) for name, value in rows]


def after(lines: list[str]) -> list[str]:
    """What stands below the table."""
    (end,) = (number for number, line in enumerate(lines) if line.startswith("└"))
    return lines[end + 1 :]


def test_the_books(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(
        capsys,
        drops={"bad_json": 2, "no_prompt": 1},
        candidates=4800,
        candidate_drops={"empty": 3},
        ties=7,
    )
    assert lines[0].strip() == "best"
    assert cells(lines) == [
        ("input rows", "1,200"),
        ("prompts kept", "1,199"),
        ("dropped", "3"),
        ("  bad_json", "2"),
        ("  no_prompt", "1"),
        ("candidates", "4,800"),
        ("  empty", "3"),
        ("prompts with a tie", "7"),
    ]
    assert after(lines) == []


def test_stages_rewards_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(
        capsys,
        stages=[
            {"name": "generate", "num_parts_done": 2, "num_tokens": 3000, "run_s": 1.5,
             "tokens_per_s": 2000.0},
            {"name": "score", "num_parts_done": 0, "num_tokens": 0, "run_s": 0.0,
             "tokens_per_s": None},
        ],
        mean_reward_all=-0.5, mean_reward_chosen=1.0, lift=1.5,
        accuracy_random=0.25, accuracy_chosen=0.5,
    )  # fmt: skip
    assert cells(lines)[3:] == [
        ("generate", "3,000 tokens in 1.5 s, 2,000 tokens/s"),
        ("score", "nothing to do"),
        ("mean reward, all", "-0.5000"),
        ("mean reward, chosen", "1.0000"),
        ("lift", "+1.5000"),
        ("right, a random candidate", "25.0%"),
        ("right, the chosen", "50.0%"),
        ("gain", "+25.0 points"),
    ]


def test_a_rule_reads_no_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    stage = {
        "name": "score exact", "num_parts_done": 2, "num_candidates": 4800, "num_tokens": 0,
        "run_s": 0.25, "tokens_per_s": 0.0,
    }  # fmt: skip
    lines = printed(capsys, stages=[stage])
    assert cells(lines)[3:] == [("score exact", "4,800 candidates in 0.2 s")]


@pytest.mark.parametrize(
    ("computed", "saved", "text"),
    [
        (1170, 0.61, "1,170 tokens, saved 61 %"),
        (3000, 0.0, "3,000 tokens, saved 0 %"),
        (3360, -0.12, "3,360 tokens, 12 % more than given"),
        (5, None, "5 tokens"),
    ],
)
def test_computed_tokens(
    capsys: pytest.CaptureFixture[str], computed: int, saved: float | None, text: str
) -> None:
    stage = {
        "name": "score", "num_parts_done": 2, "num_tokens": 3000, "run_s": 1.5,
        "tokens_per_s": 2000.0, "num_tokens_computed": computed, "share_saved": saved,
    }  # fmt: skip
    lines = printed(capsys, stages=[stage])
    assert cells(lines)[3:] == [
        ("score", "3,000 tokens in 1.5 s, 2,000 tokens/s"),
        ("  computed", text),
    ]


def test_a_lack_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    stage = {
        "name": "score", "num_parts_done": 2, "num_tokens": 3000, "run_s": 1.5,
        "tokens_per_s": 2000.0, "num_tokens_computed": 0, "halved_batch_tokens": None,
    }  # fmt: skip
    assert len(cells(printed(capsys, stages=[stage]))) == 4
    lines = printed(capsys, stages=[stage | {"halved_batch_tokens": 4096}])
    assert cells(lines)[4:] == [("  out of memory, halved to", "4,096 tokens a batch")]


VERIFIED: dict[str, Any] = {
    "seed": 0, "num_candidates": 20, "num_failed": 0, "num_prompts": 12,
    "largest_difference": 0.0123,
    "largest_at": {"prompt_id": "p3", "candidate": 2, "score": 1.5, "reference": 1.4877},
    "num_rankings_changed": 0, "rankings_changed": [], "failures": [],
}  # fmt: skip


def test_verified_scores(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, verified={"reward": VERIFIED})
    assert cells(lines)[3:] == [
        ("verified reward", "20 candidates of 12 prompts"),
        ("  largest difference", "0.012"),
        ("  rankings that would change", "0 of 12"),
    ]
    assert after(lines) == [
        "  verified reward: the largest difference is that of id=p3 candidate 2: 1.5 stored, "
        "1.4877 alone"
    ]


def test_a_ranking_that_would_change_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    changed = {"num_rankings_changed": 4, "rankings_changed": ["p3", "p1", "p7", "p8"]}
    lines = printed(capsys, verified={"reward": VERIFIED | changed})
    assert cells(lines)[-1] == ("  rankings that would change", "4 of 12")
    _, warning, small, large = after(lines)
    assert warning.startswith("  warning: ")
    assert warning.endswith("id=p3, id=p1, id=p7 and 1 more")
    assert "--reward-dtype float32" in small
    assert "delete scores/reward" in large


def test_a_reference_that_failed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"prompt_id": "p3", "candidate": 2, "reason": "template_error", "detail": "no user"}
    nothing = {"num_failed": 1, "failures": [failure], "largest_difference": None}
    lines = printed(capsys, verified={"reward": VERIFIED | nothing})
    assert cells(lines)[3:] == [
        ("verified reward", "20 candidates of 12 prompts"),
        ("  not scored by the reference", "1"),
    ]
    assert after(lines) == [
        "  verified reward: no score alone for id=p3 candidate 2: template_error: no user"
    ]


def test_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(
        capsys, pairs=1300, pair_drops={"tie": 101}, mean_margin=0.25, output="p.parquet"
    )
    assert cells(lines)[3:] == [
        ("pairs formed", "1,300"),
        ("  tie", "101"),
        ("pairs kept", "1,199"),
        ("mean margin", "0.250"),
        ("written", "1,199 rows"),
    ]
    assert after(lines) == ["  written to p.parquet"]


def test_filters(capsys: pytest.CaptureFixture[str]) -> None:
    filters = [
        {"name": "length", "num_in": 1200, "num_kept": 1100, "num_dropped": 100},
        {"name": "agreement", "num_in": 1100, "num_kept": 1099, "num_dropped": 1, "num_flipped": 4},
    ]
    lines = printed(capsys, filters=filters, pairs=1200, dropped="gone.parquet")
    assert cells(lines)[3:] == [
        ("length", "1,100 of 1,200, 100 dropped"),
        ("agreement", "1,099 of 1,100, 1 dropped, 4 flipped"),
    ]
    assert after(lines) == ["  what was filtered out is in gone.parquet"]


def test_several_files_and_splits(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(
        capsys,
        output="set",
        written_rows={"train": 1100, "test": 99},
        merged_rows={"train": 5, "test": 1},
        files=[f"set/{number}.parquet" for number in range(6)],
    )
    assert cells(lines)[3:] == [
        ("written", "1,100 rows"),
        ("written, test", "99 rows"),
        ("merged, same prompt/response", "6 rows"),
    ]
    assert after(lines) == [f"  written to set/{number}.parquet" for number in range(4)]


def test_drops_are_told_and_the_pool_has_the_rest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "drops").mkdir()
    facts = {"drops": {"no_prompt": 2}, "candidate_drops": {"empty": 1}, "pool": str(tmp_path)}
    lines = printed(
        capsys, **facts, drop_examples=[EXAMPLE, EXAMPLE | {"id": "", "candidate": None}]
    )
    assert after(lines) == [
        "  dropped a.jsonl:3 id=p candidate 2: empty: no text",
        "  dropped a.jsonl:3: empty: no text",
        "  … and 1 more",
        f"  what could not be read, sampled or scored is listed in {tmp_path}/drops",
    ]


def test_nobody_is_sent_to_a_list_of_drops_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    facts = {"candidate_drops": {"empty": 1}, "drop_examples": [EXAMPLE]}
    told = ["  dropped a.jsonl:3 id=p candidate 2: empty: no text"]
    assert after(printed(capsys, **facts)) == told
    assert after(printed(capsys, **facts, pool=str(tmp_path))) == told


@pytest.mark.parametrize(
    "facts",
    [
        {"title": f"pool {EVIL}"},
        {"drops": {EVIL: 1}},
        {"candidate_drops": {EVIL: 1}},
        {"pairs": 0, "pair_drops": {EVIL: 1}},
        {"filters": [{"name": EVIL, "num_in": 1, "num_kept": 1, "num_dropped": 0}]},
        {"stages": [{"name": EVIL, "num_parts_done": 0}]},
        {"verified": {EVIL: VERIFIED}},
        {
            "verified": {
                "r": VERIFIED | {"largest_at": VERIFIED["largest_at"] | {"prompt_id": EVIL}}
            }
        },
        {"verified": {"r": VERIFIED | {"num_rankings_changed": 1, "rankings_changed": [EVIL]}}},
        {"output": EVIL},
        {"output": "x", "written_rows": {EVIL: 1}},
        {"dropped": EVIL},
        *(
            {"drop_examples": [EXAMPLE | {key: EVIL}]}
            for key in ("id", "where", "reason", "detail")
        ),
    ],
)
def test_no_text_of_the_data_controls_the_terminal(
    facts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = "".join(printed(capsys, **facts))  # a title is wrapped
    assert "\\x1b[2J\\x1b]0;owned\\x07\\u202e" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_a_line_is_one_line_and_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    example = EXAMPLE | {"id": "x\nwritten to y", "detail": "[bold]:smile:"}
    lines = printed(capsys, "[red]best", drops={"[b]": 1}, drop_examples=[example])
    assert lines[0].strip() == "[red]best"
    assert cells(lines)[3:] == [("  [b]", "1")]
    assert after(lines) == [
        "  dropped a.jsonl:3 id=x\\nwritten to y candidate 2: empty: [bold]:smile:"
    ]


def test_servers_that_were_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    stage = {
        "name": "score", "num_parts_done": 2, "num_tokens": 3000, "run_s": 1.5,
        "tokens_per_s": 2000.0, "num_tokens_computed": 0, "halved_batch_tokens": None,
    }  # fmt: skip
    assert len(cells(printed(capsys, stages=[stage | {"retries": {}}]))) == 4
    lines = printed(capsys, stages=[stage | {"retries": {"connection": 2, "429": 1010}}])
    assert cells(lines)[4:] == [("  asked again", "1,012 times: 429 ×1,010, connection ×2")]
