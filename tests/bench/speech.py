"""Speech that was damaged by rule, restored: classical methods and ours, one table for each task.

    python tests/bench/speech.py --data ../shared/data --write README.md

Noise: recordings of speakers that no prior has heard, each with a stretch of another real ambience, at five ratios of
the power of speech to that of noise. Gaps, clipping, a narrow band, a room: the first of the same recordings, without
noise. Ours go through the command `restore speech`, file after file; scores of its single draws, averaged over them,
stand apart from those of their mean, and the time is that of all of them. What is scored lies in a folder, one row a
file in `results.jsonl`; a run that was stopped goes on. Spectral gating, PESQ and ESTOI are there if `noisereduce`,
`pesq` and `pystoi` are installed.

The same tables of validation speakers in noises of the training set, which `noises-16k` has heard, to choose the
constants of the unsupervised form by:

    python tests/bench/speech.py --speech speech/validation --noise noise/train --dense --cases noise
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import classical_speech as classical
import numpy as np
import soundfile
from report import verdict, write_between

from restore.audio_metrics import estoi, log_spectral_distance, pesq, si_sdr
from restore.beside import RECORD, sample
from restore.cli import main as restore_command

RATE = 16_000
SNRS = (-5, 0, 5, 10, 15)
GAPS = (20, 50, 100)  # ms, one in every half second
CLIPPED = (3, 10)  # dB, of what is left to what was cut off
BAND = 4000  # Hz
DRAWS = 4
FEW = 12  # recordings, where there is no noise
PAUSE = 0.005  # of the mean power of a recording
LOUDNESS = 0.05**2  # of recordings that are joined
BARRED = ("noise_0", "noise_5", "noise_10")  # where SI-SDR has to lead by more than nothing
SCORES = {"si_sdr": ("SI-SDR (dB)", 2), "pesq": ("PESQ", 3), "estoi": ("ESTOI", 3)}  # that have a bar, and their digits
HEADS = " | ".join(name for name, _ in SCORES.values())
HELD = f"| | | over | {HEADS} | below what was measured |\n|---|---|---|{'--:|' * len(SCORES)}---|"
REVERBERATION = 0.4  # s until a room is 60 dB quieter
Row = dict[str, Any]


def recordings(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac", ".ogg"))


def read(path: Path) -> np.ndarray:
    x, rate = soundfile.read(path, dtype="float64")
    assert rate == RATE and x.ndim == 1, f"{path}: one channel of {RATE} Hz is wanted"
    return x


def dense(paths: list[Path], folder: Path) -> list[Path]:
    """Recordings in `folder`, each followed by the next one as loud as itself, with short pauses only: commands to a
    device rest for two thirds of the time, and tell more of the noise than sentences that are read."""
    folder.mkdir(exist_ok=True)
    found = [without_pauses(read(path)) for path in paths]
    found = [x * np.sqrt(LOUDNESS / np.square(x).mean()) for x in found]
    for path, x, after in zip(paths, found, found[1:] + found[:1], strict=True):
        soundfile.write(folder / f"{path.stem}.wav", np.concatenate([x, after]), RATE, subtype="FLOAT")
    return [folder / f"{path.stem}.wav" for path in paths]


def without_pauses(x: np.ndarray, rest: float = 0.1) -> np.ndarray:
    """What is further than `rest` seconds from all that is loud is cut, in blocks of 10 ms."""
    blocks = x[: len(x) // (RATE // 100) * (RATE // 100)].reshape(-1, RATE // 100)
    power = np.square(blocks).mean(1)
    near = np.convolve(power > PAUSE * power.mean(), np.ones(2 * round(100 * rest) + 1), "same") > 0
    return blocks[near].ravel()


@dataclass(frozen=True)
class Case:
    """A kind of damage.

    Attributes:
        name: in folders and rows.
        title: in tables.
        options: of `restore speech`.
        damaged: clean speech, its number -> what is measured.
        methods: of classical restoration: measured, clean, number -> restored.
    """

    name: str
    title: str
    options: list[str]
    damaged: Callable[[np.ndarray, int], np.ndarray]
    methods: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]]


def cases(noises: list[np.ndarray], response: np.ndarray, room: Path) -> Iterator[Case]:
    gating = {"spectral gating (noisereduce)": lambda y, x, i: classical.gated(y)} if find_spec("noisereduce") else {}
    for snr in SNRS:
        yield Case(
            f"noise_{snr}",
            f"real noises, {snr} dB",
            [],
            lambda x, i, snr=snr: noisy(x, noises[i % len(noises)], snr, i),
            {
                **gating,
                "Wiener, tracked noise": lambda y, x, i: classical.suppressed(y, False),
                "log-MMSE, tracked noise": lambda y, x, i: classical.suppressed(y, True),
            },
        )
    for ms in GAPS:
        yield Case(
            f"gap_{ms}",
            f"gaps of {ms} ms, two a second",
            ["--task", "gap"],
            lambda x, i, ms=ms: emptied(x, gaps(len(x), ms)),
            {"linear prediction": lambda y, x, i, ms=ms: classical.predicted(y, gaps(len(y), ms))},
        )
    for db in CLIPPED:
        yield Case(
            f"clip_{db}",
            f"clipped, {db} dB",
            ["--task", "declip"],
            lambda x, i, db=db: np.clip(x, -clip_level(x, db), clip_level(x, db)),
            {"A-SPADE": lambda y, x, i, db=db: classical.declipped(y, clip_level(x, db) * (1 - 1e-6))},
        )
    yield Case(
        "band", f"nothing above {BAND} Hz", ["--task", "bandwidth", "--cutoff", str(BAND)],
        lambda x, i: narrow(x), {},
    )  # fmt: skip
    yield Case(
        "room",
        f"a room of {REVERBERATION} s, known",
        ["--task", "dereverb", "--response", str(room)],
        lambda x, i: np.convolve(x, response)[: len(x)],
        {"inverse filter, best in hindsight": lambda y, x, i: classical.inverted(y, response, x)},
    )


def noisy(x: np.ndarray, noise: np.ndarray, snr: float, i: int) -> np.ndarray:
    start = int(np.random.default_rng(i).integers(max(1, len(noise) - len(x))))
    n = np.resize(noise[start:], len(x))
    return x + n * np.sqrt(np.square(x).mean() / np.square(n).mean()) * 10 ** (-snr / 20)


def gaps(length: int, ms: int) -> list[tuple[int, int]]:
    width = ms * RATE // 1000
    return [(a, a + width) for a in range(RATE // 4, length - width - RATE // 10, RATE // 2)]


def emptied(x: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    y = x.copy()
    for a, b in spans:
        y[a:b] = np.nan
    return y


def clip_level(x: np.ndarray, db: float) -> float:
    """At which the power of the speech is `db` above that of what is cut off: by bisection."""
    low, high = 0.0, float(np.abs(x).max())
    for _ in range(50):
        middle = (low + high) / 2
        ratio = np.square(x).sum() / max(np.square(x - np.clip(x, -middle, middle)).sum(), 1e-30)
        low, high = (middle, high) if 10 * np.log10(ratio) < db else (low, middle)
    return high


def narrow(x: np.ndarray) -> np.ndarray:
    X = np.fft.rfft(x)
    X[np.fft.rfftfreq(len(x), 1 / RATE) > BAND] = 0
    return np.fft.irfft(X, len(x))


def simulated_room() -> np.ndarray:
    """Direct sound, then Gaussian noise that decays, as loud in all as the direct sound."""
    t = np.arange(int(REVERBERATION * RATE)) / RATE
    tail = np.random.default_rng(0).standard_normal(len(t)) * 10 ** (-3 * t / REVERBERATION)
    tail[: RATE // 200] = 0
    h = tail / np.linalg.norm(tail)
    h[0] = 1
    return h


def scored(x: np.ndarray, y: np.ndarray, estimate: np.ndarray) -> Row:
    """Over the whole file; of gaps the SI-SDR is that within them."""
    missing = ~np.isfinite(y)
    one, truth = (estimate[missing], x[missing]) if missing.any() else (estimate, x)
    row = {"si_sdr": si_sdr(one, truth), "lsd": log_spectral_distance(estimate, x)}
    for name, score in (("pesq", pesq), ("estoi", estoi)):
        try:
            row[name] = score(estimate, x, RATE)
        except ModuleNotFoundError:
            row[name] = float("nan")
    return row


def ours(case: Case, file: Path, out: Path, prior: str, extra: list[str]) -> None:
    out.mkdir(exist_ok=True)
    told = ["speech", str(file), "--prior", prior, "--samples", str(DRAWS), *case.options, *extra]
    if restore_command([*told, "-o", str(out / f"{file.stem}.wav"), "--overwrite", "--quiet"]):
        raise SystemExit(1)


def run(case: Case, clean: list[Path], work: Path, prior: str, forms: dict[str, list[str]]) -> list[Row]:
    folder = work / case.name
    (folder / "measured").mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["method"], row["file"]) for row in rows}
    measured = []
    for i, path in enumerate(clean):
        measured.append(folder / "measured" / f"{path.stem}.wav")
        soundfile.write(measured[-1], case.damaged(read(path), i), RATE, subtype="FLOAT")

    def kept(path: Path, x: np.ndarray, y: np.ndarray, seconds: float, found: dict[str, list[np.ndarray]]) -> None:
        """Scores are averaged over the estimates of a method; the last one's time is told."""
        new = []
        for method, estimates in found.items():
            each = [scored(x, y, estimate) for estimate in estimates]
            rtf = seconds / (len(x) / RATE) if method == list(found)[-1] else float("nan")
            new.append({"case": case.name, "method": method, "file": path.stem, "rtf": rtf})
            new[-1] |= {name: fmean(scores[name] for scores in each) for name in each[0]}
        rows.extend(new)
        with results.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in new))

    for i, (path, source) in enumerate(zip(clean, measured, strict=True)):
        x, y = read(path), read(source)
        for method, restored in {"measured": lambda y, x, i: np.nan_to_num(y), **case.methods}.items():
            if (method, path.stem) not in done:
                start = time.perf_counter()
                estimate = restored(y, x, i)
                kept(path, x, y, time.perf_counter() - start, {method: [estimate]})
    for form, extra in forms.items():
        one, mean = f"**{form}**, one draw", f"**{form}**, mean of {DRAWS}"
        wanted = [(p, m) for p, m in zip(clean, measured, strict=True) if (mean, p.stem) not in done]
        out = folder / form.replace(" ", "_")
        for path, source in wanted:  # one by one, so that a run that was stopped goes on
            ours(case, source, out, prior, extra)
            restored_file = out / f"{source.stem}.wav"
            draws = [read(out / f"{source.stem}{sample(restored_file, i)}") for i in range(1, DRAWS + 1)]
            seconds = json.loads(restored_file.with_suffix(RECORD).read_text())["result"]["seconds"]
            x, y = read(path), read(source)
            kept(path, x, y, seconds, {one: draws, mean: [np.mean(draws, 0)]})
    order = {path.stem: i for i, path in enumerate(clean)}
    return [row for row in rows if row["file"] in order]


