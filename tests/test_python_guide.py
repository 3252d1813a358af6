"""What docs/python.md shows runs, block after block, with the built-in model."""

from __future__ import annotations

import random
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from gemma4_mlx.app.demo.demo_picture import draw_two_shapes

import gemma4_mlx as g4

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.+?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
SOUND = ROOT / "tests" / "demo_recordings" / "slt-1-5-8.flac"


def test_all_blocks_of_the_guide_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    draw_two_shapes((("red", "circle"), ("blue", "star")), random.Random(1)).image.save("photo.jpg")
    shutil.copy("photo.jpg", "pictures/one.jpg")
    Path("pictures/two.jpg").write_text("no picture")
    shutil.copy(SOUND, "memo.m4a")
    names: dict = {"input": lambda question: "y"}
    for number, shown in enumerate(BLOCKS):
        if "import BaseModel" in shown and find_spec("pydantic") is None:
            continue  # the package does not need it
        demo = str(Path(g4.__file__).parent / "demo") if "g4.convert(" in shown else "demo"
        block = shown.replace('"e2b"', repr(demo))
        exec(compile(block, f"docs/python.md, block {number}", "exec", dont_inherit=True), names)
    said = capsys.readouterr().out
    assert "pictures/two.jpg is not a picture" in said
    assert "gone.jpg does not exist" in said
    assert len(Path("captions.csv").read_text().splitlines()) == 2
    assert names["result"].text == "1 5 8"
    assert "00:00:0" in Path("memo.srt").read_text()


def test_every_place_that_the_guide_points_to_is_there():
    titles = re.findall(r"^## (.+)$", GUIDE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\(#([^)]+)\)", GUIDE)) == anchors
    for path in re.findall(r"\]\(([a-z-]+\.md)\)", GUIDE):
        assert (ROOT / "docs" / path).exists()
