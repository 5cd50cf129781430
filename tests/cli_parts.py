"""The command in this process, and pictures for it."""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as photographs

from restore.cli import main

PRIOR = "prior._target_=standin.Local"
FEW = ["--steps", "3", PRIOR]
ROOT = Path(__file__).parents[1]


def command(capsys, *words):
    """Exit status, stdout and stderr; no traceback may ever be seen."""
    status = main([str(w) for w in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def photo(path="photo.png", size=(40, 56), grey=False, sigma=0.05, seed=0):
    x = photographs.astronaut()[20 : 20 + size[0], 180 : 180 + size[1]] / 255
    x = x[..., 1] if grey else x
    noisy = x + sigma * np.random.default_rng(seed).standard_normal(x.shape)
    stored = np.uint8(np.rint(np.clip(noisy, 0, 1) * 255))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored).save(path)
    return stored


def holes(path="holes.png", size=(40, 56), share=0.4):
    missing = np.random.default_rng(1).random(size) < share
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(255 * missing)).save(path)
    return missing


def bad(capsys, *words, said, status=1):
    """The command fails, says `said` in one line and leaves nothing behind."""
    before = sorted(Path().rglob("*"))
    got, _, err = command(capsys, *words)
    assert got == status
    assert said in err, err
    assert len(err.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before
    return err
