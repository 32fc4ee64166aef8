"""What keeping a journal costs, part by part: writing, sealing, verifying, reading. `python -m bench.journal`."""
