"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, in the place of one that may be there.

    ``OSError``; after one, the file is what it was before, and nothing else is left.
    """
    target = os.path.realpath(path)
    partial = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        if os.path.lexists(partial):
            os.unlink(partial)
        raise
