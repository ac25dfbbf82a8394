"""Tables of results in README and docs/, from the committed CSVs; ``make notebooks`` writes them, a test compares."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from wsolkit import methods
from wsolkit.study import compare
from wsolkit.study.statistics import half_width
from wsolkit.study.tables import METRIC_NAMES, SMALL, V2_NAMES

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/results.md")
DEMO = "figures/demo"
PHOTOS = "figures/photos"
PRETRAININGS = tuple(f"{DEMO}/pretraining-{number}" for number in (1, 2))
MACHINES = {"portable kernels, SSE4.1": f"{DEMO}/machine-sse41"}
HEADS = tuple(head for name in METRIC_NAMES.values() for head in (name, "paper"))
JUDGED = {"all": "gt_known_loc", "largest box at most half": SMALL}
SIGNS = {"reproduced": "✓", "not reproduced": "✗", "inconclusive": "?"}


def filled(text: str, root: Path = ROOT) -> str:
    """A page with what stands between ``<!-- name -->`` and ``<!-- end -->`` drawn up anew from a clone's results."""
    demo, photos = root / DEMO, root / PHOTOS
    pretrainings = [root / folder for folder in PRETRAININGS]
    others = {name: root / folder for name, folder in MACHINES.items()}
    tables = {
        "table 7": table7(demo),
        "claims": claims(demo, pretrainings),
        "claims, held": held(demo, pretrainings),
        "claims, contradicted": contradicted(demo, pretrainings),
        "table 7, pretrainings": ablations(dict(zip(("published", "1", "2"), (demo, *pretrainings), strict=True))),
        "table 7, machines": ablations({"AMD EPYC, AVX-512": demo} | others),
        "machines": machines(demo, others),
        "table 4": table4(demo),
        "tuning": tuning(demo),
        "as printed": as_printed(demo),
        "claims, counted": counted({"demo": demo, "photos": photos}),
        "photos, maps": maps(photos),
        "photos, table 7": table7(photos),
        "photos, table 6": table6(photos),
        "photos, table 1": table1(photos),
        "photos, table 4": table4(photos),
        "photos, tuning": tuning(photos),
        "photos, as printed": as_printed(photos),
        "photos, claims": claims(photos),
    }
    for name, table in tables.items():
        if f"<!-- {name} -->" not in text:
            continue
        head, rest = text.split(f"<!-- {name} -->\n", 1)
        text = f"{head}<!-- {name} -->\n{table}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return text


def table7(folder: Path) -> str:
    """Tab. 7 beside the paper's numbers, with the effect of each row."""
    return _ablation(folder / "table7_ablation_summary.csv", "loss terms")


def table6(folder: Path) -> str:
    """Tab. 6 beside the paper's numbers."""
    return _ablation(folder / "table6_dropout_vs_eil_summary.csv", "trained with")


def _ablation(path: Path, named: str) -> str:
    """All metrics of all rows; where they are known, effects and GT-known Loc of pictures with small objects."""
    summary = pd.read_csv(path)
    lines, small, effects = [], (summary["metric"] == SMALL).any(), "effect_pct" in summary
    for row, group in summary.groupby("row", sort=False):
        line = [row, *_metrics(group)]
        if effects:
            line.append(next(filter(None, map(_effect, group.to_dict("records"))), ""))
        if small:
            line.append(_beside(group[group["metric"] == SMALL].iloc[0])[0])
        lines.append(line)
    above = ["GT-known above vanilla [95%]"] if effects else []
    return _markdown([named, *HEADS, *above, *(["GT-known, box at most half"] if small else [])], lines)


def table1(folder: Path) -> str:
    """The rows of Tab. 1 that were trained, beside the paper's numbers."""
    summary = pd.read_csv(folder / "table1_cub_vgg16_summary.csv")
    return _trained(summary, METRIC_NAMES)


def table4(folder: Path) -> str:
    """The rows of Tab. 4 on CUB with VGG16 that were trained, beside the paper's numbers."""
    summary = pd.read_csv(folder / "table4_maxboxaccv2_summary.csv")
    return _trained(summary.query("dataset == 'CUB' and backbone == 'VGG16'"), V2_NAMES)


