"""What can be typed: the verbs, their options, suggestions for what was mistyped. Only the standard library here."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

OVERRIDE = re.compile(r"^[+~]{0,2}[A-Za-z_][\w./@-]*=")

VERBS = {
    "denoise": "remove noise from pictures",
    "inpaint": "fill in what is missing",
    "deblur": "undo a known blur",
    "upscale": "make small pictures larger",
    "mri": "make images of raw MRI data",
    "speech": "restore recordings of speech: noise, gaps, clipping, a narrow band, a room",
    "simulate": "make measurements from clean pictures, to try things on",
    "compare": "restore simulated measurements with several samplers and score them",
    "calibrate": "learn from known truths how wide an honest interval is",
    "sweep": "try settings against each other (Hydra multirun)",
    "learn": "learn a prior from a folder of pictures",
    "replay": "make a result again from its run.json",
    "list": "name the samplers, operators, priors and settings there are",
    "doctor": "check this installation",
    "demo": "restore a picture that comes with scikit-image",
}


class UsageError(Exception):
    """What was typed cannot be done; said in one line, with a cure. Exit status 2."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UsageError`, and takes options and inputs in any order."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse, with a suggestion for an unknown option."""
        options, rest = self.parse_known_intermixed_args(argv)
        for word in rest:
            name = word.split("=")[0]
            flags = [f for f in self._option_string_actions if f.startswith("--")]
            raise UsageError(f"unknown option {name}{suggestion(name, flags)} (see `{self.prog} --help`)")
        return options


def noise(text: str) -> float | str:
    """`auto` or a positive number, as `0.05` or `12/255`."""
    if text == "auto":
        return text
    hint = "give the standard deviation in the picture's units, 0.05 or 12/255, or auto"
    try:
        top, _, bottom = text.partition("/")
        value = float(top) / (float(bottom) if bottom else 1.0)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a noise level: {hint}") from None
    if not 0 < value < float("inf"):
        why = "negative" if value < 0 else "zero" if value == 0 else "not finite"
        hint = "for a picture without visible noise give a little, such as 0.002" if value == 0 else hint
        raise argparse.ArgumentTypeError(f"the noise level {text} is {why}: {hint}")
    return value


class Law(NamedTuple):
    """What `--noise` says of a verb that knows more than Gaussian noise: its type, its level (the std of Gaussian, the
    gain of Poisson, the `k` of Gamma noise); what is `None` is to be found."""

    kind: str | None
    level: float | None


def law(text: str) -> Law:
    """`auto`, a type, a number (of Gaussian noise), or type and number, as `poisson:0.02`."""
    kind, colon, number = text.partition(":")
    if kind not in ("gaussian", "poisson", "gamma"):
        if colon or not (re.match(r"^[-+.\d]", text) or text in ("auto", "nan", "inf")):
            near = suggestion(kind, ("gaussian", "poisson", "gamma", "auto"))
            hint = "give 0.05, 12/255, poisson:0.02, gamma:50, gaussian, poisson, gamma or auto"
            raise argparse.ArgumentTypeError(f"{text!r} is not a noise level{near or ': ' + hint}")
        value = noise(text)
        return Law(None, None) if isinstance(value, str) else Law("gaussian", value)
    if not colon:
        return Law(kind, None)
    value = noise(number)
    return Law(kind, None if isinstance(value, str) else value)


def positive(text: str) -> float:
    """A noise level that cannot be estimated, because nothing was measured yet."""
    value = noise(text)
    if isinstance(value, str):
        raise argparse.ArgumentTypeError("there is no picture yet to estimate the noise from: give a number")
    return value


def count(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def counts(text: str) -> list[int]:
    """Whole numbers of at least 1, `2,2,2`."""
    return [count(part) for part in text.split(",")]


def rate(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def level(text: str) -> float:
    """A share between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a level: give a share between 0 and 1, such as 0.9")
    return value


