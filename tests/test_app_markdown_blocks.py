"""Markdown that is still being written: in whatever pieces it comes, each block is given out once and in order."""

from __future__ import annotations

import io
import re

import pytest
from gemma4_mlx.app.answer.markdown_blocks import Block, MarkdownBlocks
from gemma4_mlx.app.answer.markdown_lines import Line, Painter
from hypothesis import given
from hypothesis import strategies as st

ANSWER = """\
# Title
A paragraph
over two lines.

1. one
   more
2. two
   ```sh
   ls
   ```
1. three

- a
- b
  - c
* d
```python
def f():
    return 1

~~~
```
| a | b |
|---|---|
| 1 | 2 |

Title
=====
> a quote
lazily continued

    indented

    more
the end"""


def blocks(text: str, step: int) -> list[Block]:
    stream = MarkdownBlocks()
    found = []
    for start in range(0, len(text), step):
        found += stream.feed(text[start : start + step])
    return found + stream.finish()


def test_each_kind_of_block_comes_by_itself():
    assert blocks(ANSWER, 1) == [
        Block("markdown", "# Title\n"),
        Block("markdown", "A paragraph\nover two lines.\n"),
        Block("markdown", "1. one\n   more\n", number=1),
        Block("markdown", "2. two\n   ```sh\n   ls\n   ```\n", number=2, joined=True),
        Block("markdown", "1. three\n\n", number=3, joined=True),
        Block("markdown", "- a\n"),
        Block("markdown", "- b\n  - c\n", joined=True),
        Block("markdown", "* d\n"),
        Block("code", "def f():", "python"),
        Block("code", "    return 1", "python", joined=True),
        Block("code", "", "python", joined=True),
        Block("code", "~~~", "python", joined=True),
        Block("markdown", "| a | b |\n|---|---|\n| 1 | 2 |\n"),
        Block("markdown", "Title\n=====\n"),
        Block("markdown", "> a quote\nlazily continued\n"),
        Block("markdown", "    indented\n\n    more\n"),
        Block("markdown", "the end"),
    ]


@pytest.mark.parametrize("step", [2, 3, 7, 50, 10_000])
def test_the_pieces_it_comes_in_make_no_difference(step):
    assert blocks(ANSWER, step) == blocks(ANSWER, 1)


LINES = st.sampled_from(
    [
        *("- x", "  - y", "1. x", "7. y", "2) z", "x y", "    z", "> q", "# h", "```", "```py", "~~~", "````", ""),
        *("| a | b |", "|---|---|", "===", "---", "***", "<div>", "  more", "[a]: b", "**bold", "`code", "\tt", "* s"),
    ]
)


@given(st.lists(LINES, max_size=25), st.integers(1, 9))
def test_any_markdown_gives_the_same_blocks_in_any_pieces_and_loses_no_line(lines, step):
    text = "\n".join(lines)
    found = blocks(text, step)
    assert found == blocks(text, max(1, len(text)))
    # What is not given out: the lines that open and close fences, and definitions of links.
    left = [line.strip() for block in found for line in block.source.split("\n") if line.strip()]
    given_out = [line.strip() for line in lines if line.strip()]
    fences = [line for line in given_out if re.match(r"[`~]{3}", line)]
    for line in given_out:
        if line not in fences and line != "[a]: b":
            assert line in left
            left.remove(line)
    assert set(left) <= set(fences) | {"[a]: b"}


@given(st.lists(LINES, max_size=12), st.integers(2, 100))
def test_any_markdown_can_be_painted_at_any_width(lines, columns):
    stream = MarkdownBlocks()
    painter = Painter(io.StringIO())
    for line in lines:
        finished = stream.feed(line + "\n")
        for block in finished:
            painter.block(block, columns)
        if stream.tail:
            painter.beginning(stream.tail, columns)
    for block in stream.finish():
        painter.block(block, columns)


MARKUP = st.sampled_from(
    [
        *("word", "**bold**", "**bold words and more**", "*it*", "`code_x`", "`` a`b ``", "_em_", "snake_case", "2*3"),
        *("2 * 3", "*", "_", "**", "`", "~~gone~~", "~~", "~10", "[link](http://x.y/z_a)", "[with words](u)", "[1]"),
        *("[", "![img](p.png)", "![", "<http://a.b/c>", "<", "a|b", "\\", "\\*", "\\[ x \\]", "\\alpha_1", "&amp;"),
        *(
            "é“”—",
            "你好世界你好世界",
            "🙂👨‍👩‍👧",
            "x" * 30,
            "***both***",
            "foo*",
            "*foo",
            "_foo",
            "](u)",
            "(**b**)",
            "\nnext",
            "\n=",
        ),
    ]
)


