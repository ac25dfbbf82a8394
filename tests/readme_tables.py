"""The tables of results in the README, from the committed CSVs; ``make notebooks`` writes them, a test compares."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "figures" / "demo"
METRICS = ("top1_loc", "top5_loc", "gt_known_loc")
SIGNS = {"reproduced": "✓", "not reproduced": "✗", "inconclusive": "?", "not measured": "–"}


def filled(text: str) -> str:
    """The README with what stands between ``<!-- name -->`` and ``<!-- end -->`` drawn up anew."""
    for name, table in {"table 7": table7(), "claims": claims()}.items():
        head, rest = text.split(f"<!-- {name} -->\n", 1)
        text = f"{head}<!-- {name} -->\n{table}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return text


def table7() -> str:
    """Tab. 7 beside the paper's numbers."""
    summary = pd.read_csv(DEMO / "table7_ablation_summary.csv")
    heads = ["loss terms"]
    for name in ("Top-1 Loc", "Top-5 Loc", "GT-known Loc"):
        heads += [name, "paper"]
    lines = []
    for row, group in summary.groupby("row", sort=False):
        by_metric = group.set_index("metric")
        cells = [row]
        for metric in METRICS:
            cells += _beside(by_metric.loc[metric]) if metric in by_metric.index else ["", ""]
        lines.append([*cells, next(filter(None, map(_effect, group.to_dict("records"))), "")])
    return _markdown([*heads, "GT-known above vanilla [95%]"], lines)


def claims() -> str:
    """The paper's claims with their verdicts."""
    board = pd.read_csv(DEMO / "claims_summary.csv")
    shown = board.assign(verdict=board["verdict"].map(lambda verdict: f"{SIGNS[verdict]} {verdict}"))
    columns = ["text", "where", "measured", "verdict"]
    return _markdown(["claim", *columns[1:]], shown[columns].fillna("").to_numpy().tolist())


def _beside(cell: pd.Series) -> list[str]:
    spread = "" if pd.isna(cell["sd_pct"]) else f" ± {cell['sd_pct']:.1f}"
    here = "" if pd.isna(cell["mean_pct"]) else f"{cell['mean_pct']:.1f}{spread}"
    return [here, "" if pd.isna(cell["paper_pct"]) else f"{cell['paper_pct']:.2f}"]


def _effect(cell: dict) -> str:
    if pd.isna(cell["effect_pct"]):
        return ""
    return f"{cell['effect_pct']:+.1f} [{cell['low_pct']:+.1f}, {cell['high_pct']:+.1f}]"


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *lines])


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
