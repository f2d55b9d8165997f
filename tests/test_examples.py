"""The scripts in examples/ run from beginning to end, and say what they promise."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_digits(capsys):
    pytest.importorskip("sklearn")
    runpy.run_path(str(EXAMPLES / "digits.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "1,797 pictures, 64 pixels" in said
    shares = [int(share) for share in re.findall(r"favoured class gets (\d+)%", said)]
    assert len(shares) == 3
    assert shares[0] > shares[1] > 10  # pictures as they are, and less their mean
    rows = re.findall(r"^ +(\d+) +" + r"(\S+) +(\S+) ± +(\S+)" * 1, said, flags=re.MULTILINE)
    assert len(rows) == 12
    for _, theory, found, _ in rows:
        assert float(found) == pytest.approx(float(theory), rel=0.1)
    assert float(re.search(r"gamma differs by (\S+) of itself", said)[1]) < 1e-4


def test_readme_runs_its_pytorch_example(capsys):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out
    promised = re.search(r"# (\* layers 1 to 50 are ordered: squared gradients shrink by 0.3)", code)[1]
    assert promised in said


def test_trainability(capsys, tmp_path):
    pytest.importorskip("torch")
    main = runpy.run_path(str(EXAMPLES / "trainability.py"))["main"]
    main(["--steps", "4", "--figure", str(tmp_path / "figure.png")])
    said = capsys.readouterr().out
    rows = re.findall(r"^.{22} (PyTorch's|init_) +(\S+) +\S+% → +\S+%$", said, flags=re.MULTILINE)
    assert len(rows) == 6
    for how, reach in rows:
        assert (float(reach) < 1e-15) if how == "PyTorch's" else (0.2 < float(reach) < 5.0)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
