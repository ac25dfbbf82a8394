"""What the paper claims, as data; `wsolkit.study.claims` checks it."""

from functools import partial
from typing import Any

from wsolkit import published
from wsolkit.metrics import IOU_THRESHOLDS
from wsolkit.study import sweeps
from wsolkit.study.claims import SEEN, Claim, Comparison, experiment
from wsolkit.study.study import Study
from wsolkit.study.tables import METRIC_NAMES

VANILLA, DROP, SIM = experiment(), experiment("drop"), experiment("sim")
SIM_NORM, DROP_SIM = experiment("sim", "norm"), experiment("drop", "sim")
OURS = experiment("drop", "sim", "norm")
EIL, EIL_ALIGNED = experiment("eil"), experiment("eil", "sim", "norm")

LITTLE = 0.02
"""What we take the paper's "little" and "insignificant" changes of GT-known Loc to be: two points."""

OTHER_WEIGHTS = ("lambda_norm", "lambda_drop")

BLOCKS = (("CUB", "VGG16"), ("CUB", "ResNet50"), ("ImageNet-1K", "VGG16"), ("ImageNet-1K", "ResNet50"))
"""Data sets and backbones of Tab. 1 to 4."""


def statements(study: Study) -> list[Claim]:
    """All claims that a profile has the data for; those on sweeps are about settings around the profile's best."""
    fixed = [*_ablation(), *_erasing(), *_maps(), *_comparisons(study)]
    return [*fixed, *_sensitivity(study)]


def _all_metrics(ours: tuple, baseline: tuple, margin: float = 0.0) -> tuple[Comparison, ...]:
    return tuple(Comparison(ours, baseline, metric, margin=margin) for metric in METRIC_NAMES)


def _ablation() -> list[Claim]:
    tab, everything = "Tab. 7, Sec. 5.4", (VANILLA, DROP, SIM, SIM_NORM, DROP_SIM)
    return [
        Claim("drop helps", tab, "The drop loss alone improves every metric.", _all_metrics(DROP, VANILLA)),
        Claim("sim helps", tab, "The similarity loss alone improves every metric.", _all_metrics(SIM, VANILLA)),
        Claim(
            "sim helps most",
            tab,
            "Of single terms the similarity loss gives the largest improvement of GT Loc.",
            (Comparison(SIM, DROP),),
        ),
        Claim(
            "norm adds 5 points",
            tab,
            "Adopting the norm loss improves all metrics by more than 5 points.",
            (*_all_metrics(SIM_NORM, SIM, 0.05), *_all_metrics(OURS, DROP_SIM, 0.05)),
        ),
        Claim(
            "norm adds something",
            tab,
            "Adopting the norm loss improves GT Loc (the weaker half of the claim before).",
            (Comparison(SIM_NORM, SIM), Comparison(OURS, DROP_SIM)),
        ),
        Claim("drop adds to sim", tab, "Drop improves every metric on top of sim.", _all_metrics(DROP_SIM, SIM)),
        Claim(
            "all terms are best",
            tab,
            "All components together show the best performance in all metrics.",
            tuple(part for other in everything for part in _all_metrics(OURS, other)),
        ),
    ]


def _erasing() -> list[Claim]:
    alone = "Fig. 7(b), Sec. 5.3"
    return [
        Claim("EIL adds to alignment", "Tab. 6", "EIL improves alignment.", _all_metrics(EIL_ALIGNED, SIM_NORM)),
        Claim(
            "dropout beats EIL",
            "Tab. 6, Sec. 5.3",
            "With alignment, attentive dropout achieves higher performance than EIL.",
            _all_metrics(OURS, EIL_ALIGNED),
        ),
        Claim(
            "EIL raises F",
            alone,
            "With EIL the normalised F increases.",
            (Comparison(EIL, VANILLA, "mean normalised F"),),
        ),
        Claim(
            "dropout raises F further",
            alone,
            "With attentive dropout the normalised F shifts even more to the right than with EIL.",
            (Comparison(DROP, EIL, "mean normalised F"),),
        ),
        Claim(
            "EIL enhances the maximum",
            "Fig. A2, App. C.3",
            "EIL enhances the maximum of F, not normalised.",
            (Comparison(EIL, VANILLA, "largest F"),),
        ),
        Claim(
            "dropout reduces the maximum",
            "Fig. A2, App. C.3",
            "Attentive dropout reduces the maximum of F, not normalised.",
            (Comparison(VANILLA, DROP, "largest F"),),
        ),
    ]


