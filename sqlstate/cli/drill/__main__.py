"""One writer of a drill: `python -m sqlstate.cli.drill PATH NUMBER SEED TIMEOUT`."""

import sys

from sqlstate.cli.drill.writer import work

work(sys.argv[1:])
