"""What `pip install` puts on a machine: the four packages, whole, and nothing else.

Owns the built wheel. What stands around the packages in the repository is `test_project_files.py`.
"""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bot", "adapters", "sessions", "config")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, **options):
    """Run to the end and fail with what was printed, not with an exit status."""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments):
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this tree with the pinned backend and without a package index."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed wheel, and an environment in which it is found first."""
    site = tmp_path_factory.mktemp("site")
    pip("install", "--no-index", "--no-deps", "--target", str(site), str(wheel))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PALAVER_")}
    return site, kept | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}


def names_in(wheel):
    return zipfile.ZipFile(wheel).namelist()


def test_exactly_the_four_packages_ship(wheel):
    """The wheel holds bot, adapters, sessions, config and its own metadata: no tests, docs or benchmarks."""
    tops = {name.split("/")[0] for name in names_in(wheel)}
    assert tops == {*PACKAGES, f"palaver-{PROJECT['version']}.dist-info"}


def test_every_file_of_the_packages_ships(wheel):
    """SQL, texts, templates and py.typed come along: what is in the four folders is what is in the wheel."""
    tree = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names_in(wheel) if ".dist-info/" not in name} == tree


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(wheel, package):
    """Each package says with py.typed that its types may be relied on."""
    assert f"{package}/py.typed" in names_in(wheel)


def test_the_licence_ships(wheel):
    """Who has only the wheel has the licence."""
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names_in(wheel))


def test_each_package_has_one_owner(installed):
    """No dependency installs a package called bot, adapters, sessions or config over ours."""
    site, environment = installed
    program = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    owners = json.loads(run(sys.executable, "-c", program, env=environment, cwd=site))
    # An editable installation of this tree, beside the wheel, is the same owner again.
    assert {package: set(owners[package]) for package in PACKAGES} == {
        package: {"palaver"} for package in PACKAGES
    }


def test_a_second_owner_would_be_seen(installed, tmp_path):
    """The check above can fail: a distribution that brings its own `config` shows up as a second owner."""
    site, environment = installed
    information = tmp_path / "intruder-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: intruder\nVersion: 1.0\n")
    (information / "RECORD").write_text("config/__init__.py,,\n")
    program = "import importlib.metadata as m; print(*sorted(set(m.packages_distributions()['config'])))"
    path = os.pathsep.join([str(site), str(tmp_path)])
    assert run(sys.executable, "-c", program, env=environment | {"PYTHONPATH": path}).split() == [
        "intruder",
        "palaver",
    ]


def test_the_console_script_starts_outside_the_tree(installed):
    """`palaver --version`, installed from the wheel, runs the wheel's code and names its version."""
    site, environment = installed
    found = run(sys.executable, "-c", "import bot; print(bot.__file__)", env=environment, cwd=site)
    assert Path(found.strip()).is_relative_to(site)
    assert PROJECT["version"] in run(str(site / "bin" / "palaver"), "--version", env=environment, cwd=site)
