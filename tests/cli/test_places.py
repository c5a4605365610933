from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import GENERATOR, REWARD, bon, pool_files
from support.fakes import Run, prompt

from bon.cli.places import check_places, default_pool, input_stem
from bon.errors import InputNotFoundError, SettingsError
from bon.sources.locate import find_files


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("a/data.v1.jsonl", "data.v1"),
        ("data.v2.jsonl.gz", "data.v2"),
        ("gsm8k.train-0.5.jsonl", "gsm8k.train-0.5"),
        ("org/name-1.5b", "name-1.5b"),
        ("folder/", "folder"),
        ("data/*.parquet", "prompts"),
        ("out/train.pool", "train"),
        ("out/train.pool/", "train"),
    ],
)
def test_outputs_take_the_whole_name_of_their_input(source: str, stem: str) -> None:
    assert input_stem(source) == stem
    assert default_pool(source, Path("out/x.parquet")) == Path("out") / f"{stem}.pool"


def test_an_output_in_the_input_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.parquet").touch()
    (folder / "a.jsonl").touch()

    check_places(str(folder), tmp_path / "best.parquet", tmp_path / "data.pool")
    check_places(str(folder / "a.jsonl"), folder / "best.parquet", folder / "a.pool")
    for source, written in [
        (folder, folder / "best.parquet"),
        (folder, folder / "deep" / "data.pool"),
        (folder / "a.parquet", folder / "a.parquet"),
        (folder / "*.parquet", folder / "best.parquet"),
    ]:
        with pytest.raises(SettingsError, match="would lie in the input"):
            check_places(str(source), written)


def tree(folder: Path) -> None:
    """`d` with a file in it and one in `d/deep`; `link` and `x/link` are other ways to `d`."""
    (folder / "d" / "deep").mkdir(parents=True)
    for name in ("d/a.jsonl", "d/deep/b.jsonl"):
        (folder / name).touch()
    (folder / "link").symlink_to("d")
    (folder / "x").mkdir()
    (folder / "x" / "link").symlink_to("../d")


MATCHED = [
    ("link/*.jsonl", "link/out.jsonl"),
    ("link/*.jsonl", "d/out.jsonl"),
    ("d/*.jsonl", "link/out.jsonl"),
    ("d/../link/*.jsonl", "d/out.jsonl"),
    ("*/*.jsonl", "d/out.jsonl"),
    ("*/*.jsonl", "new/out.jsonl"),
    ("l*/*.jsonl", "d/out.jsonl"),
    ("l*/d*/*.jsonl", "d/d2/out.jsonl"),
    ("**/*.jsonl", "out.jsonl"),
    ("d/**/*.jsonl", "d/out.jsonl"),
    ("d/**/*.jsonl", "d/new/deep/out.jsonl"),
    ("d/**", "d/new/out.jsonl"),
    ("x/**/*.jsonl", "d/new/out.jsonl"),
    ("x/*/*.jsonl", "d/out.jsonl"),
    ("d/[!x].jsonl", "d/o.jsonl"),
]
UNMATCHED = [
    ("d/*.jsonl", "d/sub/out.jsonl"),
    ("d/*.jsonl", "d/out.parquet"),
    ("d/*.jsonl", "out.jsonl"),
    ("d/*.jsonl", "d/.out.jsonl"),
    ("*/*.jsonl", "d/sub/out.jsonl"),
    ("*/*.jsonl", "out.jsonl"),
    ("d/**/*.jsonl", "d/.hidden/out.jsonl"),
    ("d/**/b.jsonl", "d/out.jsonl"),
    ("d/[!x].jsonl", "d/x.jsonl"),
]


