"""The garbage collector's setting: made by whoever runs a daemon, and still collecting."""

import gc
import weakref

from bot import collector


def test_circles_are_still_found():
    """Relaxed does not mean off: a circle made afterwards is collected, and more rarely than Python would by itself."""

    class Node:
        pass

    before = gc.get_threshold()
    try:
        collector.relax()
        assert gc.isenabled()
        assert gc.get_threshold() == collector.THRESHOLDS > before
        node = Node()
        node.itself = node
        seen = weakref.ref(node)
        del node
        gc.collect()
        assert seen() is None
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
