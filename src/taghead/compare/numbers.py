"""All numbers of a sweep's report as one table, each row with the runs that it comes from."""

from __future__ import annotations

import pandas as pd

from taghead.compare.comparison import Comparison, Results, described


def configurations_frame(results: Results) -> pd.DataFrame:
    """All numbers of a sweep, a row a configuration, with the runs that they come from."""
    compared = {c.configuration.levels: c for c in results.comparisons}
    rows = []
    for own in results.configurations:
        comparison = None if own.is_control else compared.get(own.levels)
        row: dict[str, object] = {
            "sweep": results.table.name,
            "configuration": described(results.table.factors, own.levels),
            "control": own.is_control,
            "seeds": " ".join(map(str, own.seeds)),
            "runs": " ".join(own.runs["run"]),
        }
        for name in ("top1", "mca"):
            row |= {name: own.mean(name), f"{name}_sd": own.deviation(name)}
        for name in ("parameters", "head_parameters", "head_gflop", "head_latency_ms", "train_sec"):
            row[name] = own.mean(name)
        rows.append(row | _comparison_columns(results, comparison))
    return pd.DataFrame(rows)


def _comparison_columns(results: Results, comparison: Comparison | None) -> dict[str, object]:
    if comparison is None:
        return {}
    control, common = comparison.control, set(comparison.seeds)
    top1, mca = comparison.top1, comparison.mca
    return {
        "control_configuration": described(results.table.factors, control.levels),
        "control_runs": " ".join(control.runs.loc[control.runs["seed"].isin(common), "run"]),
        "compared_seeds": " ".join(map(str, comparison.seeds)),
        **{"difference": top1.mean, "low": top1.low, "high": top1.high, "error": top1.error},
        **{"degrees_of_freedom": top1.freedom, "p": top1.p, "p_holm": comparison.adjusted_p},
        "verdict": comparison.verdict,
        **{f"bootstrap_{k}": v for k, v in comparison.bootstrap._asdict().items()},
        **{"mca_difference": mca.mean, "mca_low": mca.low, "mca_high": mca.high},
        "gflop_ratio": cost_ratio(comparison, "head_gflop"),
        "latency_ratio": cost_ratio(comparison, "head_latency_ms"),
    }


def cost_ratio(comparison: Comparison, column: str) -> float:
    """A configuration's mean cost over its control's; NaN where that is none."""
    whole = comparison.control.mean(column)
    return comparison.configuration.mean(column) / whole if whole > 0 else float("nan")
