import json

from diffjax.metrics import records
from diffjax.metrics.records import Figure

PROTOCOL = records.Protocol(
    samples="runs/digits, step 4000",
    num=500,
    reference="digits, all 1,797",
    extractor={"extractor": "pixels in [0, 1]", "resize": "none"},
    rounding="nearest",
    ema="EMA 0.995",
    sampler="ddim | 50 steps",
    seed=None,
)


def test_a_record_is_json_and_comes_back():
    made = {"frechet": Figure(0.5, floor=0.25), "kid": Figure(-1e-4, 2e-3)}
    saved = json.loads(json.dumps(records.record(made, PROTOCOL)))
    assert saved["figures"] == {"frechet": {"value": 0.5, "floor": 0.25}, "kid": {"value": -1e-4, "std": 2e-3}}
    assert saved["protocol"]["num"] == 500
    assert saved["protocol"]["seed"] is None
    assert records.from_record(saved) == (made, PROTOCOL)


def test_a_table():
    rows = [({"frechet": Figure(0.51234, floor=0.25)}, PROTOCOL), ({"kid": Figure(-1e-4, 2e-3)}, PROTOCOL)]
    first, rule, *lines = records.markdown(rows).splitlines()
    assert first == (
        "| frechet | kid | samples | N | reference | extractor | resize | rounding | parameters | sampler | seed |"
    )
    assert rule.count("---") == 11
    protocol = (
        "runs/digits, step 4000 | 500 | digits, all 1,797 | pixels in [0, 1] | none | nearest | EMA 0.995 | "
        "ddim \\| 50 steps | unknown |"
    )
    assert lines == [f"| 0.5123 (real: 0.25) | – | {protocol}", f"| – | -0.0001 ± 0.002 | {protocol}"]
