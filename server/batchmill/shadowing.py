"""`batchmill shadow`: candidates run what callers ask once more, in idle time, and nobody gets their answers; how far these are from the others."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchmill.errors import UsageError
from batchmill.remote import asked, changed, table


def act(*, model: str, version: str | None, show_worst: bool, folder: Path | None, stop: bool, url: str, key_file: Path | None, as_json: bool,
        **settings: Any) -> int:  # fmt: skip
    """What the flags ask for; the exit code. settings: those of the call; None: not given."""
    given = {name: value for name, value in settings.items() if value is not None}
    if show_worst and (given or stop):
        raise UsageError("--worst shows, and changes nothing: only --save beside it")
    if folder and not show_worst:
        raise UsageError("--save is for --worst")
    if show_worst:
        return worst(model, version, folder, url, key_file, as_json)
    return run(model, version, given, stop, url, key_file, as_json)


def run(model: str, version: str | None, settings: dict[str, Any], stop: bool, url: str, key_file: Path | None, as_json: bool) -> int:
    """Starts, stops or shows. settings: those of the call that are given."""
    path = f"/admin/models/{quote(model, safe='')}/shadow"
    if settings and (stop or not version):
        raise UsageError("shadow MODEL VERSION wanted with " + ", ".join(f"--{key.replace('_', '-')}" for key in settings))
    if stop:
        answer = changed(url, path + (f"?version={quote(version, safe='')}" if version else ""), "DELETE", None, key_file)
    elif version:
        answer = changed(url, path, "PUT", {"version": version, **settings}, key_file)
    else:
        answer = asked(url, path)
    print(json.dumps(answer) if as_json else shown(answer))
    return 0


def worst(model: str, version: str | None, folder: Path | None, url: str, key_file: Path | None, as_json: bool) -> int:
    """Shows the answers that were furthest apart. folder: gets their tensors, too, as `batchmill infer --input` takes them."""
    answer = changed(url, f"/admin/models/{quote(model, safe='')}/shadow/worst", "GET", None, key_file)
    found = [(candidate, number, one) for candidate, some in answer["worst"].items() if version in (None, candidate)
             for number, one in enumerate(some, 1)]  # fmt: skip
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for candidate, number, one in found:
            save(folder, f"{model}-{candidate}-{number}", one)
    if as_json:
        print(json.dumps(answer))
        return 0
    rows = [[candidate, str(number), one["output"] or "-", number_of(one["max_abs"]), number_of(one["max_rel"]), f"{one['cosine']:.6f}",
             how_far(one), one["id"] or "-"] for candidate, number, one in found]  # fmt: skip
    print(table(["CANDIDATE", "NUMBER", "OUTPUT", "MAX ABS", "MAX REL", "COSINE", "OVER TOLERANCE", "REQUEST ID"], rows))
    return 0


def how_far(one: dict[str, Any]) -> str:
    if one["shapes_differ"]:
        return "shapes differ"
    return "differs" if one["excess"] is None else times_of(one["excess"])  # None: there is no distance between integers, or texts


def save(folder: Path, name: str, one: dict[str, Any]) -> None:
    import numpy as np

    (folder / f"{name}.json").write_text(json.dumps({key: value for key, value in one.items() if key not in ("inputs", "answered", "candidate")}))
    for kind in ("inputs", "answered", "candidate"):
        tensors = {each["name"]: array_of(each) for each in one[kind] if each["bytes"] is not None}
        if tensors:
            np.savez(folder / f"{name}-{kind}.npz", **tensors)


def array_of(tensor: dict[str, Any]) -> Any:
    """BF16 as its 16 bits, for which numpy has no type of its own."""
    import numpy as np

    from batchmill.client import DTYPES

    raw, shape = b64decode(tensor["bytes"]), tensor["shape"]
    if tensor["datatype"] != "BYTES":
        return np.frombuffer(raw, DTYPES.get(tensor["datatype"], "u2")).reshape(shape)
    texts, at = [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return np.array(texts, "S").reshape(shape)


def number_of(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def times_of(value: float | None) -> str:
    return "no measure" if value is None else f"{value:.3g} x"


def share_of(one: dict[str, Any] | None) -> str:
    """With its interval."""
    if one is None or one["share"] is None:
        return "-"
    low, high = one["interval"]
    return f"{one['share']:.3%} ({low:.3%} to {high:.3%})"


def shown(answer: dict[str, Any]) -> str:
    blocks = [shown_one(one) for one in answer["shadows"]]
    return "\n\n".join(blocks) if blocks else f"no version of {answer['model']} is a shadow"


def shown_one(one: dict[str, Any]) -> str:
    lines = [f"version {one['version']} is to run {one['share']:.2%} of the requests that other versions have answered"]
    if one["reason"]:
        lines.append(f"gets none now: {one['reason']}")
    found = one["figures"]
    if found is None:
        return "\n".join([*lines, "nothing has been mirrored yet"])
    lines.append(", ".join(f"{found[key]} {key}" for key in ("mirrored", "compared", "errors", "shed", "expired", "dropped", "pending")))
    lines.append(f"answers agree:  {share_of(one['agreement'])}")
    lines.append(f"errors:         {share_of(one['error_rate'])}" + (f"; the last: {one['last_error']}" if one["last_error"] else ""))
    ratio = one["latency_ratio"]
    if ratio["mean"] is not None:
        held = ratio["interval"]
        certain = f" ({held[0]:.3g} to {held[1]:.3g})" if held else f", of {ratio['batches']} batches alone"
        lines.append(f"run time:       {ratio['mean']:.3g} x{certain}")
    rows = [[name, str(each["compared"]), number_of(each["max_abs"]), number_of(each["max_rel"]),
             "-" if each["cosine"] is None else f"{each['cosine']['mean']:.6f}",
             share_of(each["argmax"]).partition(" ")[0], share_of(each["top5"]).partition(" ")[0],
             str(each["shapes_differ"]), str(each["not_finite"])] for name, each in one["outputs"].items()]  # fmt: skip
    lines.append(table(["OUTPUT", "COMPARED", "MAX ABS", "MAX REL", "COSINE", "ARGMAX", "TOP 5", "OTHER SHAPE", "NAN OR INF"], rows))
    return "\n".join(lines)
