"""The database: SQLite in the home, or PostgreSQL by URL, through SQLAlchemy. The only door to SQL."""

from holdfast.backends.sql.database import SqlDatabase

__all__ = ["SqlDatabase"]
