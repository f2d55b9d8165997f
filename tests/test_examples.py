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
