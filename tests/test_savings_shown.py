"""What programs read of the savings."""

import msgspec
import pytest
from tenants import sample_of
from test_statement import LONG, PRICES, SHORT, arms

from mintoken.savings import report
from mintoken.savings_shown import SavingsShown, savings_shown


def test_programs_get_the_same_figures_in_the_described_shape() -> None:
    rows = [*arms(), *arms(SHORT[:90], LONG[:10], model="mine")]
    concise = sample_of([{"output_tokens": 150}] * 200, arm="concise")
    stops = [{"key": "app", "model": "gpt-4o", "since": "2026-11-25T00:00:00Z"}]
    body = msgspec.json.encode(savings_shown(report([*rows, concise], PRICES), PRICES, stops))
    found = msgspec.json.decode(body)
    assert msgspec.to_builtins(msgspec.convert(found, SavingsShown)) == found
    assert [line["model"] for line in found["models"]] == ["gpt-4o", "mine"]
    priced, mine = found["models"]
    assert priced["output_ratio"]["value"] == pytest.approx(1 / 3)
    assert priced["output_per_request"] == {"treated": 100, "reference": 300}
    worth = priced["money"]
    parts = worth["output_saved"] + worth["injected_text"] + worth["cache_discount"]
    assert worth["net"]["value"] == pytest.approx(parts)
    assert worth["net"]["low"] < worth["net"]["value"] < worth["net"]["high"]
    assert worth["net_per_1000_requests"] == pytest.approx(parts)
    assert (mine["status"], mine["money"], mine["priced"]) == ("collecting", None, False)
    assert mine["conversations"] == {"treated": 90, "reference": 10}
    assert mine["needed_conversations"] == 1000
    assert (mine["output_ratio"], mine["output_per_request"]["treated"]) == (None, None)
    assert found["total"]["model"] is None
    assert found["unpriced"] == ["mine"]
    assert found["prices"]["gpt-4o"]["as_of"] == "2026-11-25"
    assert found["concise_against_control"]["output_ratio"]["value"] == pytest.approx(0.5)
    assert found["product_against_concise"]["money"]["currency"] == "USD"
    assert found["arms"][0]["requests"] == 1000
    assert found["stopped"] == stops
    without = savings_shown(report(rows, PRICES), PRICES)
    assert (without.concise_against_control, without.stopped) == (None, [])
