"""The drill: kill real writers at random moments, open the store again, and compare it with what they were told.

Each writer is a process of its own (`python -m sqlstate.cli.drill PATH NUMBER SEED TIMEOUT`). Before a commit it tells
through a pipe what it is going to put, and afterwards that the commit returned, with its number. So after a
kill the drill knows of every commit whether it must be there and what must be in it; of each writer that was
killed, one at most is in doubt.
"""