@pytest.mark.parametrize(("pattern", "written"), MATCHED + UNMATCHED)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_pattern_guards_what_it_would_match(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    written: str,
    is_absolute: bool,
) -> None:
    tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    source = f"{tmp_path}/{pattern}" if is_absolute else pattern
    if (pattern, written) in UNMATCHED:
        check_places(source, Path(written))
    else:
        with pytest.raises(SettingsError, match="would lie in the input"):
            check_places(source, Path(written))
    if "link" not in written:  # the guard says what the pattern does
        (tmp_path / written).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / written).touch()
        found = {path.path.resolve() for path in find_files(source) or ()}
        assert ((tmp_path / written) in found) is ((pattern, written) in MATCHED)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[12].jsonl").touch()
    check_places(str(tmp_path / "a[12].jsonl"), tmp_path / "a1.jsonl")
    with pytest.raises(SettingsError, match="would lie in the input"):
        check_places(str(tmp_path / "a[12].jsonl"), tmp_path / "a[12].jsonl")


def test_a_missing_input_is_said_before_any_model_is_looked_for(tmp_path: Path) -> None:
    done = bon("select", "nosuch.jsonl", "-m", "no/model", cwd=tmp_path)

    assert done.returncode == 1
    assert "no such input: nosuch.jsonl" in done.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputNotFoundError):
        check_places(str(tmp_path / "nosuch.jsonl"), tmp_path / "o.parquet")


def test_a_reward_model_that_cannot_score_is_refused_before_anything_is_sampled(
    tmp_path: Path,
) -> None:
    (tmp_path / "p.txt").write_text("What is 1 + 2?\n")

    done = bon("select", "p.txt", "-m", GENERATOR, "-r", GENERATOR, cwd=tmp_path)

    assert done.returncode == 1
    assert "give -r a reward model, not the generator" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-r", f"a={REWARD}", "-r", f"b={REWARD}"], "name the one that ranks with --rank-by"),
        (["-r", f"a={REWARD}", "--rank-by", "c"], "there is no scorer 'c'"),
        (["--k", "3"], "--k does nothing for --strategy best"),
        (["--strategy", "threshold"], "needs --threshold"),
        (["--answer-pattern", "("], "answer-pattern"),
        (["-o", "x.docx"], "give -o a name in one of .parquet"),
    ],
)
def test_what_would_stop_the_selection_is_found_first(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    (tmp_path / "p.txt").write_text("What is 1 + 2?\n")

    done = bon("select", "p.txt", "-m", "no/model", *flags, cwd=tmp_path)

    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


def test_a_foreign_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("What is 1 + 2?\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()

    done = bon("generate", "p.txt", "-m", "no/model", "--pool", "foreign", cwd=tmp_path)

    assert done.returncode == 1
    assert "not a pool and not empty" in done.stderr
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_dry_run_says_the_steps_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("What is 1 + 2?\n")

    for command in ("select", "generate", "score"):
        done = bon(command, "p.txt", "--dry-run", "-n", 3, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "read prompts from p.txt into p.pool" in done.stdout
        assert "generate 3 candidates per prompt" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]
    assert bon("select", "nosuch.txt", "--dry-run", cwd=tmp_path).returncode == 1


def test_select_refuses_an_output_in_its_pool_and_over_its_input(tmp_path: Path) -> None:
    pool = Run([prompt(0), prompt(1)]).scores(tmp_path / "p.pool").layout.root
    before = pool_files(pool)
    inside = bon("select", "p.pool", "-o", "p.pool/prompts/part-00000.parquet", cwd=tmp_path)
    assert inside.returncode == 2
    assert "the output and the pool would lie in each other" in inside.stderr
    assert pool_files(pool) == before
    (tmp_path / "x.test.jsonl").write_text('{"prompt": "What is 1 + 2?"}\n')
    over = bon(
        *("select", "x.test.jsonl", "-m", "no/model", "-o", "x.jsonl", "--train-test-split", "0.5"),
        cwd=tmp_path,
    )
    assert over.returncode == 2
    assert "the output would lie in the input" in over.stderr


def test_default_output_has_the_suffix_of_its_form(tmp_path: Path) -> None:
    Run([prompt(0), prompt(1)]).scores(tmp_path / "p.pool")
    for command, name in (("select", "best"), ("build-dpo", "dpo"), ("filter", "filtered")):
        done = bon(command, "p.pool", "--format", "ms-swift", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"p.{name}.jsonl").exists()
