"""The files around the packages keep what they promise: Makefile, requirements, container, unit, contracts.

Owns what can be seen without a container engine or a service manager. The wheel is `test_packaging.py`.
"""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import time
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from config.settings import HttpSettings, NodeSettings, Settings
from config.sources import SYSTEM_CONFIG

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt")
PEERS = "requirements-bench.txt"
ENVIRONMENT_SOURCES = ("Makefile", "pyproject.toml", *REQUIREMENTS)
DRAIN_S = Settings.model_fields["shutdown_after_s"].default


def text(name):
    return (ROOT / name).read_text()


# Makefile and .ci/run


def make(folder, *arguments):
    """GNU make as from a fresh shell: nothing of the make that may be running these tests."""
    ours = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "ARGS", "VENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        ["make", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        env=environment,
    )


def targets():
    return set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))


@pytest.fixture
def checkout(tmp_path):
    """A fresh checkout, as far as making the environment looks at it."""
    for name in ENVIRONMENT_SOURCES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/howto/systemd.md", ".ci/run"])
def test_every_target_that_is_named_exists(document):
    """A command that a document tells people to type is there."""
    named = set(re.findall(r"(?:^|`|&& )make ([a-z][a-z-]*)", text(document), re.MULTILINE))
    assert named <= targets()


def test_plain_make_lists_the_targets():
    """`make` alone changes nothing and shows what there is, all of it."""
    done = make(ROOT)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE)) == targets()


def test_an_old_python_is_refused_with_advice(checkout):
    """Without Python 3.11 the first command says so and what to install, and leaves nothing half made."""
    done = make(checkout, "PYTHON=false", "run")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "apt install python3" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_missing_venv_module_is_named(checkout):
    """Debian's Python without python3-venv is told apart from an old one."""
    python = checkout / "python-without-venv"
    python.write_text('#!/bin/sh\ncase "$2" in *venv*) exit 1 ;; esac\n')
    python.chmod(0o755)
    done = make(checkout, f"PYTHON={python}", "test")
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def environment_in(folder, *, made_for):
    """A finished environment with its stamps, as `python -m venv` leaves it for the folder it was made for."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "pip"):
        program = folder / ".venv" / "bin" / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (folder / ".venv" / "pyvenv.cfg").write_text(
        f"command = /usr/bin/python3 -m venv {made_for.resolve()}/.venv\n"
    )
    now = time.time()
    for age_s, name in ((30, "pyvenv.cfg"), (20, ".runtime"), (10, ".dev")):
        (folder / ".venv" / name).touch()
        os.utime(folder / ".venv" / name, (now - age_s, now - age_s))
    for name in ENVIRONMENT_SOURCES:
        os.utime(folder / name, (now - 60, now - 60))


def is_up_to_date(folder):
    done = make(folder, "--question", ".venv/.dev")
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def test_nothing_is_installed_twice(checkout):
    """With the environment in place a target starts at once; a changed pin installs again."""
    environment_in(checkout, made_for=checkout)
    assert is_up_to_date(checkout)
    (checkout / "requirements.txt").touch()
    assert not is_up_to_date(checkout)


def test_an_environment_of_another_folder_is_made_again(checkout):
    """A copied checkout does not go on running the code of the place it was copied from."""
    environment_in(checkout, made_for=checkout / "elsewhere")
    assert not is_up_to_date(checkout)


def test_an_interrupted_environment_is_made_again(checkout):
    """Ctrl-C while the environment was made, before pip was in it, does not leave a checkout that never works."""
    environment_in(checkout, made_for=checkout)
    (checkout / ".venv" / "bin" / "pip").unlink()
    assert not is_up_to_date(checkout)


def test_ci_runs_what_a_contributor_runs():
    """.ci/run is executable, stops at the first failure, and runs checks, tests, the kill loop and all crash points in that order."""
    script = text(".ci/run")
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in script
    assert re.findall(r"^make (\S+)$", script, re.MULTILINE) == ["check", "test", "kill-loop", "crash-points"]


# Requirements


def pins(name):
    """Name → version of each requirement; a line that is neither pin, hash, comment nor continuation fails."""
    found = {}
    for block in re.split(r"\n(?=\S)", text(name).strip()):
        first, *rest = block.splitlines()
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==([^ ;]+)( ; [^\\]+)? \\", first)
        assert pin, f"{name}: {first!r} is no pinned requirement with hashes"
        lines = [line.strip().removesuffix("\\").strip() for line in rest]
        hashes = [line for line in lines if not line.startswith("#")]
        assert hashes, f"{name}: {pin[1]} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), block
        found[requirement_name(pin[1])] = pin[2]
    return found


@pytest.mark.parametrize("name", [*REQUIREMENTS, PEERS])
def test_requirements_are_pinned_with_hashes(name):
    """Every package is pinned to one version and its hashes, and no package index is named."""
    assert pins(name)
    assert not re.search(r"https?://|index|find-links|file:", text(name))


def test_the_three_files_agree():
    """All three go into one environment, so a package that stands in two has one version."""
    development = pins("requirements-dev.txt")
    for name in ("requirements.txt", "requirements-build.txt"):
        shared = pins(name)
        assert {package: shared[package] for package in shared.keys() & development.keys()} == {
            package: development[package] for package in shared.keys() & development.keys()
        }


def test_what_we_are_measured_against_is_no_dependency():
    """Other projects' packages are pinned in a file of their own, and neither the program nor its tests install them."""
    peers = {requirement_name(each) for each in PYPROJECT["dependency-groups"]["bench"]}
    assert peers <= pins(PEERS).keys()
    assert not (peers & {package for name in REQUIREMENTS for package in pins(name)})


