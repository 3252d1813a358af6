"""The cache of tokenizers: found again by the exact file, never another's, and nothing lost where there is none."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import gemma_tokenizer
from gemma4_mlx.processing.tokenizer import Tokenizer

TEXT = "<|turn>the table == 日本語\n\n\n and  so on<turn|>"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder without anything in it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint's folder with a tokenizer that is worth keeping."""
    return gemma_tokenizer.write(tmp_path / "model" / "tokenizer.json", gemma_tokenizer.build(), large=True).parent


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder with another tokenizer of the same size, whose ids differ."""
    tokenizer = gemma_tokenizer.build(gemma_tokenizer.PIECES[::-1])
    return gemma_tokenizer.write(tmp_path / "other" / "tokenizer.json", tokenizer, large=True).parent


def kept(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def ids(folder: Path) -> list[int]:
    return Tokenizer.from_folder(folder).encode(TEXT)


def expected(folder: Path) -> list[int]:
    from tokenizers import Tokenizer as Library

    return Library.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids


def test_a_tokenizer_is_kept_under_its_content_and_read_from_there(home: Path, folder: Path) -> None:
    assert ids(folder) == expected(folder)
    (file,) = kept(home)
    content = (folder / "tokenizer.json").read_bytes()
    assert file.name == f"{hashlib.sha256(content).hexdigest()}.bpe"
    assert "gemma4-mlx" in str(file)
    before = file.stat().st_mtime_ns, file.stat().st_ino
    assert ids(folder) == expected(folder)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before  # read, not written again


def test_another_tokenizer_of_the_same_name_size_and_date_is_never_taken(home: Path, folder: Path, other: Path) -> None:
    before = ids(folder)
    mine, theirs = folder / "tokenizer.json", other / "tokenizer.json"
    dates = mine.stat()
    content = theirs.read_bytes()
    size = max(len(content), dates.st_size)
    mine.write_bytes(content.ljust(size))
    os.utime(mine, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert before != expected(other)
    assert ids(folder) == expected(other)
    assert len(kept(home)) == 2


def test_a_small_tokenizer_is_not_kept(home: Path, tmp_path: Path) -> None:
    small = gemma_tokenizer.write(tmp_path / "small" / "tokenizer.json", gemma_tokenizer.build()).parent
    assert ids(small) == expected(small)
    assert kept(home) == []


def damages(file: Path, others: Path) -> dict[str, bytes]:
    whole = file.read_bytes()
    middle = len(whole) // 2
    return {
        "empty": b"",
        "cut within its head": whole[:40],
        "cut": whole[:-8],
        "longer": whole + bytes(8),
        "foreign": b"PK\x03\x04" + bytes(len(whole)),
        "another format": whole.replace(b"bpe 1", b"bpe 0", 1),
        "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "other counts": whole[:80] + bytes([whole[80] ^ 255]) + whole[81:],
        "another's": others.read_bytes(),
    }


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "cut within its head",
        "cut",
        "longer",
        "foreign",
        "another format",
        "one bit",
        "other counts",
        "another's",
    ],
)
def test_a_damaged_file_is_not_believed_and_is_replaced(home: Path, folder: Path, other: Path, damage: str) -> None:
    ids(folder)
    (file,) = kept(home)
    ids(other)
    (others,) = set(kept(home)) - {file}
    whole = file.read_bytes()
    file.write_bytes(damages(file, others)[damage])
    assert ids(folder) == expected(folder)
    assert file.read_bytes() == whole


def test_it_may_be_deleted_while_it_is_used(home: Path, folder: Path) -> None:
    ids(folder)
    tokenizer = Tokenizer.from_folder(folder)
    (file,) = kept(home)
    file.write_bytes(b"")
    file.unlink()
    assert tokenizer.encode(TEXT) == expected(folder)
    assert ids(folder) == expected(folder)
    assert kept(home) == [file]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(home: Path, folder: Path) -> None:
    # A file where its folder would be: no user's rights get past that.
    for name in (".cache", "Library"):
        (home / name).write_text("")
    assert ids(folder) == expected(folder)
    assert {path.name for path in kept(home)} == {".cache", "Library"}


def test_a_full_disk_leaves_nothing_behind(home: Path, folder: Path) -> None:
    script = f"""
        import resource, signal
        from pathlib import Path
        from gemma4_mlx.processing.tokenizer import Tokenizer
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow beyond
        print(Tokenizer.from_folder(Path({str(folder)!r})).encode({TEXT!r}))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert run.stdout.strip() == str(expected(folder))
    assert kept(home) == []


def start_and_read(folder: Path, at: float) -> list[int]:
    time.sleep(max(0.0, at - time.time()))
    return ids(folder)


def test_processes_that_start_together_all_read_right(home: Path, folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.starmap(start_and_read, [(folder, time.time() + 3)] * 8)
    assert found == [expected(folder)] * 8
    assert [path.suffix for path in kept(home)] == [".bpe"]


def test_a_damaged_tokenizer_is_named_and_not_kept(home: Path, folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b'"merges"', b'"verges"'))
    with pytest.raises(Exception, match=r"tokenizer\.json is damaged"):
        Tokenizer.from_folder(folder)
    assert kept(home) == []
