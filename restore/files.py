"""Writing files so that an interruption leaves the old file or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError

_CURES = {
    errno.EACCES: ("no permission to write here", "choose another place with -o, or change the folder's permissions"),
    errno.EPERM: ("no permission to write here", "choose another place with -o, or change the folder's permissions"),
    errno.EROFS: ("the disk is read-only", "choose another place with -o"),
    errno.ENOSPC: ("the disk is full", "free some space, or choose another disk with -o"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another disk with -o"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name with -o"),
    errno.ENOENT: ("its folder cannot be made", "make the folder first, or choose another place with -o"),
    errno.ENOTDIR: ("part of its path is a file", "choose a path whose folders are folders"),
    errno.EEXIST: ("part of its path is a file", "choose a path whose folders are folders"),
    errno.EISDIR: ("it is a folder", "name a file inside it"),
}


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary path beside `path`; when the block ends well, what was written there becomes `path`.

    The temporary name is hidden and keeps the suffix (writers choose the format by it). The file is flushed to the disk
    before the rename. Whatever goes wrong, an interruption included, the temporary is removed and an existing `path` is
    untouched. Missing folders are made; a link is followed, so that its target is what changes.

    Raises:
        OutputError: no permission, disk full, a folder of that name, ... with the cure.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        # Only errors about this very place are ours to explain: the block may read other files too.
        # A full disk names no file at all.
        about = {str(target), str(temporary), *map(str, target.parents)}
        if error.errno in _CURES and (error.filename is None or os.fspath(error.filename) in about):
            seen, cure = _CURES[error.errno]
            raise OutputError(path, seen, "a place to write the result", cure) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
