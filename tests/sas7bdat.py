"""Real SAS files for tests: .sas7bdat written by ReadStat's own writer, out of the library that pyreadstat carries.

pyreadstat offers reading of .sas7bdat only; the C library in it writes them too, and its functions can be called.
Numbers become doubles, text stays text, and None becomes SAS's special missing value .A ("." in the first row).
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import pyreadstat._readstat_writer as compiled

_STRING, _DOUBLE = 0, 5  # readstat_type_t

Value = str | float | None


def write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
    """Write a table; a column is numeric when none of its values is text."""
    library = ctypes.CDLL(compiled.__file__)
    library.readstat_writer_init.restype = ctypes.c_void_p
    library.readstat_add_variable.restype = ctypes.c_void_p
    library.readstat_begin_writing_sas7bdat.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
    library.readstat_insert_double_value.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_double)
    content = bytearray()

    @ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    def take(data: int, count: int, _: int) -> int:
        content.extend(ctypes.string_at(data, count))
        return count

    writer = ctypes.c_void_p(library.readstat_writer_init())
    done = [library.readstat_set_data_writer(writer, take)]
    texts = [any(isinstance(row[place], str) for row in rows) for place in range(len(columns))]
    variables = [
        ctypes.c_void_p(
            library.readstat_add_variable(
                writer, name.encode(), _STRING if text else _DOUBLE, ctypes.c_size_t(64 if text else 0)
            )
        )
        for name, text in zip(columns, texts, strict=True)
    ]
    done.append(library.readstat_begin_writing_sas7bdat(writer, None, len(rows)))
    for number, row in enumerate(rows):
        library.readstat_begin_row(writer)
        for variable, text, value in zip(variables, texts, row, strict=True):
            if text:
                written = str(value if value is not None else "").encode()
                done.append(library.readstat_insert_string_value(writer, variable, ctypes.c_char_p(written)))
            elif value is not None:
                done.append(library.readstat_insert_double_value(writer, variable, float(value)))
            elif number == 0:
                done.append(library.readstat_insert_missing_value(writer, variable))
            else:
                done.append(library.readstat_insert_tagged_missing_value(writer, variable, ctypes.c_char(b"A")))
        library.readstat_end_row(writer)
    done.append(library.readstat_end_writing(writer))
    library.readstat_writer_free(writer)
    assert not any(done), f"ReadStat's errors: {sorted(set(done))}"
    path.write_bytes(content)
