"""The steps from an empty database to the newest one, each a module that is never changed once it was released."""
