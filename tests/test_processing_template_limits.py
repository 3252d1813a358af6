"""What a chat template may take: bounded time and memory, whatever it asks for, and every honest one renders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2.ext
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gemma4_mlx.errors import CheckpointError, InputError
from gemma4_mlx.processing.chat import ChatTemplate
from published_templates import TEMPLATES

LONG = "a" * 200_000


def doubled(start: str, step: str, then: str = "") -> str:
    return (
        f"{{% set ns = namespace(v={start}, w={start}) %}}"
        f"{{% for i in range(90) %}}{{% set ns.v = {step} %}}{{% set ns.w = {step.replace('ns.v', 'ns.w')} %}}"
        f"{{% endfor %}}{then}"
    )


TOO_MUCH = {
    "nested loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "nested loops that write": "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
    "loops with a condition": "{% for a in range(100000) %}{% for b in range(100000) if b < 0 %}{% endfor %}"
    "{% endfor %}",
    "loops in filters": "{% for a in range(100000) %}{{ range(100000)|map('string')|list|length }}{% endfor %}",
    "a loop in itself": "{% for a in range(99999) recursive %}{{ loop(range(99999)) if loop.depth < 9 }}{% endfor %}",
    "two calls each": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "lipsum": "{{ lipsum(10000000) }}",
    "a product": "{{ 'a' * 2000000000 }}",
    "a product of lists": "{{ ([1] * 2000000000)|length }}",
    "a product the other way round": "{{ 2000000000 * 'a' }}",
    "a sum": doubled("'a'", "ns.v + ns.v"),
    "a joined text": doubled("'a'", "ns.v ~ ns.v"),
    "a sum of lists": doubled("[1]", "ns.v + ns.v"),
    "many large texts": "{% set ns = namespace(v=[]) %}{% for i in range(90000) %}"
    "{% set ns.v = ns.v + [messages[0].content.strip('x')[1:]] %}{% endfor %}",
    "a list of itself": doubled("[1]", "[ns.v, ns.v]", "{{ ns.v }}"),
    "a list of itself as JSON": doubled("[1]", "[ns.v, ns.v]", "{{ ns.v|tojson }}"),
    "a tuple of itself": doubled("(1,)", "(ns.v, ns.v)", "{{ {ns.v: 1} }}"),
    "a mapping of itself": doubled("{}", "{'a': ns.v, 'b': ns.v}", "{{ ns.v == ns.w }}"),
    "a mapping of itself, called": doubled("{}", "dict(a=ns.v, b=ns.v)", "{{ ns.v == ns.w }}"),
    "arguments of themselves": "{% macro f() %}{{ f(varargs, varargs) }}{% endmacro %}{{ f(1) }}",
    "a cycler of itself": doubled("(1,)", "cycler(ns.v, ns.v).items", "{{ ns.v }}"),
    "views of itself": doubled("{}", "[{'a': ns.v}.values(), {'a': ns.v}.items()]", "{{ ns.v }}"),
    "a namespace of itself": doubled("namespace()", "namespace(a=ns.v, b=ns.v)", "{{ 'ok' }}" + "{{ 'a' * 10**9 }}"),
    "a compared list": doubled("[1]", "[ns.v, ns.v]", "{{ ns.v == ns.w }}"),
    "center": "{{ 'a'.center(2000000000) }}",
    "the filter center": "{{ 'a'|center(2000000000) }}",
    "ljust": "{{ 'a'.ljust(2000000000) }}",
    "zfill": "{{ 'a'['zfill'](2000000000) }}",
    "attr": "{{ ('a'|attr('rjust'))(2000000000) }}",
    "a width": "{{ '%2000000000d' % 1 }}",
    "a width given apart": "{{ '%*d' % (2000000000, 1) }}",
    "a width behind a name": "{{ '%((a))2000000000d' % {'(a)': 1} }}",
    "a width in a filter": "{{ '%2000000000d'|format(1) }}",
    "a width in format": "{{ '{:2000000000}'.format(1) }}",
    "a width in a field": "{{ '{:{}}'.format(1, 2000000000) }}",
    "format from a map": "{{ '{a:2000000000}'.format_map({'a': 1}) }}",
    "a long text many times": "{{ ('%s' * 400) % (['"
    + "a" * 9999
    + "']*1)|list }}{{ ('{0}'*300).format(messages[0].content) }}",
    "replaced": "{{ messages[0].content.replace('a', messages[0].content) }}",
    "the filter replace": "{{ messages[0].content|replace('a', messages[0].content) }}",
    "joined": "{{ messages[0].content.join(messages[0].content) }}",
    "the filter join": "{{ range(100000)|join(messages[0].content) }}",
    "one in all": "{{ range(100000)|map('replace', '1', messages[0].content)|join }}",
    "an indent": "{{ 'a\\nb'|indent(2000000000) }}",
    "an indent of JSON": "{{ {'a': 1}|tojson(indent=2000000000) }}",
    "batch": "{{ [1]|batch(2000000000, 'x')|list }}",
    "slice": "{{ [1]|slice(2000000000)|list }}",
    "a power": "{{ 9 ** 999999999 }}",
    "powers": doubled("9", "ns.v ** 9"),
    "products": doubled("9", "ns.v * ns.v"),
    "a rounded number": "{{ 1|round(-1000000000) }}",
    "a number of many digits": "{{ (messages[0].content|int(base=16)) // 3 }}",
    "a sum of sums": "{{ [[1]]|sum(start=[]) }}",
    "a format of time": "{{ strftime_now('%c' * 100000) }}",
    "blocks": "{% set x %}{% for i in range(100000) %}{{ messages[0].content }}{% endfor %}{% endset %}",
    "a macro that writes": "{% macro f() %}{% for i in range(100000) %}"
    + "x" * 9000
    + "{% endfor %}{% endmacro %}{{ f() }}",
    "looking backwards": "{% set n = 'b' ~ messages[0].content[1:] %}{% for i in range(99) %}"
    "{{ messages[0].content.rfind(n) }}"
    "{% endfor %}{{ 'a' * 10**9 }}",
    "a long source": "x" * 200_000,
    "ends in many letters": "{{ raise_exception(messages[0].content * 3) }}",
    "itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "many parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "many lists": "{{ " + "[" * 50 + "]" * 50 + " }}{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "many blocks": "{% for a in b %}" * 60 + "{% endfor %}" * 60,
    "many blocks more": "{% if a %}" * 400 + "{% endif %}" * 400,
    "a sum of many": "{{ " + "a+" * 20000 + "a }}",
    "a long number": "{{ " + "9" * 9000 + " }}",
    "a repeated attribute": "{{ a" + ".a" * 20000 + " }}",
    "bytes": "{{ 'a'.encode().center(2000000000) }}",
    "bytes of a number": "{{ (1).to_bytes(2000000000, 'big') }}",
    "tabs": "{{ '\\t'.expandtabs(2000000000) }}",
    "a translated text": "{{ messages[0].content.translate({97: messages[0].content}) }}",
}
# All in one process of its own, whose memory tells what they take. The time is a tenth of what a person's model gets.
_RUN = """
import json, os, resource, sys, time
sys.path.insert(0, sys.argv[1])
from gemma4_mlx.errors import Gemma4Error
from gemma4_mlx.processing import template_budget
from test_processing_template_limits import TOO_MUCH, rendered
template_budget._SECONDS = 0.5
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
for name, source in TOO_MUCH.items():
    start = time.thread_time()
    try:
        said = "rendered: " + rendered(source)[:100]
    except Gemma4Error as error:
        said = str(error)
    except BaseException as error:
        said = "not ours: " + repr(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if os.path.exists("/proc/self/status"):  # Linux begins it with what the process held that started this one
        peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
    print(json.dumps([name, said, time.thread_time() - start, peak]), flush=True)
"""


def rendered(source: str, content: Any = LONG, **more: Any) -> str:
    return ChatTemplate(source).render(
        [{"role": "user", "content": content, **more}],
        tools=None,
        add_generation_prompt=True,
        enable_thinking=False,
        special_tokens={"bos_token": "<bos>"},
    )


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, float, int]]:
    """What was said of each template, the seconds it took, and the peak memory up to then in bytes."""
    command = [sys.executable, "-c", _RUN, str(Path(__file__).parent)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    unit = 1 if sys.platform == "darwin" else 1024
    return {name: (said, seconds, peak * unit) for name, said, seconds, peak in lines}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_template_that_takes_too_much_is_refused_in_one_line(
    name: str, outcomes: dict[str, tuple[str, float, int]]
) -> None:
    said, seconds, peak = outcomes[name]
    assert said.startswith("the chat template ")
    assert len(said) < 500
    assert "\n" not in said
    assert seconds < 2
    assert peak < 500e6


@pytest.mark.parametrize("source", [TOO_MUCH["a product"], TOO_MUCH["a joined text"], TOO_MUCH["center"]])
def test_too_much_is_the_checkpoint_s_fault(source: str) -> None:
    with pytest.raises(CheckpointError, match="takes too much memory: use one from the model's makers"):
        rendered(source, "Hello")


def test_what_a_template_may_take_grows_with_what_it_is_given() -> None:
    book = "A sentence of a book. " * 200_000
    assert rendered("{% for m in messages %}{{ m.content.strip() ~ '!' }}{% endfor %}", book) == book.strip() + "!"
    assert rendered("{{ messages[0].content|replace('book', 'story')|trim|length }}", book) == str(len(book) + 199_999)


def test_a_template_may_look_at_every_message_for_every_message() -> None:
    source = (
        "{% for a in messages %}{% for b in messages %}{% if b.content == a.content %}{{ loop.index0 }} {% endif %}"
        "{% endfor %}{% endfor %}"
    )
    messages = [{"role": "user", "content": f"number {number}"} for number in range(400)]
    shown = ChatTemplate(source).render(
        messages, tools=None, add_generation_prompt=True, enable_thinking=False, special_tokens={}
    )
    assert shown.split() == [str(number) for number in range(400)]


HONEST = [
    "{{ messages|map(attribute='role')|join(', ') }}|{{ messages|map('length')|list }}|{{ messages|length }}",
    "{% if messages|selectattr('role', 'equalto', 'nobody') %}true{% endif %}",  # as Jinja has it
    "{{ messages|selectattr('role', 'equalto', 'nobody')|list }}"
    "{{ (messages|rejectattr('name', 'defined')|first).role }}",
    "{{ (messages + [{'role': 'tool', 'content': 'x'}])[1:]|last }}{{ messages[::-1] }}{{ messages[-1].content[2:5] }}",
    "{{ 'a-b-c'.split('-', 1) }}{{ ' a b '.split() }}{{ 'a-b-c'.rsplit('-', maxsplit=1) }}"
    "{{ 'a\nb'.splitlines(true) }}",
    "{{ 'x'.center(5, '*') }}{{ 'x'.ljust(3) }}{{ '7'.zfill(3) }}{{ '-'.join(['a', 'b']) }}"
    "{{ 'aba'.replace('a', 'c', 1) }}",
    "{{ 'xaxb'.strip('x') }}{{ 'ab'.rfind('b') }}{{ 'a.b'.rpartition('.') }}{{ ' a'.lstrip() ~ 'a '.rstrip() }}",
    "{{ '%s is %d, %05.2f%%' % ('a', 3, 2.5) }}{{ '%(a)s' % {'a': [1]} }}{{ '%s'|format('a') }}{{ 'a' % () }}",
    "{{ '{} {a!r:>5} {0[0]}'.format('xy', a='b') }}",
    "{{ 2 ** 10 }}{{ 2 ** 0.5 }}{{ 3 * 'ab' }}{{ [1] * 2 }}{{ 7 % 4 }}{{ 7 // 2 }}{{ 1.5 + 1 }}{{ -3|abs }}"
    "{{ 2.567|round(1) }}",
    "{% for role, group in messages|groupby('role') %}{{ role }}{{ group|length }}{% endfor %}"
    "{{ (messages|groupby('role'))[0].list }}",
    "{% for row in [1, 2, 3]|batch(2, 'x') %}{{ row }}{% endfor %}{{ [3, 1, 2]|sort|reverse|list }}"
    "{{ [1, 1]|unique|list }}",
    "{{ {'b': 1, 'a': {'c': [1, none, true]}}|tojson(indent=2) }}{{ {'b': 1, 'a': 2}|dictsort }}{{ [1, 2]|sum }}",
    "{{ messages|tojson }}{{ messages|string }}{{ messages[0].items()|list }}{{ messages[0].get('x', 'no') }}",
    "{% macro m(a, b='c') %}{{ a ~ b }}{{ varargs }}{{ kwargs }}{{ caller() if caller }}{% endmacro %}"
    "{{ m(1, 2, 3, d=4) }}"
    "{% call m('x') %}called{% endcall %}{{ m }}",
    "{% for m in messages recursive %}{{ loop.index }}{{ loop.length }}{{ loop.last }}{{ loop.revindex0 }}"
    "{{ loop.cycle(1, 2) }}"
    "{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{% endfor %}",
    "{% set x %}a{{ messages[0].role }}{% endset %}{{ x|upper }}{% filter lower %}A{{ x }}{% endfilter %}"
    "{% set a, b = 1, 2 %}{{ b }}",
    "{% set ns = namespace(a='', l=[]) %}{% for c in 'abc' %}{% set ns.a = c + ns.a %}"
    "{% set ns.l = ns.l + [c] %}{% endfor %}"
    "{{ ns.a }}{{ ns.l }}{{ ns.missing is defined }}{{ ns['a'] }}",
    "{{ 'role' in messages[0] and 'a' not in 'bc' and messages[0].role in ['user', 'tool'] and 2 in (1, 2) }}",
    "{{ messages[0].missing is defined }}{{ missing }}{{ missing|default('d') }}{{ none }}"
    "{{ messages[0]['role'] }}{{ messages[9] }}",
    "{{ dict(a=1, **{'b': 2}) }}{{ cycler(1, 2).next() }}{{ joiner(',')() }}{{ range(3)|list }}"
    "{{ [[1, 2], [3]]|map('first')|list }}",
    "{{ 'héllo wörld'|title }}{{ 'a b'|wordcount }}{{ 'a'|indent(2, true) }}{{ 'abcdef'|truncate(4) }}"
    "{{ '12'|int + '1.5'|float }}",
    "{{ '<b>'|e }}{{ '<b>'|safe ~ '<i>' }}{% autoescape true %}{{ '<' ~ '>' }}{{ '<b>'|safe + '&' }}"
    "{% endautoescape %}",
    "{% if true %}{% block body %}in a block{% endblock %}{{ self.body() }}{% endif %}{{ 'x' if false }}"
    "{{ messages is sequence }}",
    "{{ messages[0]|attr('items') is callable }}{{ (messages[0]|items|list)[0] }}{{ messages[0].values()|list }}",
]


@pytest.mark.parametrize("source", HONEST)
def test_what_honest_templates_do_is_as_in_jinja_s_own_sandbox(source: str) -> None:
    messages = [{"role": "user", "content": "Hello there"}, {"role": "user", "content": "Again"}]
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    plain.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    shown = ChatTemplate(source).render(
        messages, tools=None, add_generation_prompt=True, enable_thinking=False, special_tokens={}
    )
    assert shown == plain.from_string(source).render(messages=messages)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_recursion_without_end_in_the_messages_is_an_error_of_ours(name: str) -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    call = {"type": "function", "function": {"name": "look", "arguments": endless}}
    with pytest.raises(InputError, match="cannot render these messages"):
        ChatTemplate(TEMPLATES[name]).render(
            [{"role": "assistant", "content": "", "tool_calls": [call]}],
            tools=None,
            add_generation_prompt=True,
            enable_thinking=False,
            special_tokens={},
        )