def seed(text: str) -> int:
    """A whole number of at least 0."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative: a seed is a whole number from 0")
    return value


def parser(verb: str) -> Parser:
    """The options of one verb."""
    p = Parser(
        prog=f"restore {verb}", description=VERBS[verb], allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _ADD[verb](p)
    p.add_argument("--debug", action="store_true", help="show the Python traceback of an error")
    return p


def _restoring(p: Parser, inputs: str = "+", noises: Callable[[str], float | str | Law] = noise) -> None:
    p.add_argument("inputs", nargs=inputs, metavar="PICTURE|FOLDER|key=value", help="pictures or folders of pictures; "
                   "key=value changes a setting (`restore list settings`)")  # fmt: skip
    p.add_argument("-o", "--output", metavar="OUT", help="output file, or folder for several pictures")
    _drawing(p, noises)
    p.add_argument("--ref", metavar="TRUTH", help="the true picture or folder, to print the PSNR of the result")
    _calibration(p)
    p.add_argument("--jobs", type=count, default=1, metavar="N", help="pictures at a time, one thread each")
    p.add_argument("--overwrite", action="store_true", help="do finished pictures again; replace any file")
    p.add_argument("--json", action="store_true", help="one JSON object per picture on stdout")
    p.add_argument("--quiet", action="store_true", help="print errors only")


def _calibration(p: Parser) -> None:
    p.add_argument("--calibration", metavar="CAL.JSON|none", help="what `restore calibrate` wrote: scales the map of "
                   "--samples so that it covers what it says (default: the prior's own, where it fits)")  # fmt: skip


def _drawing(p: Parser, noises: Callable[[str], float | str | Law] = noise) -> None:
    p.add_argument("--noise", type=noises, metavar="S|auto",
                   help="standard deviation of the noise, in the picture's units: 0.05 or 12/255 "
                   "(default: estimated)" + ("; with --self-supervised also gaussian, poisson, gamma (the level is "
                   "estimated), poisson:0.02 (gain), gamma:50 (k)" if noises is law else ""))  # fmt: skip
    p.add_argument("--samples", type=count, metavar="K", help="draw K pictures; the result is their mean; writes them, "
                   "a map of their spread and a panel beside it")  # fmt: skip
    p.add_argument("--sampler", metavar="NAME", help="see `restore list samplers`")
    p.add_argument("--steps", type=count, metavar="N", help="steps of the sampler")
    p.add_argument("--prior", metavar="NAME|PATH", help="see `restore list priors`")
    p.add_argument("--seed", type=seed, metavar="N", help="same seed, same result (default: 0)")
    p.add_argument("--device", metavar="NAME", help="auto, cpu, cuda (default: auto)")


def _denoise(p: Parser) -> None:
    _restoring(p, noises=law)
    p.add_argument("--self-supervised", action="store_true", help="learn from these very pictures, then restore them: "
                   "for noise or pictures that no prior knows; minutes, and the same command goes on where it "
                   "was stopped")  # fmt: skip
    p.add_argument("--train-steps", type=count, metavar="N", help="steps of --self-supervised (default: 2000)")
    _noise_prior(p)


def _noise_prior(p: Parser) -> None:
    p.add_argument("--noise-prior", metavar="PATH", help="the noise has a structure, which this folder knows "
                   "(`restore learn --noise-only`); --noise is then the white noise besides it")  # fmt: skip


def _inpaint(p: Parser) -> None:
    _restoring(p)
    p.add_argument("--mask", metavar="HOLES", help="picture whose white marks what is missing, or a folder of such "
                   "with the names of the pictures (default: the transparent pixels)")  # fmt: skip
    p.add_argument("--invert-mask", action="store_true", help="black marks what is missing")


def _deblur(p: Parser) -> None:
    _restoring(p)
    p.add_argument("--kernel", required=True, metavar="PSF",
                   help="gaussian:2.0 (sigma), motion:15,30 (length, degrees), disk:4 (radius), "
                   "or a picture of a point")  # fmt: skip
    p.add_argument("--boundary", choices=("valid", "circular"), default="valid",
                   help="what lies beyond the frame: unknown (valid, default) or the other side")  # fmt: skip


def _upscale(p: Parser) -> None:
    _restoring(p)
    p.add_argument("-x", "--factor", type=int, choices=(2, 3, 4), default=2, help="how many times larger (default: 2)")
    p.add_argument("--kernel", choices=("bicubic", "block"), default="bicubic", help="how it was made small")


def acceleration(text: str) -> str:
    """`given`, a factor above 1, or `2x2`."""
    good = text == "given" or re.fullmatch(r"[1-9]x[1-9]", text) is not None
    try:
        good = good or 1 < float(text) <= 64
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not an acceleration: give a factor such as 4, 2x2, or given")
    return text


def sizes(text: str) -> tuple[int, int]:
    """`256,256`, two whole numbers of at least 1."""
    rows, _, columns = text.partition(",")
    return count(rows), count(columns or rows)


def span(text: str) -> tuple[int, int]:
    """`7` or `3:10`, counted from 0, as the first and the one after the last."""
    first, colon, last = text.partition(":")
    try:
        found = int(first or 0), int(last) if colon else int(first) + 1
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of slices: give 7, or 3:10 for 3 to 9") from None
    if not 0 <= found[0] < found[1]:
        raise argparse.ArgumentTypeError(f"{text!r} holds no slice: they are counted from 0, 3:10 is 3 to 9")
    return found


def _mri(p: Parser) -> None:
    p.add_argument("inputs", nargs="+", metavar="SCAN|key=value", help="fastMRI or ISMRMRD .h5, BART .cfl, .npy, .npz, "
                   ".mat, or NIfTI (an image); key=value changes a setting (`restore list settings`)")  # fmt: skip
    p.add_argument(
        "-o", "--output", metavar="OUT", help="scan.nii.gz (default), .nii, .npy, .png; a folder for several"
    )
    p.add_argument("--accel", type=acceleration, default="given", metavar="R|given", help="keep one line in R of what "
                   "was sampled, and check the result on the others (default: given, use all)")  # fmt: skip
    p.add_argument("--coils", default="espirit", metavar="espirit|FILE", help="sensitivities of the coils: estimated "
                   "from the centre of k-space (default), or a file (coil, y, x)")  # fmt: skip
    p.add_argument("--mask", metavar="FILE", help="what was sampled, (y, x) or lines (default: what is not zero)")
    p.add_argument("--slices", type=span, metavar="I|I:J", help="slice I, or I to J - 1, counted from 0 (default: all)")
    p.add_argument("--axes", metavar="A,B,C", help="the axes in the order of the file, of slice, coil, y, x, z, - "
                   "(default: by the format, else guessed and said)")  # fmt: skip
    p.add_argument("--key", metavar="NAME", help="the array to take, in a file that has several")
    p.add_argument("--image", action="store_true", help="the file holds complex images, and not k-space")
    p.add_argument("--phase", metavar="FILE", help="NIfTI of the phase in radians, where SCAN is of magnitudes")
    p.add_argument("--matrix", type=sizes, metavar="Y,X", help="size of the image, for a trajectory without one")
    _drawing(p)
    p.add_argument("--ref", metavar="TRUTH", help="the true images, (slice, y, x) or NIfTI, to print the PSNR")
    _calibration(p)
    p.add_argument("--overwrite", action="store_true", help="do finished scans again; replace any file")
    p.add_argument("--json", action="store_true", help="one JSON object per scan on stdout")
    p.add_argument("--quiet", action="store_true", help="print errors only")


def gaps(text: str) -> tuple[tuple[float, float], ...]:
    """`1.20-1.25,3-3.1`: beginnings and ends in seconds."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            a, b = float(first), float(last)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is no gap: give seconds, as in 1.20-1.25,3-3.1") from None
        if not 0 <= a < b < math.inf:
            raise argparse.ArgumentTypeError(f"{part!r} is no gap: it must begin at 0 or later and end after that")
        found.append((a, b))
    return tuple(found)


