"""`/listen` in the chat: what is said into the microphone, shown in the input line as it comes, then text or sound.

Microphone and transcription are those of `transcribe mic`. The model works in its own thread, so that this one can draw
and read keys. What becomes of what was heard is the chat's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Group
from rich.text import Text

from gemma4_mlx.errors import Gemma4Error, InputError
from gemma4_mlx.shown import clock

from ..answer.lines import rendered
from ..exit_codes import one_line
from ..live_tail import LiveTail
from ..printable import printable
from ..terminal import console, edits_lines, notes_held, terminal_stream
from .live_screen import METER_CELLS, Meter
from .live_sound import SAMPLE_RATE, LiveSound
from .transcribe_live import hear

if TYPE_CHECKING:
    from prompt_toolkit.application import Application
    from prompt_toolkit.key_binding import KeyBindings

    from gemma4_mlx.model import Gemma4
    from gemma4_mlx.processing import Processor
    from gemma4_mlx.speech import Event

FloatArray = npt.NDArray[np.float32]
Submit = Callable[[Callable[[], None]], "Future[None]"]
"""Runs a function in the model's thread, when its turn comes."""
LoadedModel = Callable[[], "tuple[Gemma4, Processor]"]
Dropped = Callable[[str], str]
"""Takes a text that was dropped or pasted and says in a line what became of it, or raises Gemma4Error or OSError."""

# People stop to think in the middle of what they say to a chat; a final's end is 0.4 s after its last word.
_SILENCE_THAT_ENDS = 1.6
_KEYS = "Enter done · Tab attach · Esc cancel"
_WIDE = 60  # columns: room for the keys beside the meter
_REDRAW_SECONDS = 0.1
# An escape key and the beginning of an arrow key are the same byte.
_ESCAPE_SECONDS = 0.05


@dataclass(frozen=True)
class Heard:
    """What somebody said.

    Attributes:
        text: on one line; empty if nothing was said.
        translation: on one line; None if none was asked for.
        samples: the sound from just before the first word to just after the last, float32 `[n]` at 16 kHz.
        wants_sound: the sound itself is to be sent, not the text.
        note: something to be told, such as that the microphone was pulled out; None: nothing.
    """

    text: str
    translation: str | None
    samples: FloatArray
    wants_sound: bool
    note: str | None


def listen(
    submit: Submit,
    model: LoadedModel,
    device: str | None = None,
    language: str | None = None,
    translate_to: str | None = None,
    dropped: Dropped | None = None,
) -> Heard | None:
    """Listen to the microphone until a key or two seconds of silence after speech; None when it was cancelled.

    Sound is kept from the first moment on, also while the model is still busy or loading.

    Args:
        submit: runs a function in the thread that may use the model.
        model: gives model and processor; called in that thread, and may take its time.
        device: a microphone's number or part of its name; None: the default one.
        language: what is spoken; None leaves it to the model.
        translate_to: translate what is said as it comes.
        dropped: takes what is dropped on the window or pasted meanwhile; None: that is ignored.

    Raises:
        InputError: no such microphone, no terminal to draw in, or a model without ears.
        ValueError: a language that is not one.
    """
    from gemma4_mlx.speech.prompts import speech_prompt

    from ..microphone import Microphone, devices, find_device

    speech_prompt(language, translate_to)
    if not edits_lines():
        raise InputError("listening needs a terminal that can redraw a line: use `gemma4-mlx transcribe mic` here")
    with Microphone(find_device(device, devices())) as microphone:
        return listen_to(microphone, submit, model, language, translate_to, dropped)


def listen_to(
    sound: LiveSound,
    submit: Submit,
    model: LoadedModel,
    language: str | None = None,
    translate_to: str | None = None,
    dropped: Dropped | None = None,
) -> Heard | None:
    """`listen`, to any live sound that has been opened."""
    listening = _Listening(sound, model, language, translate_to)
    _Region(listening, dropped).run(submit)
    if listening.cancelled:
        return None
    if listening.broken is not None and not listening.finals:
        raise listening.broken
    return listening.heard()


