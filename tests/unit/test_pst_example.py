"""The example of the PST library in the docs."""

import os
import subprocess
import sys

import torch
from PIL import Image

from helpers.projects import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "image_folder.py"


def marked(page: str, sign: str = "+") -> list[str]:
    """The lines so marked in the page's example of PST."""
    block = next(block for block in (ROOT / page).read_text().split("```diff\n")[1:] if "relearn.pst" in block)
    return [line[1:].strip() for line in block.split("```")[0].splitlines() if line.startswith(sign)]


def test_the_few_lines_of_the_example_are_those_of_the_pages():
    assert marked("README.md") == marked("docs/pst.md")
    assert len(marked("README.md")) - len(marked("README.md", "-")) == 7  # as the page says
    code = EXAMPLE.read_text().split('"""')[2]
    lines = [line.strip() for line in code.splitlines()]
    first = lines.index(marked("README.md")[0])
    position = first
    for line in marked("README.md"):
        position = lines.index(line, position)
    own = [line for line in lines if "pst" in line.lower() and not line.startswith("print(f")]
    assert own == [line for line in marked("README.md") if "pst" in line.lower()]


def test_the_example_runs(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for label, colour in (("cat", 60), ("dog", 180)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for k in range(12):
            pixels = (colour + torch.randint(-40, 41, (20, 24, 3), generator=generator)).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "images" / label / f"{k}.png")
    # as a user runs it, also where `import torchvision` alone fails, beside a CPU build of torch
    command = [sys.executable, str(EXAMPLE), "images", "--size", "32", "--epochs", "2", "--batch", "8"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["epoch 0", "epoch 1"]
    assert lines[-1].startswith(("trapped (", "not trapped (", "cannot tell ("))
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights["fc.weight"].shape == (2, 512) and all(tensor.isfinite().all() for tensor in weights.values())
