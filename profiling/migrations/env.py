"""What Alembic runs to bring a history to its newest schema: over the connection it is given."""

from alembic import context

from attnscope.profiling.store_engine import VERSION_TABLE

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table=VERSION_TABLE)
context.run_migrations()
