"""A real PostgreSQL, started where the tests run, with a new database for each that asks."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url


@contextmanager
def postgres() -> Iterator[Callable[[], str]]:
    """Yields what makes a database and tells its URL."""
    # Not under pytest's folder, which the server's own user may not enter.
    data = Path(tempfile.mkdtemp(prefix="postgres-"))
    with tempfile.TemporaryDirectory() as private, pytest.MonkeyPatch.context() as patch:
        # Without such a folder the import warns, and a warning is an error here.
        patch.setenv("XDG_RUNTIME_DIR", private)
        from pgserver.postgres_server import get_server

    server = get_server(data, cleanup_mode="stop")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    numbers = count()

    def new_database() -> str:
        name = f"runs_{next(numbers)}"
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)

    try:
        yield new_database
    finally:
        admin.dispose()
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)
