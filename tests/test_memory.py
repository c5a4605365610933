"""What counts as a lack of memory."""

from __future__ import annotations

import pytest

from bon.memory import is_lack_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("unable to mmap 7 bytes from file <m>: Cannot allocate memory (12)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_lacks_of_memory(error: Exception) -> None:
    assert is_lack_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("shape mismatch"), ValueError("memory")],
    ids=lambda error: type(error).__name__,
)
def test_other_errors(error: Exception) -> None:
    assert not is_lack_of_memory(error)