def translation_of(
    heard: Heard,
    model: Gemma4,
    processor: Processor,
    language: str | None,
    translate_to: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """What was heard once more, translated; in the model's thread. Raises as `gemma4_mlx.transcribe`."""
    import gemma4_mlx as g4

    again = g4.transcribe(model, processor, heard.samples, language, translate_to, should_stop=should_stop)
    return again.translation or ""


class _Listening:
    """What happens in the model's thread, and what the other one may know of it.

    Attributes:
        over: set by either thread: hear no more, and finish.
        cancelled: nobody wants what was heard.
        wants_sound: see `Heard`.
        ready: the model is there and listens.
        partial: what is being said.
        finals: what has been said.
        broken: what the sound broke off with.
    """

    def __init__(self, sound: LiveSound, model: LoadedModel, language: str | None, translate_to: str | None) -> None:
        self.sound = sound
        self._model = model
        self._language = language
        self._translate_to = translate_to
        self._kept: list[FloatArray] = []
        self.over = Flag()
        self.cancelled = self.wants_sound = self.ready = self.speaking = False
        self.partial: Event | None = None
        self.finals: list[Event] = []
        self.broken: Exception | None = None
        self.meter = Meter()
        self.seconds = 0.0
        self._lock = Lock()

    def run(self) -> None:
        """Hear and write down, to the end."""
        if self.cancelled:  # while it waited for its turn
            return
        model, processor = self._model()
        with self._lock:
            self.ready = not self.cancelled
        if self.ready:
            self._hear(model, processor)

    def cancel(self) -> bool:
        """Forget it. Returns whether the model is at work and has to come to its end."""
        with self._lock:
            self.cancelled = True
        self.over.set()
        return self.ready

    def _hear(self, model: Gemma4, processor: Processor) -> None:
        import gemma4_mlx as g4

        listener = g4.LiveTranscriber(
            *(model, processor, self._language, self._translate_to),
            backlog=self._backlog,
            should_stop=lambda: self.cancelled,
        )
        with listener as live:

            def take(samples: FloatArray) -> None:
                self._kept.append(samples)
                self._see(live.feed(samples))
                self.meter.hear(samples)
                self.seconds, self.speaking = live.seconds, live.speaking

            def is_over() -> bool:
                said = self.finals and not live.speaking and live.seconds - self.finals[-1].end >= _SILENCE_THAT_ENDS
                return self.over.is_set() or bool(said)

            self.broken = hear(self.sound, take, is_over)
            self.over.set()
            self._see(live.finish())

    def heard(self) -> Heard:
        """Everything that was said."""
        samples = np.concatenate([np.zeros(0, np.float32), *self._kept])
        if self.finals:
            first, last = self.finals[0].start, self.finals[-1].end
            samples = samples[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)]
        translation = None if self._translate_to is None else _joined(event.translation for event in self.finals)
        note = None if self.broken is None else one_line(self.broken)
        return Heard(_joined(event.text for event in self.finals), translation, samples, self.wants_sound, note)

    def _see(self, events: list[Event]) -> None:
        for event in events:
            if event.kind == "partial":
                self.partial = event
                continue
            self.partial = None
            if event.text or event.translation:
                self.finals = [*self.finals, event]  # another thread may be reading the old one

    def _backlog(self) -> float:
        # A partial nobody will see gives way at once.
        return float("inf") if self.over.is_set() else self.sound.backlog()


