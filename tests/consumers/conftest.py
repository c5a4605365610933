from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """They are installed from the package index, so they run only where they are asked for."""
    if "consumers" in config.option.markexpr:
        return
    skip = pytest.mark.skip(reason="runs in `make test-consumers`, or with -m consumers")
    for item in items:
        if item.get_closest_marker("consumers"):
            item.add_marker(skip)
