"""The command line, `sqlstate VERB FILE …`: asks and shows. What is done is the library's matter."""

from sqlstate.cli.program import main

__all__ = ["main"]
