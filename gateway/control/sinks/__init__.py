"""Where exported records go: one module a kind, each proved by the shared contract suite of its tests."""