def table(case: Case, rows: list[Row]) -> str:
    lines = [
        f"**{case.title}**",
        "",
        "| method | SI-SDR (dB) | LSD (dB) | PESQ | ESTOI | RTF |",
        "|---" + "|--:" * 5 + "|",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        cells = []
        for name, form in (("si_sdr", ".1f"), ("lsd", ".1f"), ("pesq", ".2f"), ("estoi", ".3f")):
            values = [row[name] for row in mine if np.isfinite(row[name])]
            cells.append(f"{fmean(values):{form}} ± {pstdev(values):{form}}" if values else "")
        rtf = [r["rtf"] for r in mine if np.isfinite(r["rtf"])]
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {f'{fmean(rtf):.2f}' if rtf else ''} |")
    return "\n".join(lines) + "\n"


def bars(case: Case, rows: list[Row]) -> list[str]:
    """Rows of a table: the means of our draws against the classical method of the best SI-SDR (the mean of the
    differences, file by file, and its standard error), and where they are below what was measured."""

    def gain(mine: str, other: str, score: str) -> tuple[float, float]:
        one, two = ({row["file"]: row[score] for row in rows if row["method"] == m} for m in (mine, other))
        gains = [one[file] - two[file] for file in one]
        return fmean(gains), pstdev(gains) / max(1, len(gains) - 1) ** 0.5

    known = [score for score in SCORES if all(np.isfinite(row[score]) for row in rows)]
    best = max(case.methods, key=lambda method: gain(method, "measured", "si_sdr")[0])
    lines = []
    for mine in dict.fromkeys(row["method"] for row in rows if row["method"].endswith(f"mean of {DRAWS}")):
        least = {"si_sdr": 1.0 if mine.startswith("**restore speech**") else 2.0} if case.name in BARRED else {}
        cells = dict.fromkeys(SCORES, "")
        for score in known:
            (mean, error), (_, digits), bar = gain(mine, best, score), SCORES[score], least.get(score, 0.0)
            cells[score] = f"{mean:+.{digits}f} ± {error:.{digits}f}, bar {bar:g}: {verdict(mean >= bar)}"
        below = ", ".join(SCORES[score][0] for score in known if gain(mine, "measured", score)[0] < 0)
        lines.append(f"| {case.title} | {mine} | {best} | {' | '.join(cells.values())} | {below} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with speech/ and noise/")
    parser.add_argument("--speech", default="speech/test", help="clean recordings, in it")
    parser.add_argument("--noise", default="noise/test", help="noises, in it")
    parser.add_argument("--dense", action="store_true", help="two recordings in one, long pauses cut")
    parser.add_argument("--prior", default="speech-16k")
    parser.add_argument("--noise-prior", help="folder of a prior on noises, for another row")
    parser.add_argument("--enhancer", default="noises-16k", help="what `restore learn --speech --noises` wrote")
    parser.add_argument("--cases", help="comma-separated beginnings of their names: noise, gap_20, clip, band, room")
    parser.add_argument("--files", type=int, help="recordings, for a quick look")
    parser.add_argument("--work", type=Path, default=Path("outputs/bench/speech"))
    parser.add_argument("--write", type=Path, help="put the tables between the markers of this file")
    args = parser.parse_args()

    clean = recordings(args.data / args.speech)[: args.files]
    noises = [read(path) for path in recordings(args.data / args.noise)]
    args.work.mkdir(parents=True, exist_ok=True)
    clean = dense(clean, args.work / "dense") if args.dense else clean
    response, room = simulated_room(), (args.work / "room.wav").absolute()
    soundfile.write(room, response, RATE, subtype="FLOAT")
    learnt = {"restore speech, noise learnt": ["--noise-prior", args.noise_prior]} if args.noise_prior else {}
    learnt["restore speech, noise as SGMSE+ hears it"] = ["--noise-prior", args.enhancer]
    learnt["SGMSE+, supervised"] = ["--prior", args.enhancer]
    parts, held = [], [HELD]
    for case in cases(noises, response, room):
        if args.cases is None or case.name.startswith(tuple(args.cases.split(","))):
            forms = {"restore speech": [], **(learnt if not case.options else {})}
            files = clean[:FEW] if case.options else clean
            rows = run(case, files, args.work, args.prior, forms)
            parts.append(table(case, rows))
            held += bars(case, rows) if not case.options else []
            print(parts[-1], flush=True)
    print("\n".join(held))
    if args.write:
        write_between(args.write, "speech", "\n".join([*parts, *held]))


if __name__ == "__main__":
    main()
