"""How often Python looks for garbage in circles: seldom, in a process that remembers thousands of conversations.

Owns the interpreter's setting, which is the whole process's: whoever runs a daemon calls `relax`, a library would not.
"""

import gc

THRESHOLDS = (20_000, 10, 10)
"""Objects made and not let go of before the youngest are looked at; and after how many such looks the older ones."""


def relax() -> None:
    """Look after 20,000 new objects, not after 700, and never again at what was there before the first message.

    A turn makes hardly any circles, but thousands of objects that live on: looking through all of them again and again took
    an eighth of a turn's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
