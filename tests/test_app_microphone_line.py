"""`/listen`: what becomes of sound and keys, with the built-in model."""

from __future__ import annotations

import re
import threading
import time
from functools import cache

import numpy as np
import pytest
from gemma4_mlx.app.chat.model_thread import ModelThread
from gemma4_mlx.app.speech.live_sound import PlayedSound
from gemma4_mlx.app.speech.microphone_line import listen, listen_to, translation_of
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import gemma4_mlx as g4
from command_line import environment, picture
from demo_inputs import RECORDINGS
from gemma4_mlx.errors import InputError
from gemma4_mlx.processing.audio import load_audio
from tmux_terminal import TmuxTerminal
from virtual_microphone import IS_INSTALLED, virtual_microphone

RATE = 16_000
SPOKEN = load_audio(RECORDINGS[0].path)
ENTER, TAB, ESCAPE, CTRL_C, CTRL_R = "\r", "\t", "\x1b", "\x03", "\x12"


MODEL_THREAD = ModelThread()


@cache
def demo():
    return g4.load("demo")


def blocks(*sounds: np.ndarray, then: Exception | None = None):
    whole = np.concatenate(sounds)
    yield from (whole[at : at + RATE // 10] for at in range(0, len(whole), RATE // 10))
    if then is not None:
        raise then


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def heard_of(sound, key: str = "", after: float = 0.0, model=demo, **options):
    """What `listen_to` gives when a key is pressed so many seconds in."""
    submit = MODEL_THREAD.submit
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        pressed = threading.Timer(after, keys.send_text, (key,))
        pressed.start()
        try:
            with sound:
                return listen_to(sound, submit, model, "English", **options)
        finally:
            pressed.cancel()


def test_two_seconds_of_silence_after_speech_end_it():
    began = time.monotonic()
    heard = heard_of(PlayedSound(blocks(silence(1), SPOKEN, silence(60)), speed=2.0))
    assert time.monotonic() - began < 15
    assert heard.text == text()
    assert not heard.wants_sound
    assert heard.note is None


@cache
def text() -> str:
    """What the same recording gives as a file."""
    return MODEL_THREAD.submit(lambda: g4.transcribe(*demo(), SPOKEN, "English").text).result()


@pytest.mark.parametrize(("key", "wants_sound"), [(ENTER, False), (CTRL_R, False), (TAB, True)])
def test_a_key_ends_it_at_once_and_keeps_what_was_said(key, wants_sound):
    MODEL_THREAD.submit(demo).result()  # the key's time counts from now, the sound's from when the model listens
    spoken = len(SPOKEN) / RATE
    heard = heard_of(PlayedSound(blocks(silence(0.5), SPOKEN, silence(60)), 1.0), key, spoken + 1.3)
    assert heard.text
    assert heard.wants_sound == wants_sound
    # The sound is what was said, without the silence round it.
    assert spoken - 0.5 < len(heard.samples) / RATE < spoken + 1.2
    best = np.abs(np.fft.irfft(np.fft.rfft(heard.samples, 2**18) * np.conj(np.fft.rfft(SPOKEN, 2**18)))).max()
    assert best > 0.9 * float(np.sum(SPOKEN**2))


@pytest.mark.parametrize("key", [ESCAPE, CTRL_C])
def test_it_can_be_cancelled_also_while_the_model_is_loading(key):
    loaded = threading.Event()

    def loading():
        loaded.wait(30)
        return demo()

    began = time.monotonic()
    assert heard_of(PlayedSound(blocks(silence(60)), 1.0), key, 0.3, model=loading) is None
    assert heard_of(PlayedSound(blocks(silence(60)), 1.0), key, 0.3) is None  # still behind the first
    loaded.set()
    assert heard_of(PlayedSound(blocks(silence(60)), 1.0), key, 1.0) is None
    assert time.monotonic() - began < 8


def test_what_is_said_while_the_model_is_loading_is_not_lost():
    def loading():
        time.sleep(2)
        return demo()

    sound = PlayedSound(blocks(silence(0.5), SPOKEN, silence(60)), speed=2.0)
    assert heard_of(sound, model=loading).text == text()


def test_nothing_said_is_no_text():
    heard = heard_of(PlayedSound(blocks(silence(60)), 1.0), ENTER, 1.0)
    assert heard.text == ""


def test_a_microphone_pulled_out_keeps_what_was_said():
    gone = InputError("the microphone is gone")
    heard = heard_of(PlayedSound(blocks(silence(0.5), SPOKEN, silence(1), then=gone), 2.0))
    assert heard.text
    assert heard.note == "the microphone is gone"
    with pytest.raises(InputError, match="gone"):
        heard_of(PlayedSound(blocks(silence(0.5), then=gone), 2.0))


def test_it_is_translated_as_it_comes_or_afterwards():
    heard = heard_of(PlayedSound(blocks(silence(0.5), SPOKEN, silence(9)), 2.0), translate_to="French")
    assert heard.translation
    assert MODEL_THREAD.submit(lambda: translation_of(heard, *demo(), "English", "French")).result()


def test_whatever_the_model_raises_comes_out():
    def broken():
        raise g4.Gemma4Error("no such model")

    with pytest.raises(g4.Gemma4Error, match="no such model"):
        heard_of(PlayedSound(blocks(silence(5)), 1.0), model=broken)


def test_without_a_terminal_it_is_refused_in_words():
    with pytest.raises(InputError, match="transcribe mic"):
        listen(MODEL_THREAD.submit, demo)
    with pytest.raises(ValueError, match="language"):
        listen(MODEL_THREAD.submit, demo, language="")


needs_a_microphone = pytest.mark.skipif(not IS_INSTALLED, reason="needs PulseAudio to be a microphone")


@needs_a_microphone
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 12)])
def test_in_the_chat_what_is_said_stands_in_the_line_behind_what_was_typed(tmp_path, columns, rows):
    with (
        virtual_microphone(tmp_path) as microphone,
        TmuxTerminal(
            *("chat", "--model", "demo"),
            environment={**environment(), **microphone.environment},
            columns=columns,
            rows=rows,
        ) as terminal,
    ):
        terminal.wait_for(r"(?m)^> ?$")
        terminal.type("Hello ", "C-r")
        terminal.wait_for("○ ▯.*\n?.*Enter done · Tab attach · Esc cancel")
        microphone.play(RECORDINGS[0].path)
        screen = terminal.wait_for(rf"> Hello {text()}")
        assert "Enter done" not in screen
        terminal.type("C-c", "C-r")
        terminal.wait_for("○ ▯")
        terminal.type("Escape")
        terminal.wait_for(r">\s+demo")  # the line with its footer again
        terminal.type("C-r")
        terminal.wait_for("○ ▯")
        microphone.play(RECORDINGS[0].path)
        terminal.type("Tab")
        assert "1 1" not in terminal.wait_for(r"> \[audio 1").rpartition("> [")[2]
        terminal.type("C-c", "C-r")
        terminal.wait_for("○ ▯")
        terminal.type("C-d")  # elsewhere the end of what one enters, so here too
        terminal.wait_for("nothing was heard")
        terminal.type("C-r", "Tab")  # at once
        assert terminal.wait_for(r"nothing is\s+attached[^>]*>").count("[audio 1") <= 1


