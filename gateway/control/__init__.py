"""Control: the process beside the workers that serves the admin port and publishes snapshots.

No request of a caller passes through it, so it may die at any moment and nobody notices: what it knows stands in
files and in the control segment. Start reading at `main.py`.
"""
