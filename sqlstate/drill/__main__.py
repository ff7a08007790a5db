"""One writer of a drill: `python -m sqlstate.drill PATH NUMBER SEED TIMEOUT`."""

import sys

from sqlstate.drill.writer import work

work(sys.argv[1:])
