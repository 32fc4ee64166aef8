"""Anchors: the newest manifest, shown where whoever has this node cannot change it. One module a kind."""
