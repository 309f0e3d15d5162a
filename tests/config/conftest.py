"""A place of its own for each test of the configuration: no file and no variable of this machine is read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from config import sources
from config.errors import ConfigErrors
from config.sources import Loaded, load


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working directory; the machine's own configuration and secrets are out of sight."""
    monkeypatch.setattr(sources, "SYSTEM_CONFIG", tmp_path / "etc" / "config.toml")
    monkeypatch.setattr(sources, "RUN_SECRETS", tmp_path / "run-secrets")
    return tmp_path


@pytest.fixture
def read(place) -> Callable[..., Loaded]:
    """`read(toml, dotenv, flags, NAME=value…)`: load from these and nothing else."""

    def read(toml: str | None = None, dotenv: str | None = None, flags=None, **environ: str) -> Loaded:
        file = None
        if toml is not None:
            file = place / "config.toml"
            file.write_text(toml, encoding="utf-8")
            file.chmod(0o600)
        if dotenv is not None:
            (place / ".env").write_text(dotenv, encoding="utf-8")
        environ = {"XDG_CONFIG_HOME": str(place / "xdg"), **environ}
        return load(file, environ=environ, cwd=place, overrides=flags or {})

    return read


@pytest.fixture
def mistakes(read) -> Callable[..., list[str]]:
    """As `read`, for what must be refused: the lines that are shown."""

    def mistakes(*args, **kwargs) -> list[str]:
        with pytest.raises(ConfigErrors) as caught:
            read(*args, **kwargs)
        return caught.value.lines()

    return mistakes
