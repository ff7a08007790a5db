"""What sqlstate costs beside plain SQLite on the same disk: `python -m bench`.

docs/explanation/performance.md explains the figures.
"""
