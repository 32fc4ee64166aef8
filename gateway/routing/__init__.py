"""Which settings a request is served under, and which targets are tried in what order. Pure."""
