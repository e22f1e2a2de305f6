"""The ablation as a page: tables, curves against candidates and seconds, cases as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

Rows = list[dict[str, Any]]
_COLUMNS = ("raw", "raw mean", "descent", "learned", "best few", "learned mean")
_INK = {2: "#0072B2", 3: "#D55E00", 4: "#009E73", 5: "#CC79A7"}


def write_report(rows: Rows, out: Path) -> str:
    """Write ablation.md and the pictures to `out`; returns the tables as Markdown."""
    tables = "\n\n".join(_table(rows, n) for n in sorted({row["sources"] for row in rows}))
    (out / "ablation.md").write_text(tables + "\n", "utf-8")
    _curves(rows, out / "ablation-curves.png")
    for cases in sorted(out.glob("cases-*.pt")):
        _cases(torch.load(cases, weights_only=True), out / f"ablation-{cases.stem}.png")
    return tables


def _table(rows: Rows, n: int) -> str:
    lines = [
        f"**{n} sources** (PSNR in dB, mean ± standard error over the mixtures)",
        "",
        "| | setting | " + " | ".join(_COLUMNS) + " | s a mixture |",
        "|---|---|" + "---|" * (len(_COLUMNS) + 1),
    ]
    for row in rows:
        if row["sources"] == n:
            cells = [_spread(row[column]) if column in row else "" for column in _COLUMNS]
            seconds = f"{row['seconds']:.2f}" if "seconds" in row else ""
            lines.append(f"| {row['group']} | {row['setting']} | {' | '.join(cells)} | {seconds} |")
            if row["group"] == "limits":
                floor = _spread(row["floor"])
                lines.append(f"| limits | mixture copied | {floor} |" + " |" * len(_COLUMNS))
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values) / max(len(values) - 1, 1) ** 0.5:.2f}"


def _curves(rows: Rows, path: Path) -> None:
    """PSNR of the default against its candidates, and against the seconds that they take."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for n in sorted({row["sources"] for row in rows}):
        own = [row for row in rows if (row["sources"], row["group"]) == (n, "candidates")]
        own.sort(key=lambda row: row["candidates"])
        if not own:
            continue
        for stage, style, what in (("raw mean", "--", "raw"), ("learned mean", "-", "refined")):
            values = [np.mean(row[stage]) for row in own]
            colour = _INK.get(n, "black")
            label = f"{n} sources, {what}"
            left.plot([row["candidates"] for row in own], values, style, marker="o", color=colour,
                      markersize=4, label=label)  # fmt: skip
            seconds = [row["seconds"] + row["refine_seconds"].get("Learned", 0.0) for row in own]
            right.plot(seconds, values, style, marker="o", color=colour, markersize=4)
    left.set_xscale("log", base=2)
    right.set_xscale("log")
    right.set_xticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    right.minorticks_off()
    left.set_xlabel("candidates")
    right.set_xlabel("seconds a mixture")
    left.set_ylabel("PSNR, dB")
    if left.lines:
        figure.legend(*left.get_legend_handles_labels(), fontsize=7, loc="outside lower center",
                      ncols=4, handlelength=3.5)  # fmt: skip
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _cases(drawn: dict[str, torch.Tensor], path: Path) -> None:
    """The best, a typical and the worst mixtures: what was given, found and true."""
    from matplotlib.figure import Figure

    found, truths = drawn["found"], drawn["truths"]
    psnr = -10 * (found - truths).square().flatten(2).mean(2).clamp_min(1e-10).log10().mean(1)
    order, middle = psnr.argsort(), len(psnr) // 2
    picks = {"worst": order[:3], "typical": order[middle - 1 : middle + 2], "best": order[-3:]}
    n = truths.shape[1]
    figure = Figure(figsize=(1.1 * (2 * n + 1), 1.15 * 9), layout="constrained")
    axes = figure.subplots(9, 2 * n + 1, squeeze=False)
    place = 0
    for what, indices in picks.items():
        for index in indices.tolist():
            images = [drawn["mixtures"][index], *found[index], *truths[index]]
            names = ["mixture", *["found"] * n, *["true"] * n]
            for axis, image, name in zip(axes[place], images, names, strict=True):
                axis.imshow(image[0].clamp(0, 1), cmap="gray", vmin=0, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
                if place == 0:
                    axis.set_title(name, fontsize=8)
            axes[place][0].set_ylabel(f"{what}\n{float(psnr[index]):.1f} dB", fontsize=7)
            place += 1
    figure.savefig(path, dpi=90)
