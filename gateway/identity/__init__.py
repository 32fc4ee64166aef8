"""A credential becomes a Principal: which header carries it, and whose it is."""