@needs_a_microphone
def test_a_picture_dropped_while_it_listens_stands_in_the_line_with_what_is_said(tmp_path):
    with (
        virtual_microphone(tmp_path) as microphone,
        TmuxTerminal("chat", "--model", "demo", environment={**environment(), **microphone.environment}) as terminal,
    ):
        terminal.wait_for(r"(?m)^> ?$")
        terminal.type("C-r")
        terminal.wait_for("○ ▯")
        terminal.paste("/no/such/picture.png")
        terminal.wait_for(r"/no/such/picture\.png does not exist")
        terminal.paste(f"'{picture()}' ")
        terminal.wait_for(r"(?m)^cat\.png 120×90$")
        microphone.play(RECORDINGS[0].path)
        terminal.wait_for(rf"> \[image 1: cat\.png [^]]*\] {text()}")
        terminal.type("C-c", "C-r")
        terminal.wait_for("○ ▯")
        terminal.paste(f"'{picture()}' ")
        terminal.wait_for(r"(?m)^cat\.png 120×90$")
        terminal.type("Escape")  # of what was said, not of what was dropped
        terminal.wait_for(r"> \[image 1: cat\.png")


@needs_a_microphone
@pytest.mark.parametrize("sizes", [[(80, 24), (40, 10), (80, 24)], [(200, 60), (40, 10)], [(40, 10), (200, 60)]])
@pytest.mark.parametrize("dies", [False, True])
def test_a_window_that_changes_its_size_while_it_listens_keeps_nothing_of_what_was_drawn(tmp_path, sizes, dies):
    with (
        virtual_microphone(tmp_path) as microphone,
        TmuxTerminal(
            *("chat", "--model", "demo"),
            environment={**environment(), **microphone.environment},
            columns=sizes[0][0],
            rows=sizes[0][1],
        ) as terminal,
    ):
        terminal.wait_for(r"(?m)^> ?$")
        terminal.type("C-r")
        terminal.wait_for("○ ▯")
        talk = threading.Thread(target=lambda: [microphone.play(RECORDINGS[0].path) for _ in sizes])
        talk.start()
        for size in sizes[1:]:
            terminal.wait_for(r"(?m)^> \d")
            terminal.resize(*size)
            terminal.wait_for(r"(?m)^● ▮")
        talk.join()
        if dies:
            microphone.unplug()
            terminal.wait_for(r"the microphone default is gone")
        else:
            terminal.type("Enter")
        screen = terminal.wait_for(r"(?s)(?m)^> \d(?!.*Esc).*microphone off")
    assert len(re.findall(r"(?m)^> ", screen)) == 1
    assert not re.search("[●○▮▯]|Esc cancel|writing it down", screen)
    assert not re.search("(?i)alsa|pulse|assert", screen)
