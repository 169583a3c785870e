"""How far two answers are apart, by numpy, one row after the other."""

from __future__ import annotations

import numpy as np

TOP = 5


def greatest(row, count):
    """Places of the greatest elements, NaN before all, the first of equals first."""
    return sorted(range(len(row)), key=lambda at: (not np.isnan(row[at]), -row[at] if not np.isnan(row[at]) else 0, at))[:count]


def compare(a, b, rtol, atol, by_argmax):
    if a.dtype != b.dtype or a.shape != b.shape:
        return {"shapes_differ": True, "agrees": False, "excess": np.inf}
    if a.dtype.kind not in "fV":  # ml_dtypes' bfloat16 is a V
        same = bool((a == b).all())
        return {"shapes_differ": False, "equal": same, "agrees": same, "excess": 0 if same else np.inf, "rows": 0}
    rows = a.shape[-1] if a.ndim and a.shape[-1] >= 2 and a.size else 0
    a, b = (one.astype(np.float64) for one in (a, b))
    finite = np.isfinite(a) & np.isfinite(b)
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    x, y = a[finite], b[finite]
    apart = np.abs(x - y)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(apart > 0, apart / np.maximum(np.abs(x), np.abs(y)), 0)
        excess = np.where(apart > 0, apart / (atol + rtol * np.abs(x)), 0)
        lengths = np.sqrt((x * x).sum()) * np.sqrt((y * y).sum())
    told = {
        "shapes_differ": False, "equal": bool(alike.all()), "finite": bool(alike[~finite].all()),
        "max_abs": apart.max(initial=0), "max_rel": relative.max(initial=0),
        "excess": max(excess.max(initial=0), 0 if alike[~finite].all() else np.inf),
        "cosine": (x * y).sum() / lengths if lengths else float((x * x).sum() == (y * y).sum()),
        "rows": a.size // rows if rows else 0,
    }
    argmax = top = 0
    for one, other in zip(a.reshape(-1, rows), b.reshape(-1, rows), strict=True) if rows else ():
        argmax += int(np.argmax(one)) == int(np.argmax(other))
        top += len({*greatest(one, TOP)} & {*greatest(other, TOP)}) / TOP if rows > TOP else 0
    agrees = argmax == told["rows"] if by_argmax and rows else told["excess"] <= 1
    return {**told, "argmax_same": argmax, "top_same": top, "agrees": agrees}
