"""The figures in the README are those of the committed results, and each is one that a script claims and prints.

Owns the way from a script to the README. That the figures are good is for `make bench` to say.
"""

import importlib
import json
from pathlib import Path

import pytest

from benchmarks import figures, measuring
from benchmarks.__main__ import closing, keep

ROOT = Path(__file__).parent.parent
SHARED = {"__init__", "__main__", "figures", "measuring", "peers", "peer_stores", "postgres_node"}
RESULTS = json.loads(figures.COMMITTED.read_text())


def claims(script):
    return importlib.import_module(f"benchmarks.{script}").CLAIMS


def test_the_readme_shows_the_committed_figures():
    """Nobody changed a figure by hand: the block is what the results give."""
    document = (ROOT / "README.md").read_text()
    assert figures.filled(document, RESULTS) == document


def test_every_script_is_run():
    """A script that is added without a place in the list would be run by nobody."""
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - SHARED
    assert scripts == set(figures.SCRIPTS)


@pytest.mark.parametrize("script", figures.SCRIPTS)
def test_every_figure_is_one_that_a_script_claims(script):
    """What the README states has a claim of the same words and goal in the script, and no claim is kept quiet."""
    claimed = {(claim.what, claim.goal_text) for claim in claims(script)}
    stated = {(figure["what"], figure["goal"]) for figure in RESULTS[script]["figures"]}
    assert stated == claimed


@pytest.mark.parametrize("script", figures.SCRIPTS)
def test_verdicts_follow_from_the_values(script):
    """Met or missed is no matter of opinion: the value that is shown decides, up to its rounding."""
    by_name = {claim.what: claim for claim in claims(script)}
    for figure in RESULTS[script]["figures"]:
        claim = by_name[figure["what"]]
        if figure["measured"] is None:
            assert figure["is_met"] is None
            continue
        value = float(figure["measured"].removesuffix(claim.unit).replace(",", ""))
        half = 0.5 * 10**-claim.digits
        assert figure["is_met"] in {claim.is_met_by(value + shift) for shift in (-half, 0, half)}


def test_a_figure_is_judged_and_kept(tmp_path, monkeypatch, capsys):
    """A script's line says what, how much, the goal and whether it was met; the same goes to the record."""
    record = tmp_path / "record"
    monkeypatch.setenv(measuring.RECORD, str(record))
    quick = measuring.Claim("a turn", "at most", 5, " ms", 1)
    assert quick.judge(4.96, "of ten")
    assert not quick.judge(5.06)
    assert quick.leave("no server")
    assert capsys.readouterr().out.splitlines() == [
        "met      a turn: 5.0 ms (≤ 5 ms); of ten",
        "NOT MET  a turn: 5.1 ms (≤ 5 ms)",
        "left     a turn: not measured, no server",
    ]
    kept = [json.loads(line) for line in record.read_text().splitlines()]
    assert [one["is_met"] for one in kept] == [True, False, None]


def result(*kept, ended=0):
    return {
        "ended": ended,
        "figures": [{"what": "w", "goal": "≥ 1", "measured": "2", "note": "", **one} for one in kept],
    }


def test_the_closing_table_names_what_went_wrong():
    """A missed goal, a script that failed, and one that printed nothing make the run fail; what was left out does not."""
    assert closing(
        {"a": result({"is_met": True}), "b": result({"is_met": None, "measured": None, "note": "no peers"})}
    )[1]
    for bad in (result({"is_met": False}, ended=1), result({"is_met": True}, ended=3), result()):
        text, is_well = closing({"a": bad})
        assert not is_well
        assert "MISSED" in text or "FAILED" in text


def test_a_run_of_one_script_leaves_the_others_figures(tmp_path, monkeypatch):
    """The latest figures are kept script by script, so that one can be measured again by itself."""
    monkeypatch.setattr("benchmarks.__main__.LATEST", tmp_path / "results" / "latest.json")
    keep("search", {"figures": [1]})
    keep("transfer", {"figures": [2]})
    keep("search", {"figures": [3]})
    latest = json.loads((tmp_path / "results" / "latest.json").read_text())
    assert latest == {"search": {"figures": [3]}, "transfer": {"figures": [2]}}


def test_a_document_without_its_block_is_refused():
    """The block is never put somewhere by guess."""
    with pytest.raises(ValueError, match="no block"):
        figures.filled("# A page\n", {})
