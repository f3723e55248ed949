from __future__ import annotations

from pathlib import Path

import pytest

from tiny_bundle import build


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny bundle; tests that change it copy it first."""
    return build(tmp_path_factory.mktemp("bundles") / "tiny")