def row_by_row(text: str, widths: list[int], step: int) -> list[str]:
    """Painted as it is written, each row as soon as it is settled, in a terminal that changes its width."""
    painter, stream = Painter(io.StringIO()), MarkdownBlocks()
    rows: list[Line] = []
    standing = ""
    for number, start in enumerate(range(0, len(text) + 1, step)):
        columns = widths[number % len(widths)]
        ended = start + step > len(text)
        for block in [*stream.feed(text[start : start + step]), *(stream.finish() if ended else [])]:
            rows += painter.block(block, columns, standing)
            standing = ""
        if stream.tail:
            beginning = painter.beginning(stream.tail, columns, standing)
            rows += beginning.settled
            standing = beginning.standing
    return [row.coded for row in rows]


def letters(rows: list[str]) -> str:
    return "".join("".join(rows).split())


@given(st.lists(MARKUP, max_size=40), st.lists(st.sampled_from([6, 12, 20, 40]), min_size=1), st.integers(1, 9))
def test_a_paragraph_whose_rows_come_one_by_one_at_any_widths_is_the_one_that_is_painted_at_once(words, widths, step):
    text = " ".join(["A paragraph:", *words])
    assert letters(row_by_row(text, widths, step)) == letters(painted(text))


LAST_LINES = ["---", "===", "- an item", "1. an item", "| a | b |\n|---|---|\n| c | d |", "```\ncode\n```", "> quote"]


@pytest.mark.parametrize("last", LAST_LINES)
def test_what_follows_the_rows_of_a_paragraph_neither_loses_nor_doubles_them(last):
    text = "a paragraph of some rows\nthat ends here\n" + last
    assert letters(row_by_row(text, [10], 1)) == letters(painted(text, 10))


def beginning(text: str) -> tuple[list[str], list[str]]:
    begun = Painter(io.StringIO()).beginning(Block("markdown", text), 12)
    return [line.coded for line in begun.settled], [line.coded for line in begun.growing]


def test_rows_settle_as_soon_as_two_follow_them():
    assert beginning("one two three four five six") == (["one two"], ["three four", "five six"])


@pytest.mark.parametrize("opening", ["**", "*", "__", "_", "`", "~~", "[", "!["])
def test_no_row_settles_at_or_behind_what_may_still_become_markup(opening):
    settled, _ = beginning(f"one two three four five six {opening}seven" + " word" * 30)
    assert settled == ["one two", "three four", "five six"]


@pytest.mark.parametrize(
    "text", ["2 * 3", "a_b_c", "[1]", "~10", "foo*", "a < b", "\\alpha", "a | b", "`a *b`", "**a** c"]
)
def test_marks_that_can_open_nothing_hold_no_row_back(text):
    settled, growing = beginning(f"{text} one two three four five six" + " word" * 30)
    assert len(growing) == 2
    assert len(settled) > 10


def test_text_that_is_not_what_was_settled_is_painted_again():
    lines = Painter(io.StringIO()).block(Block("markdown", "one *two* three four"), 40, standing="one *two* ")
    assert [line.coded for line in lines] == ["two three four"]


def painted(text: str, columns: int = 40) -> list[str]:
    painter = Painter(io.StringIO())
    return [line.coded for block in blocks(text, 5) for line in painter.block(block, columns)]


def test_code_is_left_as_it_is_so_that_it_can_be_copied():
    code = ["\tindented with a tab", "", "    a = 'a long line " + "x" * 80 + "'", "", "end  # 'it"]
    assert painted("```python\n" + "\n".join(code) + "\n```") == code


def test_the_numbers_of_a_list_go_on_though_its_items_come_one_by_one():
    assert [line.strip() for line in painted("3. a\n3. b\n\n3. c\n\nend")] == ["3 a", "4 b", "5 c", "end"]


def test_angle_brackets_are_text():
    assert painted("A List<int>, a <b>tag</b>\n\n<div>\n\nend", 80) == ["A List<int>, a <b>tag</b>", "<div>", "end"]


def test_a_word_too_long_for_its_column_is_broken_and_not_left_out():
    lines = painted("| a | b |\n|---|---|\n| supercalifragilisticexpialidocious | pneumonoultramicroscopic |", 24)
    words = "".join(line[:12].strip() for line in lines[2:])
    assert words.startswith("supercali")
    letters = sorted("".join("".join(lines[2:]).split()))
    assert letters == sorted("supercalifragilisticexpialidociouspneumonoultramicroscopic")