def requirement_name(requirement):
    """The name alone, spelled as in the pinned files: discord.py is discord-py there."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


def test_what_is_asked_for_is_pinned():
    """A dependency added to pyproject.toml without `make lock` is noticed here."""
    runtime = {requirement_name(each) for each in PYPROJECT["project"]["dependencies"]}
    development = {requirement_name(each) for each in PYPROJECT["dependency-groups"]["dev"]}
    build = {requirement_name(each) for each in PYPROJECT["build-system"]["requires"]}
    assert runtime <= pins("requirements.txt").keys()
    assert runtime | development <= pins("requirements-dev.txt").keys()
    assert build <= pins("requirements-build.txt").keys()


# Container


def instructions():
    """The Dockerfile as (instruction, rest) with continuation lines joined and comments left out."""
    lines = [line for line in text("Dockerfile").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(re.split(r"\s+", line.strip(), maxsplit=1)) for line in joined.splitlines() if line.strip()]


def final_stage():
    everything = instructions()
    last = max(i for i, (word, _) in enumerate(everything) if word == "FROM")
    return everything[last:]


def test_the_image_leaves_the_tools_behind():
    """Two stages; the second takes only the finished environment from the first."""
    stages = [rest.split(" AS ")[1] for word, rest in instructions() if word == "FROM"]
    assert stages == ["build", "run"]
    assert [rest for word, rest in final_stage() if word == "COPY"] == [
        "--from=build /opt/palaver /opt/palaver"
    ]
    assert all("pip" not in rest for word, rest in final_stage() if word == "RUN")


def test_what_the_image_copies_exists_and_is_not_ignored():
    """Each COPY from the checkout names a file that is there and that .dockerignore lets through."""
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    let_through = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert {"bot", "adapters", "sessions", "config", "pyproject.toml"} <= set(copied)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert set(copied) <= let_through


def test_the_image_installs_only_hashed_packages():
    """Nothing reaches the image from an index without its hash."""
    installs = [
        part
        for word, rest in instructions()
        if word == "RUN"
        for part in rest.split("&&")
        if re.search(r"pip install", part)
    ]
    assert len(installs) == 3
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)


def test_the_image_runs_unprivileged_and_hears_signals():
    """A numbered user that is not root, the program itself as process 1, SIGTERM, and its data in a volume."""
    stage = dict(final_stage())
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage["USER"])
    assert stage["ENTRYPOINT"] == '["palaver"]'
    assert stage["CMD"] == '["run"]'
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert stage["VOLUME"] == '["/var/lib/palaver"]'
    assert "PALAVER_DATABASE_URL=sqlite:///var/lib/palaver/palaver.db" in stage["ENV"]


def test_image_and_compose_ask_the_same():
    """The health check that an engine takes from the image is the one that compose gives it."""
    options, _, command = dict(final_stage())["HEALTHCHECK"].partition(" CMD ")
    image = dict(option.removeprefix("--").replace("-", "_").split("=") for option in options.split())
    for name in OURS:
        check = {key: str(value) for key, value in COMPOSE["services"][name]["healthcheck"].items()}
        assert check.pop("test") == str(["CMD", *json.loads(command)])
        assert check == image


COMPOSE = yaml.safe_load(text("compose.yaml"))
OURS = ("palaver", "node")


@pytest.mark.parametrize("name", OURS)
def test_compose_takes_away_what_is_not_needed(name):
    """Read-only root, no capabilities, no new privileges, tokens from a file; data only where there is a volume for it."""
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["env_file"] == ".env"
    assert service.get("volumes", []) == (["palaver-data:/var/lib/palaver"] if name == "palaver" else [])


def test_compose_publishes_no_port():
    """Nobody reaches a server from outside unless the operator says so."""
    assert not any("ports" in service for service in COMPOSE["services"].values())


@pytest.mark.parametrize("name", OURS)
def test_compose_waits_longer_than_the_drain(name):
    """The container is not killed while running turns may still finish."""
    assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > DRAIN_S


def test_compose_starts_one_on_sqlite_or_three_on_postgresql():
    """Without a name the one starts; the nodes wait for their server, share it, and it gets none of the tokens."""
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["palaver"]
    assert services["palaver"]["scale"] == "${ON_SQLITE:-1}"
    node, server = services["node"], services["postgres"]
    assert node["profiles"] == server["profiles"]
    assert node["deploy"]["replicas"] == 3
    assert node["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    url = urlsplit(node["environment"]["PALAVER_DATABASE_URL"].replace("${POSTGRES_PASSWORD:-}", "secret"))
    assert (url.hostname, url.username, url.path) == (
        "postgres",
        server["environment"]["POSTGRES_USER"],
        "/" + server["environment"]["POSTGRES_DB"],
    )
    assert "env_file" not in server
    # The server that sets the database up answers at its socket only, and nobody shall be let in then.
    assert "--host=127.0.0.1" in server["healthcheck"]["test"][-1]
    assert {volume.partition(":")[0] for volume in server["volumes"]} <= set(COMPOSE["volumes"])


PAGE = text("docs/howto/docker.md")


def test_the_page_names_services_that_are_there():
    """`exec`, `run`, `stop`, `cp` and the pieces for a file of one's own."""
    named = re.findall(r"docker compose (?:exec|stop|run --rm(?: --volume \S+)?) ([a-z]+)", PAGE)
    pieces = [yaml.safe_load(each)["services"] for each in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert set(named) == set(OURS)
    assert len(pieces) == 2
    assert all(set(piece) <= set(COMPOSE["services"]) for piece in pieces)
    assert pieces[0]["palaver"]["volumes"] == [f"./palaver.toml:{SYSTEM_CONFIG}:ro"]
    [published] = pieces[1]["palaver"]["ports"]
    assert published == f"127.0.0.1:{HttpSettings().port}:{HttpSettings().port}"


def test_the_page_says_what_makes_compose_start_the_nodes():
    """Its lines for `.env` are the variables of compose.yaml, and they keep the single one away."""
    lines = dict(re.findall(r"^([A-Z_]+)=(.*)$", PAGE.partition("## Three nodes")[2], re.MULTILINE))
    assert set(lines) == {"COMPOSE_PROFILES", "ON_SQLITE", "POSTGRES_PASSWORD"}
    assert [lines["COMPOSE_PROFILES"]] == COMPOSE["services"]["node"]["profiles"]
    assert lines["ON_SQLITE"] == "0"
    used = set(re.findall(r"\$\{([A-Z_]+)", text("compose.yaml")))
    assert used == {"ON_SQLITE", "POSTGRES_PASSWORD"}


# Kubernetes


def manifests():
    """Kind → manifest, of all that the page shows."""
    shown = re.findall(r"```yaml\n(.*?)```", text("docs/howto/kubernetes.md"), re.DOTALL)
    return {manifest["kind"]: manifest for manifest in map(yaml.safe_load, shown)}


def test_the_manifests_fit_together():
    """Every name and label that one refers to is another's, and enough pods are left when one is taken away."""
    found = manifests()
    assert set(found) == {"Secret", "ConfigMap", "Deployment", "PodDisruptionBudget", "Service"}
    spec = found["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert spec["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] < spec["replicas"]
    assert container["envFrom"] == [{"secretRef": {"name": found["Secret"]["metadata"]["name"]}}]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert pod["volumes"][0]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    [key] = found["ConfigMap"]["data"]
    assert f"{container['volumeMounts'][0]['mountPath']}/{key}" == str(SYSTEM_CONFIG)
    assert "args" not in container
    assert pod["terminationGracePeriodSeconds"] > DRAIN_S
    assert pod["securityContext"]["runAsUser"] == 10001


def test_the_manifests_settings_are_ours(monkeypatch):
    """The file and the variables load without a mistake, and the probes ask where the server then listens."""
    found = manifests()
    monkeypatch.chdir(ROOT)
    values = tomllib.loads(found["ConfigMap"]["data"][SYSTEM_CONFIG.name])
    values["database_url"] = found["Secret"]["stringData"]["PALAVER_DATABASE_URL"]
    settings = Settings.model_validate(values)
    [container] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    [port] = container["ports"]
    assert (settings.http.host, settings.http.port) == ("0.0.0.0", port["containerPort"])
    assert settings.database_url.startswith("postgresql://")
    asked = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {get["port"] for get in asked.values()} == {port["name"]}
    assert {name: get["path"] for name, get in asked.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    names = {one["name"].removeprefix("PALAVER_").lower() for one in container["env"]}
    assert names == {"node__name"} and "name" in NodeSettings.model_fields


# systemd


def unit():
    """Key → values of the unit's [Service] section, in order."""
    found = {}
    for line in text("docs/howto/palaver.service").split("[Service]")[1].split("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_restarts_what_may_pass():
    """A fault is started again; a wrong command line or setting waits for the operator."""
    service = unit()
    assert service["Type"] == ["notify"]
    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == ["2 78"]


def test_the_unit_waits_longer_than_the_drain():
    """systemd does not kill while running turns may still finish."""
    assert int(unit()["TimeoutStopSec"][0]) > DRAIN_S


def test_the_unit_and_the_commands_find_the_same_settings():
    """One file, where a command looks that is told nothing, and no variable of the unit's own that would win over it."""
    service = unit()
    assert service["ExecStart"] == [f"/opt/palaver/bin/palaver run --config {SYSTEM_CONFIG}"]
    assert not any(value.startswith("PALAVER_") for value in service["Environment"])
    page = text("docs/howto/systemd.md")
    [shown] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert f"`{SYSTEM_CONFIG}`" in page
    assert (
        tomllib.loads(shown)["database_url"] == f"sqlite:///var/lib/{service['StateDirectory'][0]}/palaver.db"
    )


def test_the_unit_is_hardened():
    """Not root, nothing writable but its own directory, files for their owner only, no privileges to be had."""
    service = unit()
    expected = {
        "User": "palaver",
        "StateDirectory": "palaver",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "MemoryDenyWriteExecute": "yes",
        "SystemCallArchitectures": "native",
    }
    assert {key: service.get(key) for key in expected} == {key: [value] for key, value in expected.items()}


def test_systemd_reads_the_unit_without_complaint(tmp_path):
    """Where systemd is installed, its own checker knows every key and value of the unit."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed; the keys are checked above")
    copy = tmp_path / "palaver.service"
    copy.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text("docs/howto/palaver.service")))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if "palaver" in line] == []


# Rules of the house


def test_the_licence_is_apache_2_whole():
    """LICENSE is the whole text that pyproject.toml names, not an excerpt."""
    licence = text("LICENSE")
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in licence
    assert [int(number) for number in re.findall(r"^   (\d)\. ", licence, re.MULTILINE)] == list(range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in licence


def implementations(folder, *methods):
    """Modules directly in a folder that hold, at any depth, a class with these methods which is no Protocol."""
    found = set()
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef) or "Protocol" in {ast.unparse(base) for base in node.bases}:
                continue
            defined = {
                each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            if defined >= set(methods):
                room = path.relative_to(ROOT / folder).parts[0].removesuffix(".py")
                found.add(f"{folder.replace('/', '.')}.{room}")
    return found


def test_every_concrete_module_is_protected():
    """A new adapter, agent or store is out of reach for all but the composition root from its first day."""
    concrete = (
        implementations("adapters", "run", "render", "send")
        | implementations("bot/agents", "run")
        | implementations("sessions/database", "read", "write")
    )
    protected = {
        module
        for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
        if contract["id"] == "composition-root"
        for module in contract["protected_modules"]
    }
    assert concrete
    assert concrete - protected == set(), "add these to the contract composition-root in pyproject.toml"


def test_every_test_names_its_claim():
    """Each test has a docstring: the reader learns what holds, not only what runs."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
