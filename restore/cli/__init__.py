"""The command line: `restore VERB ...`. Nothing heavy is imported before the verb's work begins."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence

from restore import __version__
from restore.memory import keep_freed_memory

from .options import VERBS, UsageError, parser, suggestion

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_MODULES = {
    "denoise": "restoring", "inpaint": "restoring", "deblur": "restoring", "upscale": "restoring",
    "mri": "scanning", "speech": "speaking", "replay": "restoring", "demo": "restoring", "simulate": "simulating",
    "compare": "comparing", "calibrate": "calibrating", "sweep": "sweeping", "learn": "learning", "list": "showing",
    "doctor": "showing",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 all done, 1 some failed, 2 usage, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the terminal cannot show is still a file
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(argv)
    except UsageError as error:
        if debug:
            raise
        print(f"restore: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("\nrestore: stopped. Finished files are kept; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: nothing is left to say
        return FAILED
    except Exception as error:
        if debug:
            raise
        line = str(error).strip().split("\n")[0] or type(error).__name__
        print(f"restore: {line} (--debug shows where)", file=sys.stderr)
        return FAILED


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return DONE if argv else USAGE
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return DONE
    verb = argv[0]
    if verb not in VERBS:
        raise UsageError(f"unknown verb {verb!r}{suggestion(verb, VERBS)} (see `restore --help`)")
    try:
        options = parser(verb).read(argv[1:])
    except SystemExit:  # argparse printed the help that was asked for
        return DONE
    keep_freed_memory()
    module = importlib.import_module(f"restore.cli.{_MODULES[verb]}")
    return module.run(verb, options, argv)


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {verb:<{width}}  {words}" for verb, words in VERBS.items())
    return (
        "restore: draws from what a damaged picture may have been\n\n"
        f"usage: restore VERB ... [key=value ...]\n\n{lines}\n\n"
        "restore denoise photo.png                        writes photo_denoised.png\n"
        "restore inpaint photo.png --mask holes.png       white marks what is missing\n"
        "restore deblur photo.tif --kernel gaussian:2.0 --samples 8\n"
        "restore upscale small.jpg -x 4 -o large.jpg\n"
        "restore mri kspace.h5 --samples 8 -o scan.nii.gz\n"
        "restore speech noisy.wav -o clean.wav\n\n"
        "`restore VERB --help` tells the options of a verb. Exit status: 0 all done, 1 some failed, 2 usage."
    )
