"""SQLite as the queue needs it: durable commits, short transactions, named statements, errors of our own tree.

Only plugin.jobs and plugin.outbox use this module.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inference.errors import ConfigurationError, ResourceError

SCHEMA_VERSION = 2
Row = sqlite3.Row
Parameters = Mapping[str, str | int | float | None]


def read_statements(path: Path) -> dict[str, str]:
    """The statements of an .sql file by name; each starts with a line `-- name: NAME`."""
    statements: dict[str, str] = {}
    for block in path.read_text(encoding="utf-8").split("-- name: ")[1:]:
        name, _, text = block.partition("\n")
        statements[name.strip()] = text.strip()
    return statements


STATEMENTS = read_statements(Path(__file__).with_name("jobs.sql"))


class Database:
    """One connection, usable from all threads of this process one at a time; other processes open their own.

    WAL with synchronous=FULL: a commit that returned survives kill -9 and power loss (as far as the disk keeps its
    promises). Raises ResourceError when the database is busy for `busy_seconds`, the disk is full or broken, and
    ConfigurationError when the file is no queue of this version.
    """

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._enter_wal(time.monotonic() + busy_seconds)
            self._connection.execute("PRAGMA synchronous=FULL")
        self._create_schema()
        with self._errors():  # not before: a migration makes tables anew that others refer to
            self._connection.execute("PRAGMA foreign_keys=ON")

    def _enter_wal(self, deadline: float) -> None:
        # Two processes that switch a new file to WAL at once: SQLite answers "locked" without asking the busy handler.
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _create_schema(self) -> None:
        with self.read() as run:
            if _version(run) == SCHEMA_VERSION:
                return
        with self.write() as run:
            version = _version(run)
            if version in (0, 1):
                for statement in STATEMENTS["migrate_1" if version else "schema"].split(";\n"):
                    run.connection.execute(statement)
                run.connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise ConfigurationError(
                    f"{self.path} is a queue of version {version}, this program needs {SCHEMA_VERSION}: "
                    "let the program that wrote it finish its work, then use a new data_dir"
                )

    @contextmanager
    def write(self) -> Iterator["Run"]:
        """A transaction that holds the write lock from its start; committed durably when the block ends well."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield Run(self._connection)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def read(self) -> Iterator["Run"]:
        """A consistent view; never waits for writers."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN")
            try:
                yield Run(self._connection)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection; the object is of no use afterwards."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ResourceError(
                f"the queue {self.path} cannot be used ({error}): check the disk's space and permissions"
            ) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # integrity and programming errors are bugs: let them show
                raise
            raise ConfigurationError(
                f"{self.path} is not a usable queue ({error}): restore it from a backup or use a new data_dir; "
                "the instances beside it are whole files that can be sent again"
            ) from error


class Run:
    """Runs named statements in one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __call__(self, name: str, parameters: Parameters | None = None) -> sqlite3.Cursor:
        """Execute the statement `name` of jobs.sql."""
        return self.connection.execute(STATEMENTS[name], parameters or {})

    def one(self, name: str, parameters: Parameters | None = None) -> Row | None:
        """The first row, or None."""
        row: Row | None = self(name, parameters).fetchone()
        return row

    def all(self, name: str, parameters: Parameters | None = None) -> list[Row]:
        """All rows."""
        return self(name, parameters).fetchall()

    def exists(self, name: str, parameters: Parameters | None = None) -> bool:
        """Whether the statement gives a row."""
        return self.one(name, parameters) is not None


def _version(run: Run) -> int:
    return int(run.connection.execute("PRAGMA user_version").fetchone()[0])
