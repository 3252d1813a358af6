"""The config file: every key does what the option of its name does, the option wins, and nonsense is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from gemma4_mlx.app.demo.demo_recording import RECORDING
from gemma4_mlx.app.settings import KEYS, Settings, read_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from command_line import checkpoint, only_line, picture
from gemma4_mlx.errors import Gemma4Error
from tmux_terminal import TmuxTerminal
from users import User
from virtual_microphone import IS_INSTALLED, virtual_microphone


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_without_a_file_nothing_is_set(tmp_path):
    assert read_settings(tmp_path / "none.toml") == Settings()


def test_the_model_is_the_one_that_is_opened(user):
    user.sets('model = "/no/such/model"')
    assert "/no/such/model" in only_line(user.run("ask", "hi").stderr)
    assert user.run("ask", "hi", "--max-tokens", "3", "--model", "demo").returncode == 0


def test_max_tokens_is_the_longest_answer_unless_the_option_says_otherwise(user):
    user.sets("max_tokens = 3")
    ask = ("ask", "hi", "--json", "--temperature", "0", "--model", checkpoint())
    assert json.loads(user.run(*ask).stdout)["stats"]["generation_tokens"] == 3
    assert json.loads(user.run(*ask, "--max-tokens", "5").stdout)["stats"]["generation_tokens"] == 5


def test_temperature_is_how_answers_are_drawn_unless_the_option_says_otherwise(user):
    def drawn(seed: int, *more: str) -> str:
        common = ("ask", "hi", "--max-tokens", "8", "--model", checkpoint(), "--seed", str(seed))
        return user.run(*common, *more).stdout

    assert drawn(1) != drawn(2)
    user.sets("temperature = 0")
    assert drawn(1) == drawn(2)
    assert drawn(1, "--temperature", "1") != drawn(2, "--temperature", "1")


def test_a_chat_begins_with_the_systems_words_and_the_thinking_of_the_file(user):
    def said(*more: str) -> str:
        common = ("chat", "--max-tokens", "6", "--temperature", "0", "--model", checkpoint())
        finished = user.run(*common, *more, stdin="hello\n")
        assert finished.returncode == 0
        return finished.stdout

    plain, instructed, thoughtful = said(), said("--system", "Answer in French."), said("--think")
    assert len({plain, instructed, thoughtful}) == 3
    user.sets('[chat]\nsystem = "Answer in French."')
    assert said() == instructed
    assert said("--system", "") == plain
    user.sets("[chat]\nthinking = true")
    assert said() == thoughtful
    assert said("--no-think") == plain


def test_a_chats_pictures_take_the_tokens_of_the_file(user):
    def read(*more: str) -> int:
        common = ("chat", "--max-tokens", "2", "--temperature", "0", "--model", "demo")
        finished = user.run(*common, *more, stdin=f"{picture()}\nwhat is it?\n/context\n")
        (context,) = re.findall(r"(\d+)  of [\d,]+ tokens", finished.stderr)
        return int(context)

    user.sets("[chat]\nimage_tokens = 70")
    assert read() < 100
    assert read("--image-tokens", "280") > 200


def test_a_transcript_has_the_language_and_the_translation_of_the_file(user):
    def written(*more: str) -> dict[str, object]:
        return json.loads(user.run("transcribe", RECORDING, "--format", "json", "--model", "demo", *more).stdout)

    user.sets('[transcribe]\nlanguage = "English"\ntranslate_to = "French"')
    result = written()
    assert result["language"] == "English"
    assert result["translation"]
    assert written("--translate-to", "")["translation"] is None
    assert written("--language", "French")["language"] == "French"


@pytest.mark.skipif(not IS_INSTALLED, reason="PulseAudio is not installed")
def test_the_microphone_is_the_one_of_the_file(user, tmp_path):
    user.sets('[transcribe]\ndevice = "Old Headset"')
    (tmp_path / "pulse").mkdir()
    with virtual_microphone(tmp_path / "pulse") as microphone:
        user.more |= microphone.environment
        finished = user.run("transcribe", "mic", "--model", "demo", "--duration", "0.1")
        assert "no microphone is called 'Old Headset'" in only_line(finished.stderr)
        with TmuxTerminal("chat", "--model", "demo", environment=user.environment) as terminal:
            terminal.wait_for(r"(?m)^> ?$")
            terminal.type("/listen", "Enter")
            terminal.wait_for("no microphone is called 'Old Headset'")
        assert user.run("transcribe", "mic", "--model", "demo", "--duration", "0.1", "--device", "").returncode == 0


@pytest.mark.parametrize("command", [["ask", "hi"], ["chat"], ["transcribe", str(RECORDING)], ["models"]])
@pytest.mark.parametrize("content", ["modell = 'e2b'", "[chat]\nthink = true", "[speech]\nlanguage = 'English'", "= 3"])
def test_what_is_not_a_setting_is_named_with_those_that_are(user, command, content):
    user.sets(content)
    finished = user.run(*command, stdin="")
    assert finished.returncode == 1
    assert finished.stdout == ""
    line = only_line(finished.stderr)
    assert "config.toml" in line
    if "TOML" not in line:
        assert "chat.thinking" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "3"),
        ("model", '" "'),
        ("temperature", "-1"),
        ("temperature", "inf"),
        ("temperature", "nan"),
        ("temperature", "true"),
        ("max_tokens", "0"),
        ("max_tokens", "2.5"),
        ("max_tokens", "true"),
        ("chat.thinking", '"on"'),
        ("chat.system", "[]"),
        ("chat.image_tokens", "100"),
        ("chat.image_tokens", "280.0"),
        ("transcribe.language", "1"),
        ("transcribe.translate_to", '""'),
        ("transcribe.device", "2"),
    ],
)
def test_a_value_that_will_not_do_is_told_with_one_that_would(tmp_path, key, value):
    file = tmp_path / "config.toml"
    file.write_text(f"{key} = {value}\n")
    with pytest.raises(Gemma4Error, match=rf"config\.toml: {key} must be ") as error:
        read_settings(file)
    assert "\n" not in str(error.value)


def test_every_key_is_a_field_and_every_field_has_a_key():
    fields = {
        f"{name}.{inner}" if hasattr(value, "__dataclass_fields__") else name
        for name, value in vars(Settings()).items()
        for inner in (vars(value) if hasattr(value, "__dataclass_fields__") else [""])
    }
    assert fields == set(KEYS)


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda key, value: f"{key} = {value}\n".encode(),
        st.sampled_from([*KEYS, "chat", "transcribe", "other.key"]),
        st.sampled_from(["1", "-1", "nan", "true", '"x"', "[1]", "{a = 1}", "1979-05-27", "1e999"]),
    )
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_file_is_more_than_one_line_of_trouble(tmp_path, content):
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    line = ""
    try:
        read_settings(file)
    except Gemma4Error as error:
        line = str(error)
    assert "\n" not in line
    assert not line or line.startswith(str(file))
