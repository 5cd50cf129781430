"""Errors for the person who reads them: what was seen, what was wanted, and the cure. No torch here."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """A file that cannot be used, said in one line: `path: seen; wanted ... . Cure.`"""

    def __init__(self, path: str | Path, seen: str, wanted: str, cure: str):
        # All four go to `args`, so that the error survives the pickling between worker processes.
        super().__init__(str(path), seen, wanted, cure)
        self.path, self.seen, self.wanted, self.cure = str(path), seen, wanted, cure

    def __str__(self) -> str:
        cure = self.cure[:1].upper() + self.cure[1:]
        return f"{self.path}: {self.seen}; wanted {self.wanted}. {cure}{'' if cure.endswith('?') else '.'}"


class FolderEmpty(InputError):
    """A folder without a single file of the kinds that can be read."""


class OutputError(InputError):
    """A place that cannot be written to."""