def _trained(summary: pd.DataFrame, names: Mapping[str, str]) -> str:
    lines = []
    for row, group in summary.dropna(subset="mean_pct").groupby("row", sort=False):
        by_metric = group.set_index("metric").reindex(list(names))
        lines.append([str(row), *(cell for metric in names for cell in _beside(by_metric.loc[metric]))])
    return _markdown(["method", *(head for name in names.values() for head in (name, "paper"))], lines)


def tuning(folder: Path) -> str:
    """What was tried for each method, and what was chosen: its own paper's values, and the best three."""
    tried = pd.read_csv(folder / "tuning.csv")
    ranks = tried.sort_values(["repetitions", "max_box_acc_v2"], ascending=False).groupby("method").cumcount()
    tried = tried[(ranks < 3) | (tried["setting"] == 0) | tried["chosen"]]
    named = {"bridging": "ours", "eil": "EIL", "published": "ours, the paper's settings"}
    lines = [
        [
            named.get(trial.method) or methods.find(trial.method).label,
            trial.options if isinstance(trial.options, str) else "",
            str(trial.repetitions),
            f"{trial.max_box_acc_v2:.1f}",
            f"{trial.gt_known_loc:.1f}",
            f"{trial.top1_cls:.1f}",
            "✓" if trial.chosen else "",
        ]
        for trial in tried.itertuples()
    ]
    ours = " (ours: than chosen)" if "bridging" in set(tried["method"]) else ""
    other = f"other than its paper's values{ours}"
    return _markdown(["method", other, "seeds", "MaxBoxAccV2", "GT-known Loc", "Top-1 class.", "chosen"], lines)


def as_printed(folder: Path) -> str:
    """Ours with the best of the paper's settings beside every method: means and deviations, and how far it is above."""
    summary = pd.read_csv(folder / "tuning_printed.csv").sort_values("max_box_acc_v2", ascending=False)
    known, metrics = V2_NAMES | METRIC_NAMES, ("max_box_acc_v2", "gt_known_loc", "top1_loc")
    lines = [
        [row["method"], *(f"{row[m]:.1f} ± {row[f'{m}_sd']:.1f}" for m in metrics), row["gt_known_loc_below"]]
        for row in summary.fillna({"gt_known_loc_below": ""}).to_dict("records")
    ]
    return _markdown(
        ["method", *(known[metric] for metric in metrics), "the paper's settings above it, GT-known [95%]"], lines
    )


def maps(folder: Path) -> str:
    """GT-known Loc of CAM, F and S, of vanilla and of ours: means over the seeds with their 95% t intervals."""
    rows = pd.read_csv(folder / "table5_maps.csv")
    kinds, lines = ("CAM", "F", "S"), []
    for method, before in (("vanilla", "vanilla, "), ("ours", "")):
        for judged, metric in JUDGED.items():
            cells = [_mean(rows[(rows["row"] == f"{before}{kind}") & (rows["metric"] == metric)]) for kind in kinds]
            lines.append([method, judged, *cells])
    box = rows[rows["row"] == "centred box"].set_index("metric")["value"] * 100
    lines += [["a centred box", judged, f"{box[metric]:.1f}", "", ""] for judged, metric in JUDGED.items()]
    return _markdown(["trained", "test pictures", *kinds], lines)


def _mean(rows: pd.DataFrame) -> str:
    percent = rows["value"] * 100
    return f"{percent.mean():.1f} ± {half_width(percent.std(), percent.count()):.1f}"


def claims(folder: Path, others: Sequence[Path] = ()) -> str:
    """The paper's claims with their verdicts, where there are runs to judge by; and those from other pretrainings."""
    published, *more = _boards(folder, others).items()
    board = published[1].query("verdict != 'not measured'")
    signs = {**SIGNS, "not measured": "–"}
    shown = board.assign(verdict=board["verdict"].map(lambda verdict: f"{SIGNS[verdict]} {verdict}"))
    for name, other in more:
        shown[name] = other["verdict"].map(signs)
    columns = ["text", "where", "measured", "verdict", *(name for name, _ in more)]
    return _markdown(["claim", *columns[1:]], shown[columns].fillna("").to_numpy().tolist())