def _speech(p: Parser) -> None:
    p.add_argument("inputs", nargs="+", metavar="RECORDING|FOLDER|key=value", help="WAV, FLAC, OGG or MP3 files, or "
                   "folders of them; key=value changes a setting (`restore list settings`)")  # fmt: skip
    p.add_argument("-o", "--output", metavar="OUT", help="output file, or folder for several recordings")
    p.add_argument("--task", choices=("denoise", "gap", "declip", "bandwidth", "dereverb"), default="denoise",
                   help="what is wrong: noise of any kind (denoise, default), missing samples, clipping, nothing above "
                   "some frequency, a room whose response is known")  # fmt: skip
    p.add_argument("--gaps", type=gaps, default=(), metavar="A-B,...", help="what is missing, in seconds, as "
                   "1.20-1.25,3-3.1 (default: digital silence, or NaN)")  # fmt: skip
    p.add_argument("--clip", type=level, metavar="L", help="level of clipping, full scale being 1 (default: found)")
    p.add_argument("--cutoff", type=rate, metavar="HZ", help="where the band ends (default: found)")
    p.add_argument("--response", metavar="FILE", help="a recording of the room's response, for dereverb")
    p.add_argument("--noise-prior", metavar="NAME|PATH", help="the noise is of a kind that this knows: noises-16k, "
                   "or a folder (`restore learn --speech --noises sounds/`, or --noise-only)")  # fmt: skip
    _drawing(p)
    p.add_argument("--jobs", type=count, default=1, metavar="N", help="recordings at a time, one thread each")
    p.add_argument("--ref", metavar="TRUTH", help="the clean recording or folder, to print SI-SDR, and PESQ and ESTOI "
                   "if they are installed")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="do finished recordings again; replace any file")
    p.add_argument("--json", action="store_true", help="one JSON object per recording on stdout")
    p.add_argument("--quiet", action="store_true", help="print errors only")


