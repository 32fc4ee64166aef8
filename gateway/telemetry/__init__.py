"""Telemetry: what the gateway says about itself, as metrics, log lines and trace context.

Nothing on a request's path imports it: stages count in plain integers, and what must be told at the end of an
exchange goes through a callable handed in by `assemble.py`.
"""
