"""The table of adapters: complete, lazy, and clear about what is missing."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from adapters import registry
from adapters.registry import ADAPTERS, AdapterUnavailable, load
from config.names import AccountId
from config.settings import AccountSettings

ROOT = Path(__file__).parents[2]


def test_every_platform_of_the_settings_has_an_adapter():
    """What can be configured can be loaded."""
    assert set(ADAPTERS) == set(get_args(AccountSettings.model_fields["platform"].annotation))


@pytest.mark.parametrize("platform", sorted(ADAPTERS))
def test_every_adapter_is_made_alike(platform):
    """Each class is found under its address and takes the same arguments."""
    address = ADAPTERS[platform].partition(":")[0]
    assert find_spec(address) is not None
    settings = AccountSettings(platform=platform, token="123456:abcdefghijklmnopqrstuvwxyz")
    adapter = load(platform)(AccountId(f"{platform}.main"), settings, lambda _: (), language="de")
    assert adapter.account == f"{platform}.main"
    assert adapter.health().state == "starting"


def test_an_unknown_platform_names_the_known_ones():
    """A name that is in no table is answered with the table."""
    with pytest.raises(AdapterUnavailable, match="'telegraph': unknown; there are discord, memory, telegram"):
        load("telegraph")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    """When the SDK is not installed, the sentence names it."""
    (tmp_path / "needy_adapter.py").write_text("import an_sdk_nobody_has.client\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "ADAPTERS", {"needy": "needy_adapter:NeedyAdapter"})
    with pytest.raises(AdapterUnavailable, match="'an_sdk_nobody_has', which is not installed"):
        load("needy")


def test_a_missing_folder_is_named(monkeypatch):
    """When an installation leaves an adapter out, the sentence says so."""
    monkeypatch.setattr(registry, "ADAPTERS", {"gone": "adapters.gone.adapter:GoneAdapter"})
    with pytest.raises(AdapterUnavailable, match="does not contain it"):
        load("gone")


def test_a_mistake_in_an_adapter_is_not_hidden(monkeypatch, tmp_path):
    """An error in an adapter's own code comes out as it is."""
    (tmp_path / "broken_adapter.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "ADAPTERS", {"broken": "broken_adapter:BrokenAdapter"})
    with pytest.raises(ZeroDivisionError):
        load("broken")


@pytest.mark.process
def test_nothing_is_imported_before_it_is_needed():
    """Importing the registry imports no SDK, and the memory adapter no terminal library."""
    code = (
        "import sys; from adapters.registry import load; load('memory'); "
        "print(sorted({'telegram', 'discord', 'prompt_toolkit'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout == "[]\n"
