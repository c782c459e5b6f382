"""What is said of a profile that cannot be used."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from forq.coordinates.profile import Profile
from forq.errors import ConfigError


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (torch.tensor([-1.0]), "a.scales: expected finite float factors of 0 or more, found others"),
        (torch.tensor([float("inf")]), "a.scales: expected finite float factors of 0 or more, found others"),
        (torch.tensor([1]), "a.scales: expected finite float factors of 0 or more, found torch.int64"),
    ],
)
def test_a_factor_that_cannot_be_is_named_with_what_is_wrong(tmp_path, factor, says):
    save_file({"a.scales": factor}, tmp_path / "profile.safetensors")
    with pytest.raises(ConfigError, match=says):
        Profile.read(tmp_path / "profile.safetensors")


@pytest.mark.parametrize(
    ("name", "factor", "says"),
    [
        ("b.scales", 1.0, r"expected names of tensors that move \(a.scales, …\), found b.scales"),
        ("a.scales", 0.0, "all factors are 0, so nothing would move"),
    ],
)
def test_a_profile_of_nothing_that_moves_is_refused(name, factor, says):
    class Leaf:
        name = "a.scales"

    with pytest.raises(ConfigError, match=says):
        Profile({name: torch.tensor([factor])}).check([Leaf()], lambda leaf: torch.Size([1]))
