"""Wire formats: schema, events, usage and errors of each dialect; one row per dialect in `registry.py`."""
