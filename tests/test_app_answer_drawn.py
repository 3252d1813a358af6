"""An answer drawn in a terminal in memory: every line once, whatever its kind, its pieces and the terminal's sizes."""

from __future__ import annotations

import json
import re

import pytest
from gemma4_mlx.app.answer.answer_terminal import TerminalAnswer
from hypothesis import given, settings
from hypothesis import strategies as st

from reflowing_terminal import ReflowingTerminal

WIDTHS = [(40, 10), (80, 24), (200, 60)]


class Clock:
    """Every look at it is a second later: all that may be drawn is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def drawn(answer: str, pieces: list[int], sizes: list[tuple[int, int]]) -> tuple[list[str], int]:
    """The lines of a terminal that takes these sizes in turn while an answer comes in pieces; and its rows at last."""
    terminal = ReflowingTerminal(*sizes[0])
    try:
        shown = TerminalAnswer(terminal, show_thoughts=False, clock=Clock())
        shown.start()
        start = number = 0
        while start < len(answer):
            size = pieces[number % len(pieces)]
            terminal.resize(*sizes[number % len(sizes)])
            shown.answer(answer[start : start + size])
            start, number = start + size, number + 1
        shown.finish()
        return terminal.lines, terminal.height
    finally:
        terminal.close()


def letters(lines: list[str]) -> str:
    return re.sub(r"[\s▌•─]", "", "".join(lines))


MINIFIED = json.dumps({f"key{number}": [number, {"text": "x" * (number % 17)}] for number in range(120)})


@pytest.mark.parametrize(("columns", "rows"), [*WIDTHS, (7, 3)])
@pytest.mark.parametrize("step", [1, 7, 60])
def test_a_line_of_code_wider_than_the_terminal_stands_there_once_and_unbroken(columns, rows, step):
    lines, height = drawn(f"Here:\n```json\n{MINIFIED}\n```\n", [step], [(columns, rows)])
    assert lines == ["Here:", "", MINIFIED, ""] if columns > 5 else MINIFIED in lines
    assert height <= len(MINIFIED) // columns + 12


@pytest.mark.parametrize("code", [MINIFIED, "写真" * 200, "\tx = '" + "é" * 300 + "'", "a\tb" * 100])
def test_it_does_after_resizing_as_well(code):
    lines, _ = drawn(f"```\n{code}\n{code}\nend", [5], [(80, 24), (80, 24), (40, 10), (40, 10), (200, 60)])
    assert [line.replace("\t", "").replace(" ", "") for line in lines if line] == [
        *[code.replace("\t", "").replace(" ", "")] * 2,
        "end",
    ]


WORDS = st.lists(
    st.sampled_from(
        [
            "word",
            "**bold**",
            "`code_x`",
            "snake_case",
            "2*3*4",
            "写真の中",
            "🙂👨‍👩‍👧",
            "x" * 95,
            "\\(a_1*b_2\\)",
            "हिन्दी",
            "<b>",
            "a|b",
        ]
    ),
    min_size=1,
    max_size=15,
).map(" ".join)
BLOCKS = st.one_of(
    WORDS,
    st.lists(WORDS, min_size=1, max_size=4).map(lambda items: "\n".join(f"- {item}" for item in items)),
    st.lists(WORDS, min_size=1, max_size=4).map(lambda items: "\n".join(f"1. {item}\n   - b" for item in items)),
    WORDS.map(lambda words: f"## {words}"),
    WORDS.map(lambda words: f"> {words}\n> {words[::-1][:20].replace('`', '')}"),
    st.lists(WORDS, min_size=1, max_size=4).map(lambda lines: "```python\n" + "\n".join(lines) + "\n```"),
    st.lists(WORDS, min_size=1, max_size=3).map(
        lambda cells: "| a | b |\n|---|---|\n" + "\n".join(f"| {cell.replace('|', '/')} | x |" for cell in cells)
    ),
    WORDS.map(lambda words: f"$$\n{words}\n- {words}\n$$"),
)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(BLOCKS, min_size=1, max_size=5).map("\n\n".join),
    st.lists(st.integers(5, 60), min_size=1, max_size=4),
    st.sampled_from([*WIDTHS, (20, 8)]),
)
def test_in_whatever_pieces_it_comes_the_screen_is_that_of_the_whole_answer(answer, pieces, size):
    assert drawn(answer, pieces, [size])[0] == drawn(answer, [len(answer)], [size])[0]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(BLOCKS, min_size=1, max_size=4).map("\n\n".join),
    st.lists(st.integers(5, 60), min_size=1, max_size=4),
    st.lists(st.sampled_from([(80, 24), (40, 12), (60, 15)]), min_size=2, max_size=3),
)
def test_nothing_is_lost_or_doubled_in_a_terminal_that_is_made_half_as_large_and_twice(answer, pieces, sizes):
    once = letters(drawn(answer, [len(answer)], [(200, 60)])[0])
    # A table is broken within its cells: there the order of letters is another.
    there = letters(drawn(answer, pieces, sizes)[0])
    assert sorted(there) == sorted(once)


FORMULAS = [
    r"\(a_1 * b_{2} * c\)",
    r"\[x\,y \\ z \{a\} _{n} \]",
    "$x_1*y_2*z$",
    r"$$\sum_{i=1}^{n} a_i*b_i*c_i \quad \text{if } \alpha_1 < \beta_2$$",
    r"\(\{x \mid x > 0\}\)",
]
KEPT = [
    *("2*3*4 = 24", "a_b_c", "x < y > z", "<b>bold</b>", "vector<std::string>", "<!-- no -->", "&lt;&amp;", "a*b*c"),
    *("f(x)*g(x)*(h)*2", "2**3**4", r"C:\\Users\\new", r"\{x\} \, \\ \(", "α*β*γ", "x_{1}+y_{2}", "[1]: http://x.y/z"),
    *("<https://a.b/c>", "5*5!", "**kwargs and *args", "$5 and $10", "array[i]*array[j]*2"),
]


def unbroken(lines: list[str]) -> str:
    return re.sub(r"\s+", "", "".join(line.lstrip(" ▌•") for line in lines))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([*FORMULAS, *KEPT, "word", "and so on"]), min_size=1, max_size=6),
    st.sampled_from(["{}", "- {}", "> {}", "1. {}", "## {}", "**{}**", "text {} text"]),
    st.integers(1, 30),
    st.sampled_from(WIDTHS),
)
def test_what_is_copied_has_every_character_of_formulas_and_of_what_is_no_markup(pieces, frame, step, size):
    if frame == "**{}**":
        pieces = [piece for piece in pieces if "*" not in piece or piece in FORMULAS] or ["word"]
    lines, _ = drawn(frame.format("; ".join(pieces)), [step], [size])
    shown, place = unbroken(lines), 0
    for piece in pieces:
        wanted = re.sub(r"\s+", "", piece)
        assert wanted in shown[place:], (piece, lines)
        place = shown.index(wanted, place) + len(wanted)


@pytest.mark.parametrize(("columns", "rows"), WIDTHS)
@pytest.mark.parametrize("step", [1, 9, 1_000])
def test_a_formula_on_lines_of_its_own_is_no_markdown(columns, rows, step):
    formula = [
        "\\[",
        "\\begin{aligned}",
        "a &= b_1 \\\\",
        "- c*d*e",
        "# f",
        "= g",
        "+ h",
        "1. i",
        "\\end{aligned}",
        "\\]",
    ]
    answer = "\n".join(["Thus:", *formula, "and *so* on.", "", "$$", "x_1*y*z", "$$"])
    lines, _ = drawn(answer, [step], [(columns, rows)])
    start = lines.index("\\[")
    assert lines[start : start + len(formula)] == formula
    assert [line for line in lines if line][-4:] == ["and so on.", "$$", "x_1*y*z", "$$"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**H**yper**T**ext *x* (*y*) _z_", "HyperText x (y) z"),
        ("这是*强调*文字", "这是强调文字"),
        (r"\*no\* snake\_case", "*no* snake_case"),
        ("\\[never *closed*\n\nafter", "\\[never closed\n\nafter"),
        ("$5 is *cheap* and $10 is not", "$5 is cheap and $10 is not"),
    ],
)
def test_markdown_is_still_markdown(text, shown):
    assert "\n".join(drawn(text, [3], [(80, 24)])[0]).strip() == shown


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ("$|x|$ | z", "$|x|$ z"),
        ("`a|b` | z", "a|b z"),
        ("`a\\|b` | z", "a|b z"),
        (r"\(|x|\) | `p|q`", r"\(|x|\) p|q"),
        ("x | $P(A|B)$", "x $P(A|B)$"),
        ("$5 | $6", "$5 $6"),
        ("$5 | $6 | $7", "$5 $6 | $7"),
        ("a ` b | c | d", "a ` b c | d"),
        ("$P(A|B)$ | `x||y` | more", "$P(A|B)$ x||y | more"),
    ],
)
@pytest.mark.parametrize("step", [1, 1_000])
def test_a_bar_in_a_formula_or_code_does_not_cut_the_cell_of_a_table(row, cells, step):
    lines, _ = drawn(f"| f | g |\n|---|---|\n| {row} |\n", [step], [(80, 24)])
    assert " ".join(next(line for line in reversed(lines) if line).split()) == cells


@pytest.mark.parametrize(
    ("heading", "cells"),
    [
        ("$|x|$ | b", "$|x|$ b"),
        ("`a|b` | $P(A|B)$", "a|b $P(A|B)$"),
        (r"\(|x|\) | $|y|$", r"\(|x|\) $|y|$"),
        ("costs $1 | or $2", "costs $1 or $2"),
    ],
)
@pytest.mark.parametrize("step", [1, 1_000])
@pytest.mark.parametrize("within", ["", "> ", "- "])
def test_a_bar_in_a_formula_or_code_does_not_cut_the_heading_of_a_table(heading, cells, step, within):
    indent = "  " if within == "- " else within
    lines, _ = drawn(f"{within}| {heading} |\n{indent}|---|---|\n{indent}| $|1|$ | 2 |\n", [step], [(80, 24)])
    words = [" ".join(line.strip(" ▌•").split()) for line in lines]
    assert cells in words
    assert "$|1|$ 2" in words
    assert not any("---" in line for line in words)


@pytest.mark.parametrize("cells", [3, 8])
@pytest.mark.parametrize("sizes", [[(200, 60), (40, 10)], [(40, 10), (200, 60)], [(80, 24), (40, 10)]])
def test_a_table_that_grows_leaves_no_row_behind_in_a_terminal_that_becomes_small(cells, sizes):
    table = "".join(
        "| " + " | ".join(f"row{row}cell{cell} words" for cell in range(cells)) + " |\n" for row in range(20)
    )
    head = "| " + " | ".join("abcdefgh"[:cells]) + " |\n|" + "---|" * cells + "\n"
    half = len(head + table) // 8
    lines, _ = drawn(head + table, [half], [sizes[0]] * 4 + [sizes[1]] * 5)
    shown = "".join(lines)
    once = "".join(drawn(head + table, [10_000], [sizes[1]])[0])
    assert sorted(shown.replace(" ", "").replace("─", "")) == sorted(once.replace(" ", "").replace("─", ""))


WIDE = "| " + " | ".join(f"head{number}" for number in range(20)) + " |\n|" + "---|" * 20 + "\n"
DEEP = "".join(f"{'  ' * depth}- level{depth} words\n" for depth in range(16))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (WIDE + WIDE.partition("\n")[0].replace("head", "cell"), [f"cell{number}" for number in range(20)]),
        ("| a | b |\n|---|---|\n| one | two | three | four |\n", ["one", "two", "three", "four"]),
        (DEEP, [f"level{depth} words" for depth in range(16)]),
        ("> " * 14 + "quoted words", ["quoted words"]),
        ("> " * 40 + "quoted words", ["quoted words"]),
    ],
    ids=["wide table", "cells beyond the columns", "deep list", "deep quotation", "deeper quotation"],
)
@pytest.mark.parametrize("size", [*WIDTHS, (12, 8)])
def test_what_has_no_room_is_not_left_out(answer, words, size):
    shown = unbroken(drawn(answer, [50], [size])[0])
    assert [word for word in words if re.sub(r"\s", "", word) not in shown] == []
