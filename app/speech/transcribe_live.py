"""`gemma4-mlx transcribe mic`, `--simulate` and `-`: sound that comes by and by, written down as it comes.

One thread listens to Ctrl-C, moves sound into the model and shows what comes out; the sound arrives in another.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from gemma4_mlx.errors import InputError

from ..awake import kept_awake
from ..exit_codes import FAILED, one_line
from ..interrupts import Interrupts
from ..models.model_choice import choose, fetch_chosen
from ..terminal import console, note, say, shows_lines
from ..whole_file import check_free
from .live_sound import SAMPLE_RATE, FloatArray, LiveSound, OpenPipe, PlayedSound
from .transcript_formats import Format, TranscriptWriter

if TYPE_CHECKING:
    from gemma4_mlx.speech import Event, LiveTranscriber

    from .live_screen import LiveScreen

_WAIT = 0.1
_BLOCK_SECONDS = 0.1


@dataclass(frozen=True)
class LiveOptions:
    """How a live transcription listens and what it leaves behind.

    Attributes:
        language, translate_to: as for `LiveTranscriber`.
        partials: show sentences while they are being spoken.
        threshold, silence, max_utterance: as for `LiveTranscriber`.
        format: of what is written.
        output: where to; None: stdout.
        save_audio: a .wav of what was heard; None: none.
        overwrite: both may replace what is there.
        duration: seconds after which to stop; None: never.
        words: as for `LiveTranscriber`.
    """

    language: str | None
    translate_to: str | None
    partials: bool
    threshold: float
    silence: float
    max_utterance: float
    format: Format
    output: Path | None
    save_audio: Path | None
    overwrite: bool
    duration: float | None
    words: list[str] | None = None


@kept_awake()
def transcribe_microphone(device: str | None, options: LiveOptions, model_name: str | None) -> None:
    """Write down what is said into a microphone, until Ctrl-C, `options.duration`, or the microphone is gone.

    Raises:
        Gemma4Error: no such microphone, or the model cannot be loaded.
        ValueError, OSError: an option that cannot be used, a file that cannot be written.
        SystemExit: the microphone went away.
    """
    from ..microphone import Microphone, devices, find_device

    found = find_device(device, devices())
    # Open before the model is loaded: what is said in the meantime waits.
    _transcribe(lambda: Microphone(found), f"listening to {found.name}", "mic", options, model_name)


def simulate(file: str, speed: float, options: LiveOptions, model_name: str | None) -> None:
    """Write down a file as if it were spoken now, `speed` times as fast. Raises as `transcribe_microphone`."""
    from gemma4_mlx.processing.audio import stream_audio

    blocks = stream_audio(file, _BLOCK_SECONDS)
    path = Path(file).expanduser()
    recording = [path.stat()] if path.is_file() else []
    _transcribe(lambda: PlayedSound(blocks, speed), f"playing {path.name}", file, options, model_name, recording)


def transcribe_pipe(rate: float | None, options: LiveOptions, model_name: str | None) -> None:
    """Write down the sound on stdin: a WAV, or raw 16-bit mono at `rate`. Raises as `transcribe_microphone`."""
    from gemma4_mlx.processing.audio import stream_pipe

    if sys.stdin is None:  # closed by whoever started this
        raise InputError("standard input is closed: send the sound through a pipe, as in `… | gemma4-mlx transcribe -`")
    status = os.fstat(sys.stdin.fileno())
    # A file keeps nobody waiting, and may be one that can only be read by going to and fro in it.
    pipe = None if stat.S_ISREG(status.st_mode) else OpenPipe(sys.stdin.fileno())
    stream = sys.stdin.buffer if pipe is None else cast(BinaryIO, pipe)
    blocks = stream_pipe(stream, "standard input", rate, _BLOCK_SECONDS)
    title = "listening to standard input"
    _transcribe(lambda: PlayedSound(blocks, None, pipe), title, "-", options, model_name, [status])


def _transcribe(
    open_sound: Callable[[], LiveSound],
    title: str,
    name: str,
    options: LiveOptions,
    model_name: str | None,
    recording: Sequence[os.stat_result] = (),
) -> None:
    import gemma4_mlx as g4
    from gemma4_mlx.speech.prompts import speech_prompt

    # What is wrong with the options is worth knowing before gigabytes are loaded.
    speech_prompt(options.language, options.translate_to, options.words)
    for path in (options.output, options.save_audio):
        if path is not None:
            check_free(path, options.overwrite, recording)
            _check_writable(path)
    with ExitStack() as stack:
        # Nobody is recorded while they are asked which model, nor while it is fetched.
        folder = fetch_chosen(choose(model_name, hearing=True))
        screen: LiveScreen | None = None
        # The first one is a wish also while the model is loaded: what was said in the meantime is written down.
        interrupts = stack.enter_context(Interrupts(signal.SIGTERM, on_wish=lambda: _finishing(screen)))
        interrupts()
        sound = open_sound()
        stack.enter_context(sound)
        model, processor = g4.load(folder)
        live = stack.enter_context(
            g4.LiveTranscriber(
                model,
                processor,
                options.language,
                options.translate_to,
                partial_every=1.0 if options.partials else None,
                threshold=options.threshold,
                silence=options.silence,
                max_utterance=options.max_utterance,
                backlog=sound.backlog,
                words=options.words,
            )
        )
        outputs = _Outputs(stack, name, options)
        if outputs.leave_the_screen_free:
            screen = stack.enter_context(_screen(title))
        if screen is None:
            note(f"{title} (Ctrl-C to finish)")
        broken = _listen(sound, live, outputs, screen, interrupts, options.duration)
        if not outputs.said and screen is None:
            note("note: no speech was heard")
    if broken is not None:
        note(f"error: {one_line(broken)}")
        raise SystemExit(FAILED)


def _listen(
    sound: LiveSound,
    live: LiveTranscriber,
    outputs: _Outputs,
    screen: LiveScreen | None,
    interrupts: Interrupts,
    duration: float | None,
) -> Exception | None:
    """Until the sound ends, or somebody ends it. Returns what it broke off with, once all before that is written."""
    warned: set[str] = set()

    def take(samples: FloatArray) -> None:
        if duration is not None:
            samples = samples[: max(0, round(duration * SAMPLE_RATE) - round(live.seconds * SAMPLE_RATE))]
        outputs.sound(samples)
        show(live.feed(samples))
        if screen is not None:
            screen.sound(samples, live.seconds, live.speaking, sound.warnings())
            return
        for warning in sound.warnings():
            # Numbers in it may grow; it is said once.
            if (kind := "".join(c for c in warning if not c.isdigit())) not in warned:
                warned.add(kind)
                note(f"note: {warning}")

    def show(events: list[Event]) -> None:
        for event in events:
            outputs.event(event)
            if screen is not None:
                screen.event(event)

    def is_over() -> bool:
        if interrupts.count and screen is not None:
            screen.finishing()
        return bool(interrupts.count) or (duration is not None and live.seconds >= duration)

    try:
        broken = hear(sound, take, is_over)
        show(live.finish())
    finally:
        outputs.close(live.seconds)
    return broken


def hear(sound: LiveSound, take: Callable[[FloatArray], None], is_over: Callable[[], bool]) -> Exception | None:
    """Give sound to `take` as it comes, until it ends or `is_over`; what had come by then is taken, too.

    Returns:
        What it broke off with, if it did.
    """
    while not is_over():
        try:
            samples = sound.read(_WAIT)
        except (InputError, OSError) as error:
            return error
        if samples is None:
            return None
        take(samples)
    take(sound.stop())
    return None


def _check_writable(path: Path) -> None:
    """Raise the OSError that writing to `path` would; what is there stays as it is."""
    if path.exists() and not path.is_file():
        return  # /dev/stdout, a named pipe: opening one to see whether it opens would already be using it
    is_new = not path.exists()
    path.open("ab").close()
    if is_new:
        path.unlink()


class _Outputs:
    """Everything that is written: a transcript, to stdout or a file, and the sound.

    Attributes:
        leave_the_screen_free: stdout is a terminal and nothing is written there, so that it can be drawn on.
        said: something was.
    """

    def __init__(self, stack: ExitStack, name: str, options: LiveOptions) -> None:
        """Open them, in `stack`; an OSError names the one that cannot be written."""
        self.leave_the_screen_free = shows_lines(sys.stdout) and (
            options.output is not None or options.format == "text"
        )
        self.said = False
        stream: TextIO | None = None if self.leave_the_screen_free else sys.stdout
        if options.output is not None:
            stream = stack.enter_context(options.output.open("w", encoding="utf-8", errors="replace"))
        self._transcript: TranscriptWriter | None = None
        if stream is not None:
            translates = options.translate_to is not None
            self._transcript = TranscriptWriter(
                stream, options.output is not None, options.format, name, options.language, translates
            )
        self._wave: wave.Wave_write | None = None
        if options.save_audio is not None:
            self._wave = wave.open(str(options.save_audio), "wb")  # noqa: SIM115  the stack closes it
            stack.callback(self._wave.close)
            self._wave.setnchannels(1)
            self._wave.setsampwidth(2)
            self._wave.setframerate(SAMPLE_RATE)

    def event(self, event: Event) -> None:
        self.said = self.said or (event.kind == "final" and bool(event.text))
        if self._transcript is not None:
            self._transcript.event(event)

    def sound(self, samples: FloatArray) -> None:
        if self._wave is not None and len(samples):
            # The header is put right every time: a crash leaves a file that plays.
            self._wave.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())

    def close(self, duration: float) -> None:
        if self._transcript is not None:
            self._transcript.close(duration)


def _finishing(screen: LiveScreen | None) -> None:
    """Say what Ctrl-C leads to; a screen says so itself."""
    if screen is not None:
        return
    # Not through `sys.stderr`: the signal may have come in the middle of a write to it.
    os.write(sys.stderr.fileno(), b"finishing (Ctrl-C again leaves at once)\n")


@contextmanager
def _screen(title: str) -> Iterator[LiveScreen]:
    from .live_screen import LiveScreen

    with LiveScreen(console(sys.stdout), title) as screen:
        yield screen


def list_devices() -> None:
    """Print the microphones, one a line; the default one is marked.

    Raises:
        MicrophoneError: PortAudio is not installed, or there is no microphone.
    """
    from ..microphone import devices, find_device

    found = devices()
    find_device(None, found)
    for device in found:
        marked = "  (default)" if device.is_default else ""
        rate = f"{device.rate / 1000:g} kHz"
        say(f"{device.number:>3}  {device.name}  {device.channels} in, {rate}{marked}")
