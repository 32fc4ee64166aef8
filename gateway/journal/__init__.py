"""Stage 9: what happened, written once, provable, read by everything else. Its format is told in docs/journal.md."""
