"""Vendors: one file each, one row in `registry.py`; address, credential, quirks, and what a refusal means."""
