"""Tables of the benchmark as Markdown, and the bars it has to clear."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tasks import SETS, TASKS

Row = dict[str, Any]


def _label(row: Row) -> str:
    if row["family"] != "ours":
        return row["method"]
    return f"**{row['method']}**, " + ("one draw" if row["draws"] == 1 else f"mean of {row['draws']}")


def _mean(rows: list[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _psnr(rows: list[Row]) -> str:
    """Mean and spread over the files."""
    values = [row["psnr"] for row in rows]
    return f"{statistics.fmean(values):.2f} ± {statistics.pstdev(values):.1f}" if values else ""


def tables(rows: list[Row]) -> str:
    """One Markdown table per task; PSNR in dB on each set, the rest over all files."""
    parts = []
    for task in TASKS.values():
        here = [row for row in rows if row["task"] == task.name]
        if not here:
            continue
        lines = [
            f"**{task.title}**",
            "",
            f"| method | {' | '.join(f'{s} PSNR' for s in SETS)} | SSIM | data fit | calls | s / picture |",
            "|---|" + "--:|" * (len(SETS) + 4),
        ]
        for label in dict.fromkeys(map(_label, here)):
            mine = [row for row in here if _label(row) == label]
            cells = [_psnr([row for row in mine if row["file"].startswith(s + "/")]) for s in SETS]
            cells += [f"{_mean(mine, 'ssim'):.3f}", f"{_mean(mine, 'fit'):.2f}"]
            cells += [f"{_mean(mine, 'nfe'):.0f}" if mine[0]["nfe"] else "", f"{_mean(mine, 'seconds'):.1f}"]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def bars(rows: list[Row]) -> str:
    """Best of ours against the best classical method and the best of deepinv, over all files of a task."""
    lines = []
    for task in TASKS.values():
        here = [row for row in rows if row["task"] == task.name]
        groups = {label: [row for row in here if _label(row) == label] for label in dict.fromkeys(map(_label, here))}
        ranked = sorted(((_mean(g, "psnr"), label, g[0]["family"]) for label, g in groups.items()), reverse=True)
        best = {family: (value, label) for value, label, family in reversed(ranked)}
        if "ours" not in best:
            continue
        line = f"- {task.name}: best of ours {best['ours'][0]:.2f} dB ({best['ours'][1]})"
        for family, least in (("classical", 1.0), ("deepinv", 0.0)):
            if family in best:
                gain = best["ours"][0] - best[family][0]
                line += f"; {gain:+.2f} dB over {best[family][1]}, bar {least:+.0f}: {verdict(gain >= least)}"
        fits = [_mean(g, "fit") for g in groups.values() if g[0]["family"] == "ours" and g[0]["draws"] == 1]
        line += f"; data fit of draws {min(fits):.2f} to {max(fits):.2f}, bar 0.9 to 1.1: "
        lines.append(line + verdict(min(fits) >= 0.9 and max(fits) <= 1.1))
    return "\n".join(lines) + "\n"


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name:begin -->` and `<!-- name:end -->`. Raises ValueError without markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = path.read_text()
    if begin not in old or end not in old:
        raise ValueError(f"{path} has no markers {begin} ... {end}")
    head, tail = old.split(begin)[0], old.split(end)[1]
    path.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}")
