"""How far the state machines go: a sample in `make test`, for hours with HYPOTHESIS_PROFILE=long, on each kind of database.

A failure prints the seed (set HYPOTHESIS_SEED to run the same again) and the shortest row of steps that shows it.
"""

import os
import random
from collections.abc import Mapping

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
TIMEOUT_S = 0 if IS_LONG else 300
_LONG_EXAMPLES, _LONG_STEPS = 50, 4
"""How many times more of each a long run does."""


def run(machine: type[RuleBasedStateMachine], store: str, examples: Mapping[str, int], steps: int) -> None:
    """Run it on one kind of database, which it finds as its `store`."""
    seed = int(os.environ.get("HYPOTHESIS_SEED") or random.randrange(2**32))
    seeded = hypothesis.seed(seed)(type("Machine", (machine,), {"store": store}))
    profile = hypothesis.settings(
        deadline=None,
        max_examples=examples.get(store, 20) * (_LONG_EXAMPLES if IS_LONG else 1),
        stateful_step_count=steps * (_LONG_STEPS if IS_LONG else 1),
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=True,
        database=None,
    )
    try:
        run_state_machine_as_test(seeded, settings=profile)
    except BaseException:
        print(f"run the same again with HYPOTHESIS_SEED={seed}")
        raise
