"""A microphone made of software: a private PulseAudio server whose only input hears what is played into it.

Not a test itself. PortAudio reaches it through ALSA, as it reaches a real one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("pulseaudio", "pactl", "paplay")
IS_INSTALLED = all(map(shutil.which, NEEDED))


@dataclass
class VirtualMicrophone:
    """A running server.

    Attributes:
        environment: what a program needs to find it.
    """

    environment: dict[str, str]
    _server: subprocess.Popen[bytes]

    def play(self, file: Path) -> None:
        """Speak a .wav or .flac into it, in real time."""
        subprocess.run(["paplay", "--device=room", str(file)], env={**os.environ, **self.environment}, check=True)

    def unplug(self) -> None:
        """Take it away."""
        self._server.send_signal(signal.SIGKILL)
        self._server.wait()


def prepare(folder: Path) -> dict[str, str]:
    """Write what leads a program to the server whose files are in `folder`; the environment that says so."""
    devices = folder / "asoundrc"
    devices.write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\npcm.pulse { type pulse }\n")
    alsa = folder / "alsa.conf"
    alsa.write_text(f"</usr/share/alsa/alsa.conf>\n<{devices}>\n")
    return {
        "XDG_RUNTIME_DIR": str(folder),
        "ALSA_CONFIG_PATH": str(alsa),
        "PULSE_SERVER": f"unix:{folder / 'native'}",
    }


@contextmanager
def virtual_microphone(folder: Path) -> Iterator[VirtualMicrophone]:
    """Start one, its files in `folder`."""
    environment = prepare(folder)
    socket = folder / "native"
    server = subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"),
            *("-L", f"module-native-protocol-unix socket={socket}"),
            *("-L", "module-null-sink sink_name=room rate=48000 channels=1"),
            *("-L", "module-remap-source source_name=mic master=room.monitor"),
        ],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        default = ["pactl", "set-default-source", "mic"]
        for _ in range(100):
            if subprocess.run(default, env={**os.environ, **environment}, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("PulseAudio did not start")
        yield VirtualMicrophone(environment, server)
    finally:
        server.kill()
        server.wait()
