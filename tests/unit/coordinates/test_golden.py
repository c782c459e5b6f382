"""Law 1 gives the bits it gave when it was named: noise, arithmetic, bounds, export rounding, calibration, rules."""

import json

from tests.golden.make import HERE, play


def test_the_law_has_not_changed_under_its_name():
    found = play()
    assert found == json.loads((HERE / f"law{found['law']}.json").read_text())
