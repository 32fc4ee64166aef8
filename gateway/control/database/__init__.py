"""Control's database: what is read from the journal, kept so that it can be asked. SQLite, or Postgres by URL.

Nothing in it is the only copy: lost, it is made anew from the journal as far back as that reaches. SQLAlchemy and
Alembic take a third of a second to load, so only `handle.py` is imported from outside, and it imports the others in
the thread that first asks for the database.
"""
