"""Where Alembic is sent by `migrate.py`: apply the versions on the connection that was given, in its transaction.

Not imported by anything: Alembic runs this file.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
)
with context.begin_transaction():
    context.run_migrations()