def _measuring(p: Parser, noise_needed: bool) -> None:
    p.add_argument("--operator", required=noise_needed, metavar="SPEC",
                   default=None if noise_needed else "blur:gaussian:2.0",
                   help="identity, mask:0.7 (share missing), blur:gaussian:2.0, downsample:2; for simulate mri:R=4, "
                   "mri:R=2x2,coils=8")  # fmt: skip
    p.add_argument("--noise", type=positive, required=noise_needed, metavar="S", default=None if noise_needed else 0.02,
                   help="standard deviation, 0.05 or 12/255")  # fmt: skip


def _simulate(p: Parser) -> None:
    _measuring(p, noise_needed=True)
    p.add_argument(
        "--input",
        required=True,
        metavar="TRUTH",
        help="a clean picture or a folder of them; for mri also NIfTI, or fully sampled k-space",
    )
    p.add_argument("-o", "--output", required=True, metavar="MEAS", help="folder for the measurements")
    p.add_argument("--seed", type=seed, default=0, metavar="N")
    p.add_argument("--float", action="store_true", help="float TIFF, neither rounded nor clipped")
    p.add_argument("--quiet", action="store_true", help="print errors only")


def _compare(p: Parser) -> None:
    p.add_argument("inputs", nargs="+", metavar="MEAS|key=value", help="a folder that `simulate` made")
    p.add_argument("--samplers", metavar="A,B", help="default: those with a recipe for the task")
    p.add_argument("--ref", metavar="TRUTH", help="the true pictures (default: those that `simulate` was given)")
    p.add_argument("-o", "--output", required=True, metavar="REPORT", help="folder for the report")
    _calibration(p)
    _drawing(p)


def _calibrate(p: Parser) -> None:
    p.add_argument("inputs", nargs="+", metavar="MEAS|key=value", help="a folder that `simulate` made")
    p.add_argument("--ref", metavar="TRUTH", help="the true pictures (default: those that `simulate` was given)")
    p.add_argument("--level", type=level, default=0.9, metavar="P", help="share to be covered (default: 0.9)")
    p.add_argument("-o", "--output", required=True, metavar="CAL.JSON", help="file for the factors; one that "
                   "is there is added to")  # fmt: skip
    _drawing(p)


def _sweep(p: Parser) -> None:
    p.add_argument("overrides", nargs="+", metavar="key=a,b,c", help="settings to try in all combinations")
    _measuring(p, noise_needed=False)
    p.add_argument("--input", metavar="TRUTH", help="clean picture (default: one that comes with scikit-image)")
    p.add_argument("-o", "--output", default="multirun", metavar="OUT", help="folder (default: multirun)")


