"""scripts/setup_env.py: its decisions, its stamp and its stand-in wheels. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "setup_env.py"
spec = importlib.util.spec_from_file_location("setup_env", SCRIPT)
assert spec and spec.loader
setup_env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_env)


def put_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make a fake `nvidia-smi` the only one on PATH."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("script", "extra"),
    [
        ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'", "vllm"),
        ("echo 'No devices found.'", "cpu"),
        ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'; exit 9", "cpu"),
        ("echo 'could not talk to the driver' >&2; exit 9", "cpu"),
    ],
)
def test_extra_follows_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, extra: str
) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, script)
    assert setup_env.choose_extra("", "") == extra


def test_no_driver_is_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_env.choose_extra("", "") == "cpu"


def test_a_request_wins_then_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, "echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'")
    assert setup_env.choose_extra("none", "cpu") == "none"
    assert setup_env.choose_extra("", "cpu") == "cpu"
    with pytest.raises(setup_env.SetupError, match="BON_EXTRA is 'gpu'"):
        setup_env.choose_extra("gpu", "")


def test_old_python_is_refused_with_what_to_do() -> None:
    with pytest.raises(setup_env.SetupError, match="make setup PYTHON="):
        setup_env.require_python((3, 10, 13), "python3")
    setup_env.require_python((3, 11, 0), "python3")


def test_a_machine_without_wheels_is_told_so() -> None:
    with pytest.raises(setup_env.SetupError, match=r"Darwin on arm64.*BON_EXTRA=none"):
        setup_env.require_platform("cpu", "Darwin", "arm64")
    setup_env.require_platform("none", "Darwin", "arm64")
    setup_env.require_platform("cpu", "Linux", "x86_64")


def test_torch_is_the_build_that_the_cpu_extra_pins() -> None:
    requirement = setup_env.torch_requirement((ROOT / "pyproject.toml").read_text())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert requirement.endswith("+cpu")
    assert requirement.removesuffix("+cpu") in extras["optional-dependencies"]["cpu"]


def copy_of_the_checkout(folder: Path) -> Path:
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    return Path(shutil.copy(SCRIPT, folder / "scripts"))


def test_fingerprint_sees_each_thing_that_decides(tmp_path: Path) -> None:
    script = copy_of_the_checkout(tmp_path)
    first = setup_env.fingerprint(tmp_path, "cpu", "3.11.7")
    assert setup_env.fingerprint(tmp_path, "cpu", "3.11.7") == first
    others = {
        setup_env.fingerprint(tmp_path, "vllm", "3.11.7"),
        setup_env.fingerprint(tmp_path, "cpu", "3.12.1"),
    }
    for path in (script, tmp_path / "pyproject.toml"):
        path.write_text(path.read_text() + "\n")
        others.add(setup_env.fingerprint(tmp_path, "cpu", "3.11.7"))
    assert len(others - {first}) == 4


def make_ready_venv(folder: Path, python: str) -> Path:
    """Lay out what a finished set-up leaves, with `python` in place of the interpreter."""
    copy_of_the_checkout(folder)
    venv = folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(python)
    (venv / "bin" / "python").chmod(0o755)
    (venv / "pyvenv.cfg").write_text("home = /nowhere\nversion = 3.11.7\n")
    (venv / ".bon-extra").write_text("cpu\n")
    stamp = venv / ".bon-setup"
    stamp.write_text(setup_env.fingerprint(folder, "cpu", "3.11.7") + "\n")
    return stamp


def test_a_second_set_up_runs_nothing(tmp_path: Path) -> None:
    stamp = make_ready_venv(tmp_path, "#!/bin/sh\nexit 1\n")
    os.utime(stamp, (0, 0))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(tmp_path / "scripts" / "setup_env.py")],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "setup: .venv is ready (cpu)\n"), done.stderr
    assert time.monotonic() - start < 5
    assert stamp.stat().st_mtime > 0  # so that make need not ask again


def test_a_failed_set_up_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = make_ready_venv(tmp_path, '#!/bin/sh\ncase "$*" in *--version*) exit 0;; esac\nexit 1')
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + "# changed\n")
    monkeypatch.delenv("BON_EXTRA", raising=False)
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup_env.platform, "machine", lambda: "x86_64")
    with pytest.raises(setup_env.SetupError, match=r"could not install torch==.*\+cpu"):
        setup_env.set_up(tmp_path)
    assert not stamp.exists()


def test_a_missing_cpu_build_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = setup_env.Venv(tmp_path)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found for x")
    monkeypatch.setattr(venv, "pip", lambda *arguments: failed)
    with pytest.raises(setup_env.SetupError, match=r"(?s)CPU.*make setup TORCH_INDEX=ADDRESS"):
        venv.install_torch("torch==2.13.0+cpu", "")


def test_torch_index_is_passed_to_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv = setup_env.Venv(tmp_path)
    calls: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
        calls.append(arguments)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(venv, "pip", pip)
    venv.install_torch("torch==2.13.0+cpu", "file:///wheels")
    assert calls == [("torch==2.13.0+cpu", "--extra-index-url", "file:///wheels")]


def test_what_an_interruption_left_half_unpacked_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready_venv(tmp_path, "#!/bin/sh\nexit 0\n")
    site = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    for name, files in (("whole", ["METADATA", "RECORD"]), ("half", ["METADATA"])):
        (site / f"{name}-1.dist-info").mkdir(parents=True)
        for file in files:
            (site / f"{name}-1.dist-info" / file).touch()
    setup_env.Venv(tmp_path).make("cpu")
    assert [path.name for path in site.iterdir()] == ["whole-1.dist-info"]


def test_stand_in_wheels_satisfy_pip_and_import_as_nothing(tmp_path: Path) -> None:
    """In a throw-away folder: `pip --target` needs no second interpreter with pip in it."""
    wheels = [setup_env.write_stub_wheel(tmp_path, *item) for item in setup_env.STUBS.items()]
    asks = setup_env.write_stub_wheel(tmp_path, "asks", "1")
    add_requirements(asks, ["torchvision", "torchaudio", "torchcodec>=0.14"])
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")]
    quiet = ["-q", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *quiet, *map(str, [*wheels, asks])], check=True)
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    find = "from importlib.util import find_spec; print(find_spec('torchvision'))"
    seen = subprocess.run(
        [venv / "bin" / "python", "-c", find], capture_output=True, text=True, check=True
    )
    assert seen.stdout == "None\n"


def add_requirements(wheel: Path, requirements: list[str]) -> None:
    """Give a stand-in wheel requirements of its own."""
    folder = wheel.parent / "unpacked"
    shutil.unpack_archive(wheel, folder, "zip")
    metadata = next(folder.glob("*.dist-info/METADATA"))
    lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
    metadata.write_text(metadata.read_text() + lines)
    wheel.unlink()
    Path(shutil.make_archive(str(wheel), "zip", folder)).rename(wheel)