def held(folder: Path, others: Sequence[Path]) -> str:
    """What becomes of the claims that are reproduced from the published weights, from other pretrainings."""
    verdicts = _verdicts(_boards(folder, others)).query("`published weights` == 'reproduced'")
    lines = [[name, *(str((verdicts[name] == sign).sum()) for sign in SIGNS)] for name in verdicts.columns[1:]]
    every = str((verdicts == "reproduced").all(axis=1).sum())
    return _markdown(["from", *SIGNS], [*lines, ["all three", every, "", ""]])


def contradicted(folder: Path, others: Sequence[Path]) -> str:
    """Claims that one pretraining reproduces and another does not, with the effect that decided."""
    boards = _boards(folder, others)
    verdicts = _verdicts(boards)
    opposite = (verdicts == "reproduced").any(axis=1) & (verdicts == "not reproduced").any(axis=1)
    lines = []
    for claim, found in verdicts[opposite].iterrows():
        measured = [board.at[claim, "measured"] for board in boards.values()]
        cells = [f"{SIGNS[verdict]} {_decisive(words)}" for verdict, words in zip(found, measured, strict=True)]
        lines.append([boards["published weights"].at[claim, "text"], *cells])
    return _markdown(["claim", *boards], lines)


def _decisive(measured: str) -> str:
    """Metric, effect and interval of what a claim's row says was measured."""
    found = re.fullmatch(r"([^:]+): .*?([+-][\d.]+ \[.+?\]).*", measured)
    assert found, measured
    return " ".join(found.groups())


def _boards(folder: Path, others: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """The claims from the published weights and from other pretrainings, by name."""
    places = {"published weights": folder} | {other.name.replace("-", " "): other for other in others}
    return {name: pd.read_csv(place / "claims_summary.csv", index_col="claim") for name, place in places.items()}


def _verdicts(boards: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame({name: board["verdict"] for name, board in boards.items()})


def ablations(folders: Mapping[str, Path]) -> str:
    """Tab. 7 from several folders by name: mean and deviation over the seeds."""
    summaries = {name: pd.read_csv(folder / "table7_ablation_summary.csv") for name, folder in folders.items()}
    heads, columns = ["loss terms"], []
    for metric in ("top1_loc", "gt_known_loc"):
        for name, summary in summaries.items():
            heads.append(f"{METRIC_NAMES[metric]}, {name}")
            cells = summary[summary["metric"] == metric].iterrows()
            columns.append(pd.Series({cell["row"]: _beside(cell)[0] for _, cell in cells}))
    table = pd.concat(columns, axis=1).dropna()
    return _markdown(heads, [[row, *cells] for row, *cells in table.itertuples()])


def machines(first: Path, others: Mapping[str, Path]) -> str:
    """How many numbers of other machines are those of the first, and how many verdicts."""
    lines = []
    for name, folder in others.items():
        numbers, changed = compare.numbers(first, folder), compare.verdicts(first, folder)
        states = compare.by_notebook(numbers)[["equal", "within", "outside"]].sum()
        opposite = len(compare.contradictory(changed))
        judged = (folder / "claims_summary.csv").exists()
        verdicts = (opposite, len(changed) - opposite) if judged else ("–", "–")
        lines.append([name, *map(str, (len(numbers), *states, *verdicts))])
    heads = ("compared with", "numbers", "equal", "within the interval", "outside", "opposite verdicts")
    return _markdown([*heads, "open in only one"], lines)


def counted(folders: Mapping[str, Path]) -> str:
    """How many claims have which verdict, by profile."""
    boards = {name: pd.read_csv(folder / "claims_summary.csv")["verdict"] for name, folder in folders.items()}
    verdicts = [*SIGNS, "not measured"]
    lines = [[name, *(str(int((board == verdict).sum())) for verdict in verdicts)] for name, board in boards.items()]
    return _markdown(["profile", *verdicts], lines)


def _metrics(group: pd.DataFrame) -> list[str]:
    """Every metric of a row, here and in the paper."""
    by_metric = group.set_index("metric")
    cells = [_beside(by_metric.loc[metric]) if metric in by_metric.index else ["", ""] for metric in METRIC_NAMES]
    return [cell for pair in cells for cell in pair]


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
    for page in (ROOT / name for name in PAGES):
        page.write_text(filled(page.read_text()))