def _maps() -> list[Claim]:
    negative, large = "share of negative S in boxes", "share of large S in boxes"
    close = partial(Comparison, OURS, OURS, relation="within", margin=0.013)
    return [
        Claim(
            "CAM, F and S coincide",
            "Tab. 5, Sec. 5.3",
            "With our method CAM, F and S localize alike (GT Loc, 1.3 points; in Tab. 5 it is 1.21 at most).",
            tuple(close(f"gt_known_loc of {k}", "gt_known_loc") for k in ("F", "S"))
            + (close("gt_known_loc of F", "gt_known_loc of S"),),
        ),
        Claim(
            "misalignment hides F",
            "Fig. 1 and 2, Sec. 3",
            "In a vanilla network F holds more of the object than the CAM, where S offsets it.",
            (Comparison(VANILLA, VANILLA, "gt_known_loc of F", "gt_known_loc"),),
        ),
        Claim(
            "S splits",
            "Fig. 7(a), Sec. 5.3",
            "Inside true boxes our S splits into negative and large positive values, more than vanilla's.",
            (Comparison(OURS, VANILLA, negative), Comparison(OURS, VANILLA, large)),
        ),
        Claim(
            "better at every threshold",
            "Fig. A1, App. C.1",
            "For all IoU thresholds our curve is above vanilla's at every score-map threshold (where they differ and "
            f"either localizes {SEEN:.0%} of the images).",
            (Comparison(OURS, VANILLA, "box accuracy at every threshold"),),
        ),
    ]


def _comparisons(study: Study) -> list[Claim]:
    profile, found = study.profile, []
    for dataset, backbone in BLOCKS:
        if dataset not in profile.stand_ins or backbone not in profile.backbones:
            continue
        where = {"dataset": dataset, "backbone": backbone}
        ours, vanilla = experiment(*_terms(OURS), **where), experiment(**where)
        number = {"CUB": "1" if backbone == "VGG16" else "2"}.get(dataset, "3")
        name = f"{dataset}, {backbone}"
        text = f"Ours localizes better than vanilla on {dataset} with {backbone}"
        if metrics := _printed_for_both(number, backbone):
            parts = tuple(Comparison(ours, vanilla, metric) for metric in metrics)
            named = ", ".join(METRIC_NAMES[metric] for metric in metrics)
            found.append(Claim(f"better on {name}", f"Tab. {number}", f"{text}: {named}.", parts))
        parts = tuple(Comparison(ours, vanilla, f"max_box_acc_{delta}") for delta in IOU_THRESHOLDS)
        found.append(Claim(f"better at every IoU on {name}", "Tab. 4", f"{text}, at IoU 0.3, 0.5 and 0.7.", parts))
    if "OpenImages" in profile.stand_ins:
        ours, vanilla = (experiment(*_terms(each), dataset="OpenImages") for each in (OURS, VANILLA))
        text = "With the hyperparameters of ImageNet-1K ours has a higher PxAP than vanilla."
        found.append(Claim("better on OpenImages", "Tab. A1", text, (Comparison(ours, vanilla, "pxap"),)))
    return found


def _printed_for_both(number: str, backbone: str) -> list[str]:
    """Metrics for which a table prints a number of both CAM and ours."""
    table = published.table(number)
    rows = table[(table["backbone"] == backbone) & table["method"].isin(["CAM", "ours"])].dropna(subset="value")
    counts = rows["metric"].value_counts()
    return [metric for metric in METRIC_NAMES if counts.get(metric, 0) == 2]


def _sensitivity(study: Study) -> list[Claim]:
    best = study.recipe().method_options
    settings = sweeps.settings(best)
    where = "Fig. 8, Sec. 5.4"

    def at(option: str, value: float) -> tuple:
        return OURS if value == best[option] else experiment(*_terms(OURS), **{option: value})

    def little(*options: str, least: float = 0.0, most: float = float("inf")) -> tuple[Comparison, ...]:
        chosen = [(o, v) for o, v in settings if o in options and v != best[o] and least <= v < most]
        return tuple(Comparison(at(o, v), OURS, relation="within", margin=LITTLE) for o, v in chosen)

    def low(option: str) -> float:
        return min(value for name, value in settings if name == option)

    strong = max(v for o, v in settings if o == "lambda_drop" and v <= 1.34 * best["lambda_drop"])
    return [
        Claim(
            "sim matters most",
            where,
            "Of the lambdas GT Loc depends most on lambda sim: a third of its best costs most.",
            tuple(Comparison(at(other, low(other)), at("lambda_sim", low("lambda_sim"))) for other in OTHER_WEIGHTS),
        ),
        Claim("norm matters little", where, "Lambda norm changes GT Loc insignificantly.", little("lambda_norm")),
        Claim(
            "drop can be too strong",
            where,
            "GT Loc decreases when lambda drop is a third above its best (4 where 3 is best).",
            (Comparison(OURS, at("lambda_drop", strong)),),
        ),
        Claim("tau matters little", where, "Varying both tau has little effect.", little("tau_fg", "tau_bg")),
        Claim(
            "gamma matters little",
            where,
            "Gamma between 0.7 and 0.9 makes no significant change.",
            little("drop_threshold", least=0.7),
        ),
        Claim(
            "low gamma hurts",
            where,
            "Gamma 0.6 is too low: GT Loc decreases.",
            (Comparison(OURS, at("drop_threshold", 0.6)),),
        ),
        Claim(
            "p matters little below 1",
            where,
            "Stochastic dropout changes GT Loc little, whatever the probability.",
            little("drop_prob", most=1.0),
        ),
        Claim(
            "p of 1 is harmful",
            where,
            "Deterministic dropout, p = 1, drops GT Loc significantly.",
            (Comparison(OURS, at("drop_prob", 1.0)),),
        ),
    ]


def _terms(each: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    return dict(each)["losses"]
