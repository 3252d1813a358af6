"""The files beside a checkpoint's weights: read if there, done without where possible, refused if they are wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as RawTokenizer
from tokenizers.models import BPE

from checkpoints import raw_config
from gemma4_mlx.config import Config
from gemma4_mlx.errors import CheckpointError, InputError
from gemma4_mlx.generation.schema import SchemaConstraint
from gemma4_mlx.processing import Processor
from gemma4_mlx.processing.chat import ChatTemplate
from gemma4_mlx.processing.settings import Settings, read_settings
from processing_reference import ids_of, our_processor, tokenizer_folder
from tiny_tokenizer import PROCESSOR_CONFIG, SPECIAL_IDS, write_tokenizer

CONFIG = Config.from_dict(raw_config("e2b"))
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rename_token(folder: Path, token: str) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace(json.dumps(token)[1:-1], "«gone»"))


def test_only_tokenizer_json_and_a_template_are_needed(folder: Path) -> None:
    for name in ("tokenizer_config.json", "processor_config.json", "generation_config.json"):
        (folder / name).unlink()
    processor = Processor.from_folder(folder, CONFIG)
    assert ids_of(processor(CHAT)) == ids_of(our_processor()(CHAT))
    assert processor.generation_config == {}
    assert set(processor.tokenizer.eos_token_ids) == {SPECIAL_IDS["<eos>"], SPECIAL_IDS["<turn|>"]}


def test_generation_settings_are_handed_on(folder: Path) -> None:
    processor = Processor.from_folder(folder, CONFIG)
    assert processor.generation_config["top_k"] == 64
    assert processor.tokenizer.eos_token_ids == (1, SPECIAL_IDS["<turn|>"], SPECIAL_IDS["<|tool_response>"])
    edit(folder / "generation_config.json", lambda content: content.update(eos_token_id=1))
    assert Processor.from_folder(folder, CONFIG).tokenizer.eos_token_ids == (1,)


def test_a_template_that_is_larger_than_any_is_not_read(folder: Path) -> None:
    with (folder / "chat_template.jinja").open("wb") as stream:
        stream.truncate(4 << 30)
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is larger than 1 MiB: download it again"):
        Processor.from_folder(folder, CONFIG)


def into_json(folder: Path, template: str) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def into_tokenizer_config(folder: Path, template: str) -> None:
    edit(folder / "tokenizer_config.json", lambda content: content.update(chat_template=template))


def into_a_named_list(folder: Path, template: str) -> None:
    named = [{"name": "rag", "template": "nothing"}, {"name": "default", "template": template}]
    edit(folder / "tokenizer_config.json", lambda content: content.update(chat_template=named))


@pytest.mark.parametrize("move", [into_json, into_tokenizer_config, into_a_named_list])
def test_the_template_is_found_where_checkpoints_keep_it(folder: Path, move: Any) -> None:
    path = folder / "chat_template.jinja"
    move(folder, path.read_text())
    path.unlink()
    assert ids_of(Processor.from_folder(folder, CONFIG)(CHAT)) == ids_of(our_processor()(CHAT))


def test_a_checkpoint_without_a_template_still_has_a_tokenizer_and_says_what_is_missing(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    processor = Processor.from_folder(folder, CONFIG)
    assert processor.tokenizer.encode("<bos>a")[0] == 2
    with pytest.raises(CheckpointError, match="no chat template"):
        processor("Hello")


def test_a_tokenizer_that_is_missing_or_damaged_is_named(folder: Path) -> None:
    path = folder / "tokenizer.json"
    for content in ('{"model": {}}', "{", "\0"):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged") as caught:
            Processor.from_folder(folder, CONFIG)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        Processor.from_folder(folder, CONFIG)


@pytest.mark.parametrize(
    "token", ["<bos>", "<|turn>", "<turn|>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<|video|>"]
)
def test_a_tokenizer_without_a_needed_token_is_refused_with_the_token_s_name(folder: Path, token: str) -> None:
    rename_token(folder, token)
    with pytest.raises(CheckpointError) as caught:
        Processor.from_folder(folder, CONFIG)
    assert f"lacks {token}:" in str(caught.value)


def test_another_model_s_tokenizer_is_refused_with_all_that_it_lacks(folder: Path) -> None:
    RawTokenizer(BPE({"a": 0, "b": 1}, [])).save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError) as caught:
        Processor.from_folder(folder, CONFIG)
    for token in ("<bos>", "<|turn>", "<|image|>", "<|audio|>"):
        assert token in str(caught.value)


def test_tokens_of_a_sense_the_model_lacks_are_not_needed(folder: Path) -> None:
    rename_token(folder, "<|audio|>")
    assert ids_of(Processor.from_folder(folder, dataclasses.replace(CONFIG, audio=None))(CHAT))


def test_a_tokenizer_whose_ids_are_not_the_model_s_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"<\|image\|> is \d+ in tokenizer.json and 9 in config.json"):
        Processor.from_folder(folder, dataclasses.replace(CONFIG, image_token_id=9))


def with_vocabulary(size: int) -> Config:
    return dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, vocab_size=size))


def test_a_tokenizer_may_have_a_few_tokens_more_than_the_model_has_rows(folder: Path) -> None:
    raw = RawTokenizer.from_file(str(folder / "tokenizer.json"))
    raw.add_tokens(["<added>"])
    raw.save(str(folder / "tokenizer.json"))
    processor = Processor.from_folder(folder, CONFIG)
    assert ids_of(processor(CHAT)) == ids_of(our_processor()(CHAT))
    with pytest.raises(InputError, match=r"the prompt spells '<added>', a token the model was never given"):
        processor("What is <added>?")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    constraint = SchemaConstraint(schema, processor.tokenizer, 512, [1])
    assert constraint.allowed().shape == (512,)
    assert processor.tokenizer.decode(constraint.allowed().nonzero()[0][:1]) == "{"


def test_a_control_token_beyond_the_embedding_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"<\|video\|>: beyond the 23 tokens of the model"):
        Processor.from_folder(folder, with_vocabulary(SPECIAL_IDS["<|video|>"]))


def test_a_placeholder_kept_as_an_ordinary_entry_is_still_one_token(folder: Path) -> None:
    def demote(content: dict[str, Any]) -> None:
        content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<|video|>"]

    edit(folder / "tokenizer.json", demote)
    tokenizer = Processor.from_folder(folder, CONFIG).tokenizer
    assert tokenizer.encode("<|video|>") == [SPECIAL_IDS["<|video|>"]]
    assert len(tokenizer) == 512


def test_padding_and_cutting_that_a_tokenizer_file_asks_for_are_not_done(folder: Path) -> None:
    raw = RawTokenizer.from_file(str(folder / "tokenizer.json"))
    raw.enable_padding(length=64)
    raw.enable_truncation(4)
    raw.save(str(folder / "tokenizer.json"))
    assert ids_of(Processor.from_folder(folder, CONFIG)(CHAT)) == ids_of(our_processor()(CHAT))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "processor_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "\0"])
def test_a_damaged_json_file_is_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=name):
        Processor.from_folder(folder, CONFIG)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("image_processor", "patch_size", 14),
        ("image_processor", "rescale_factor", 1 / 127.5),
        ("image_processor", "resample", 2),
        ("video_processor", "max_soft_tokens", 71),
        ("video_processor", "num_frames", -3),
        ("video_processor", "num_frames", True),
        ("video_processor", "num_frames", 10**9),
        ("video_processor", "max_soft_tokens", [70]),
        ("feature_extractor", "sampling_rate", 24_000),
        ("feature_extractor", "mel_floor", 1e-5),
        ("feature_extractor", "fft_overdrive", True),
        ("feature_extractor", "per_bin_mean", [0.5]),
    ],
)
def test_a_processor_setting_that_would_not_be_followed_is_refused(
    folder: Path, section: str, key: str, value: Any
) -> None:
    edit(folder / "processor_config.json", lambda content: content[section].update({key: value}))
    with pytest.raises(CheckpointError, match=rf"{section}\.{key} is"):
        Processor.from_folder(folder, CONFIG)


@pytest.mark.parametrize("section", ["image_processor", "video_processor"])
def test_pictures_may_be_normalized_by_numbers_that_change_nothing_alone(folder: Path, section: str) -> None:
    def set_mean(mean: object, do_normalize: bool) -> None:
        edit(
            folder / "processor_config.json",
            lambda content: content[section].update(do_normalize=do_normalize, image_mean=mean, image_std=[1.0] * 3),
        )

    for mean, do_normalize in (([0.0] * 3, True), (None, True), ([0.5] * 3, False)):
        set_mean(mean, do_normalize)
        Processor.from_folder(folder, CONFIG)
    set_mean([0.5] * 3, True)
    with pytest.raises(CheckpointError, match=rf"{section}\.image_mean is \[0.5, 0.5, 0.5\], only 0 is supported"):
        Processor.from_folder(folder, CONFIG)


def test_whole_numbers_written_as_floats_are_whole_numbers(folder: Path) -> None:
    edit(
        folder / "processor_config.json",
        lambda content: content["video_processor"].update(num_frames=16.0, max_soft_tokens=70.0),
    )
    assert read_settings(folder, CONFIG) == Settings(16, 70)


def test_the_older_preprocessor_config_is_read_too(folder: Path) -> None:
    (folder / "processor_config.json").unlink()
    older = folder / "preprocessor_config.json"
    older.write_text(json.dumps(PROCESSOR_CONFIG["image_processor"]))
    Processor.from_folder(folder, CONFIG)
    older.write_text(json.dumps({"patch_size": 14}))
    with pytest.raises(CheckpointError, match=r"image_processor\.patch_size is 14"):
        Processor.from_folder(folder, CONFIG)


def render(template: str, **messages: Any) -> str:
    return ChatTemplate(template).render(
        [{"role": "user", "content": "a < b & 'c'", **messages}],
        tools=None,
        add_generation_prompt=True,
        enable_thinking=False,
        special_tokens={"bos_token": "<bos>"},
    )


TEMPLATES = {
    "{{ messages | tojson }}": '[{"role": "user", "content": "a < b & \'c\'"}]',
    "{{ {'é': 1} | tojson(indent=1) }}": '{\n "é": 1\n}',
    "{% for n in [0, 1, 2] %}{% if n == 1 %}{% continue %}{% endif %}{{ n }}{% endfor %}": "02",
    "{% for n in [0, 1, 2] %}{% if n == 1 %}{% break %}{% endif %}{{ n }}{% endfor %}": "0",
    "{% generation %}said{% endgeneration %}!": "said!",
    "  {% if true %}\nx\n  {% endif %}\ny": "x\ny",
    "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}": "2",
    "{% macro m(v) %}{{ 'map' if v is mapping else 'seq' }}{% endmacro %}{{ m({}) + m([]) | upper }}": "mapSEQ",
    "{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}": "a2b1",
    "{{ messages[0].get('name', 'none').split('o')[0].strip() }}": "n",
    "{{ bos_token }}{{ missing is defined }}{{ enable_thinking }}": "<bos>FalseFalse",
    "{{ strftime_now('%%') }}": "%",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_find_what_transformers_gives_them(template: str) -> None:
    assert render(template) == TEMPLATES[template]


def test_a_template_s_own_refusal_is_passed_on() -> None:
    with pytest.raises(InputError, match="refuses these messages: only cats"):
        render("{{ raise_exception('only cats') }}")


@pytest.mark.parametrize("template", ["{{ none.x.y }}", "{{ 'a' + 1 }}", "{{ 1 // 0 }}", "{{ messages[7].role.x }}"])
def test_a_template_that_trips_over_the_messages_is_an_error_of_ours(template: str) -> None:
    with pytest.raises(InputError, match="cannot render"):
        render(template)


@pytest.mark.parametrize("template", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}"])
def test_a_template_gets_out_of_its_sandbox_nowhere(template: str) -> None:
    with pytest.raises(InputError, match="cannot render"):
        render(template)


def test_a_template_that_is_no_jinja_is_a_damaged_checkpoint(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(CheckpointError, match="chat template is damaged"):
        Processor.from_folder(folder, CONFIG)
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is damaged"):
        Processor.from_folder(folder, CONFIG)


def test_the_package_s_processing_never_imports_torch_or_transformers() -> None:
    code = (
        "import sys; from pathlib import Path; from gemma4_mlx.config import Config\n"
        "from gemma4_mlx.processing import Processor; import json\n"
        "config = Config.from_dict(json.loads(sys.argv[2]))\n"
        "Processor.from_folder(Path(sys.argv[1]), config).render('Hello')\n"
        "print([m for m in ('torch', 'transformers', 'mlx_lm', 'av', 'PIL', 'soxr') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tokenizer_folder()), json.dumps(raw_config("e2b"))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
