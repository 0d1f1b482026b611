"""Our fusion against that of the library adapters, whose authors wrote the paper (`make peer` installs it)."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from models import randomise
from safetensors.torch import load_file, save_file

from adapters_lesson.adapter import Adapter
from adapters_lesson.composition import Fusion

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / ".peer" / ".made").exists(), reason="the library adapters is not here: `make peer` installs it"
)
# Their query and key have biases; ours has none: that of the query is zero here, that of the key must not matter.
THEIRS = """
import sys, torch
from adapters import AdapterFusionConfig
from adapters.methods.modeling import BertFusion
from safetensors.torch import load_file, save_file
given = load_file(sys.argv[1])
h, updates = given.pop("h"), given.pop("updates")
fusion = BertFusion(AdapterFusionConfig.load("dynamic", residual_before=False), h.shape[-1], 0.0).eval()
missing, _ = fusion.load_state_dict(given, strict=False)
assert missing == ["query.bias", "key.bias"], missing
torch.nn.init.zeros_(fusion.query.bias), torch.nn.init.normal_(fusion.key.bias)
with torch.no_grad():
    save_file({"out": fusion(h, updates, updates, torch.zeros_like(h))}, sys.argv[2])
"""


@torch.no_grad()
def test_the_fusion_of_the_library(tmp_path):
    torch.manual_seed(0)
    adapters = [Adapter(32, 4) for _ in range(3)]
    fusion, h = Fusion(32, "abc", adapters), torch.randn(2, 5, 32)
    for module in (fusion, *adapters):
        randomise(module, std=0.3)
    given = {f"{name}.weight": getattr(fusion, name).weight for name in ("query", "key", "value")}
    given["value.weight"] = given["value.weight"] + torch.eye(32)
    updates = torch.stack([adapter.update(h) for adapter in adapters], dim=2)
    save_file({**given, "h": h, "updates": updates}, tmp_path / "given")
    command = [ROOT / ".peer" / "bin" / "python", "-c", THEIRS, tmp_path / "given", tmp_path / "theirs"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    ours = fusion.update(h)
    assert ours.abs().max() > 1
    torch.testing.assert_close(load_file(tmp_path / "theirs")["out"], ours, rtol=1e-5, atol=1e-5)
