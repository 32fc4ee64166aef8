"""Boxes are as wide as their samples, lie on their callers, and escape what they are called."""

from xml.etree import ElementTree as ET

from bench.profile import flame, stacks

SVG = "{http://www.w3.org/2000/svg}"
RAW = "main (a.py:1);left (gateway/pipeline.py:2) 30\nmain (a.py:1);<right> (b.py:3);deep (b.py:4) 10\n"


def boxes(raw: str) -> dict[str, tuple[float, float, float, str]]:
    root = ET.fromstring(flame.svg(stacks.parse(raw), "a title & more"))  # noqa: S314 - our own
    found = {}
    for group in root.iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert rect is not None
        x, y, width = (float(rect.get(name, "nan")) for name in ("x", "y", "width"))
        found[str(title.text)] = (x, y, width, rect.get("class", ""))
    return found


def test_widths_and_places() -> None:
    found = boxes(RAW)
    left, right = found["left (pipeline.py): 75.0%"], found["<right> (b.py): 25.0%"]
    deep, main = found["deep (b.py): 25.0%"], found["main (a.py): 100.0%"]
    assert (left[2], right[2]) == (flame.WIDTH * 0.75, flame.WIDTH * 0.25)
    assert {left[0], right[0]} == {0, flame.WIDTH * 0.25}, "they share the row of their caller"
    assert main[1] - left[1] == left[1] - deep[1] == flame.ROW
    assert (left[3], right[3]) == ("g", "l"), "the gateway's own are told apart"


def test_a_box_too_narrow_to_see_is_left_out() -> None:
    assert "tiny (c.py): 0.0%" not in boxes(RAW + "tiny (c.py:1) 1\nmain (a.py:1) 100000\n")


def test_there_is_no_script_in_it() -> None:
    assert "<script" not in flame.svg(stacks.parse(RAW), "t")


def test_no_samples_make_an_empty_graph() -> None:
    assert boxes("") == {}