class _Region:
    """Where the input line was: the words so far, and below them how it goes. Gone when it is over."""

    def __init__(self, listening: _Listening, dropped: Dropped | None) -> None:
        self._listening = listening
        self._dropped = dropped
        self._told: list[tuple[str, str]] = []  # of what was dropped: style and line
        self._console = console(terminal_stream())
        self._tail = LiveTail(terminal_stream())

    def run(self, submit: Submit) -> None:
        """Draw until it is over; whatever the model raised is raised here."""
        application = self._application()

        def begin() -> None:
            ended = asyncio.wrap_future(submit(self._listening.run))

            async def end() -> None:
                try:
                    await ended
                except Exception as error:  # handed on to whoever called `run`
                    failure: Exception | None = error
                else:
                    failure = None
                if not application.is_done:
                    application.exit(exception=failure) if failure else application.exit()

            application.create_background_task(end())

        with notes_held():
            try:
                application.run(pre_run=begin)
            finally:
                self._tail.replace([], [])

    def _application(self) -> Application[None]:
        from prompt_toolkit.application import Application
        from prompt_toolkit.layout import Layout, Window
        from prompt_toolkit.output import DummyOutput

        # The application is for the keys: what it draws itself it cannot take back when the window becomes narrower.
        # What is pasted comes in one piece, as the input line has told the terminal.
        application: Application[None] = Application(
            Layout(Window()),
            key_bindings=self._keys(),
            refresh_interval=_REDRAW_SECONDS,
            before_render=lambda _: self._draw(),
            output=DummyOutput(),
        )
        application.ttimeoutlen = _ESCAPE_SECONDS
        return application

    def _draw(self) -> None:
        columns = self._tail.size.columns
        self._tail.replace([], rendered(self._console, Group(self._words(), *self._state(columns)), columns))

    def _keys(self) -> KeyBindings:
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.keys import Keys

        bindings = KeyBindings()

        @bindings.add("enter")
        @bindings.add("c-r")
        @bindings.add("c-d")
        def done(_event: KeyPressEvent) -> None:
            self._listening.over.set()

        @bindings.add("tab")
        def attach(_event: KeyPressEvent) -> None:
            self._listening.wants_sound = True
            self._listening.over.set()

        @bindings.add(Keys.BracketedPaste)
        def drop(event: KeyPressEvent) -> None:
            if self._dropped is not None:
                try:
                    self._told.append(("cyan", self._dropped(event.data)))
                except (Gemma4Error, OSError) as error:
                    self._told.append(("yellow", one_line(error)))

        @bindings.add("escape", eager=True)
        @bindings.add("c-c")
        @bindings.add("<sigint>")
        def cancel(event: KeyPressEvent) -> None:
            if not self._listening.cancelled and not self._listening.cancel():
                event.app.exit()  # the model will find out when it comes to it

        return bindings

    def _words(self) -> Text:
        said = " ".join(printable(event.text) for event in self._listening.finals)
        words = Text(f"> {said}")
        if (partial := self._listening.partial) is not None:
            words.append(f"{' ' if said else ''}{printable(partial.certain)}")
            words.append(printable(partial.text[len(partial.certain) :]), "dim")
        return words

    def _state(self, columns: int) -> list[Text]:
        listening = self._listening
        lines: list[Text] = []
        translations = [event.translation for event in (*listening.finals, listening.partial) if event is not None]
        if translation := _joined(translations):
            lines.append(Text(printable(translation), "italic"))
        told = [*self._told, *(("yellow", warning) for warning in listening.sound.warnings()[:1])]
        lines += [Text(printable(line), style) for style, line in told]
        if listening.over.is_set():
            return [*lines, Text("… writing it down · Esc cancel")]
        if not listening.ready:
            return [*lines, Text("○ speak: loading the model · Esc cancel")]
        lit = listening.meter.lit
        lines.append(
            Text.assemble(
                ("● ", "bold green") if listening.speaking else "○ ",
                ("▮" * lit, "red" if listening.meter.is_too_loud else "green"),
                "▯" * (METER_CELLS - lit),
                f" {clock(listening.seconds)}{'  ' if columns >= _WIDE else chr(10)}{_KEYS}",
            )
        )
        return lines


def _joined(texts: Any) -> str:
    return " ".join(text for text in texts if text)