def _learn(p: Parser) -> None:
    p.add_argument("folders", nargs="+", metavar="FOLDER|key=value", help="folders of pictures or files; "
                   "objective.key=value changes a setting of the objective (`restore list settings`)")  # fmt: skip
    p.add_argument("-o", "--output", required=True, metavar="PRIOR", help="folder for the prior")
    p.add_argument("--objective", metavar="NAME", help="dsm (clean pictures; the default), ambient (noisy ones; the "
                   "default with --noise), sure_score (noisy ones; that of MR images), gsure (transparent pixels "
                   "were not seen); denoisers only: noise2score, gr2r (any noise), sure, r2r, pure (Poisson); sgmse: "
                   "see --noises")  # fmt: skip
    p.add_argument("--noise", type=law, metavar="S|auto", help="the pictures are noisy: standard deviation of the "
                   "noise, 0.1 or 25/255, or auto; poisson:0.02 (gain) or gamma:50 (k) for noise2score")  # fmt: skip
    p.add_argument("--clean", nargs="+", default=[], metavar="FOLDER", help="clean pictures besides, for ambient")
    p.add_argument("--steps", type=count, metavar="N")
    p.add_argument("--batch", type=count, metavar="N", help="patches per step")
    p.add_argument("--patch", type=count, metavar="PIXELS", help="side of a patch")
    p.add_argument("--start", metavar="NAME|PATH", help="a prior to begin with, in place of random weights")
    p.add_argument("--blocks", type=counts, metavar="N,N,...", help="residual blocks of each level of the network "
                   "(default: those of --start, else 2,2,2,2); more than --start has deepen it")  # fmt: skip
    p.add_argument("--lr", type=rate, metavar="RATE", help="peak learning rate (default: 0.001; less with --start)")
    p.add_argument("--device", metavar="NAME")
    p.add_argument("--seed", type=seed, default=0, metavar="N")
    p.add_argument("--noise-only", action="store_true", help="the pictures are recordings of noise alone around "
                   "mid-grey, which stands for zero, or with --speech they are sounds; the prior is for "
                   "--noise-prior")  # fmt: skip
    p.add_argument("--mri", action="store_true", help="the files are magnitudes of MR images, NIfTI volumes or "
                   "pictures of slices, or with --noise complex images, .npy or NIfTI; the prior is for "
                   "`restore mri`")  # fmt: skip
    p.add_argument("--speech", action="store_true", help="the files are recordings of clean speech; the prior is for "
                   "`restore speech`; --patch is in frames of 8 ms")  # fmt: skip
    p.add_argument("--noises", nargs="+", default=[], metavar="FOLDER", help="with --speech: recorded noises, to learn "
                   "by the objective sgmse how to take such noise off; for `restore speech --prior`")  # fmt: skip
    p.add_argument("--validation", nargs="+", default=[], metavar="FILE", help="files to validate on and not to learn "
                   "from (default: some are set aside)")  # fmt: skip
    p.add_argument("--compile", action="store_true", help="fuse the layers of the network: faster, after a minute")
    p.add_argument("--restart", action="store_true", help="do not go on with the run found in PRIOR")


def _replay(p: Parser) -> None:
    p.add_argument("record", metavar="RUN.JSON", help="the run.json beside a result")
    p.add_argument("-o", "--output", metavar="OUT", help="where to put it (default: where it was)")
    p.add_argument("--overwrite", action="store_true", help="replace any file")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    p.add_argument("--quiet", action="store_true", help="print errors only")


def _list(p: Parser) -> None:
    p.add_argument("what", choices=("samplers", "operators", "priors", "settings"))


def _nothing(p: Parser) -> None:
    pass


def _demo(p: Parser) -> None:
    p.add_argument("-o", "--output", default="restore-demo", metavar="FOLDER", help="default: restore-demo")
    _drawing(p)


_ADD = {
    "denoise": _denoise, "inpaint": _inpaint, "deblur": _deblur, "upscale": _upscale, "mri": _mri, "speech": _speech,
    "simulate": _simulate, "compare": _compare, "calibrate": _calibrate, "sweep": _sweep, "learn": _learn,
    "replay": _replay, "list": _list, "doctor": _nothing, "demo": _demo,
}  # fmt: skip


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Inputs and `key=value` settings; what is there as a file or folder is an input, whatever its name."""
    overrides = [w for w in words if OVERRIDE.match(w) and not os.path.exists(w)]
    return [w for w in words if w not in overrides], overrides
