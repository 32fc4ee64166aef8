"""Sluice, an LLM gateway: the map.

One request, in order (the story itself is `pipeline.py`):
  1 listen     listener/    bytes become one unambiguous request of a known surface
  2 identify   identity/    a credential becomes a Principal
  3 route      routing/     path + model + labels choose a Route: which settings and targets apply
  6 reserve    limiter/     what it is expected to use, taken from every limit that applies or from none
  7 plan       routing/     the route and the model become an ordered list of attempts
  7 relay      relay/       attempts, failover until content, then the stream, untouched
  8 settle     limiter/     what it has used, in place of what was reserved, once
  9 record     journal/     a decision before the first upstream byte, an outcome at the end; all else reads them

Numbers are the journey's in docs/ARCHITECTURE.md; a stage that is not built is not in the pipeline.

Layers, imports point down only (tests/test_architecture.py):
  process > listener, assemble, control > pipeline > exchange > spending, subjects > identity, limiter, relay,
  journal, telemetry > routing, providers, ledger > dialects, config > record, verdicts, errors, units, tasks, segment
"""

__version__ = "0.1.0"
