"""The lists of breaks that `make mutations` makes on purpose: they must go on fitting the source that they break."""

import ast

import pytest

from tests.process import mutations as process_mutations
from tests.sessions import mutations as session_mutations


@pytest.mark.parametrize("mutation", process_mutations.MUTATIONS, ids=lambda one: one.name)
def test_a_mutation_of_the_program_fits(mutation):
    """What it replaces stands in the source exactly once, and what comes of it is still Python."""
    ast.parse(process_mutations.broken(mutation))


@pytest.mark.parametrize("one", session_mutations.BREAKS, ids=lambda one: one.name)
def test_a_break_of_the_store_fits(one):
    """What it replaces stands in the source, and what comes of it is still Python (or SQL)."""
    broken = session_mutations.broken(one)
    if one.file.endswith(".py"):
        ast.parse(broken)
