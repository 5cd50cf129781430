import pytest


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """Runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
