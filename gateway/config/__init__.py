"""What the operator wrote, checked and typed: schema, loading, secrets, and the snapshot a node boots from."""
