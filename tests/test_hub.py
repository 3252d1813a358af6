"""Names to folders: the Hub's cache, its refusals, and downloads that break."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import textwrap
import time
from collections import namedtuple
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download, hf_hub_download, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import assume, given
from hypothesis import strategies as st

from gemma4_mlx.checkpoint.hub import SHORT_NAMES, is_hub_id, newest_commit, resolve, update
from gemma4_mlx.errors import HubError
from hub_server import HubServer, Repository, running_demo_hub, running_hub

REPO = "someone/gemma-4-tiny-it"
NEEDED = {
    "config.json": b'{"model_type": "gemma4"}',
    "generation_config.json": b"{ }",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "model-00001-of-00002.safetensors": b"first" * 40_000,
    "model-00002-of-00002.safetensors": b"second" * 40_000,
    "tokenizer.json": b'{"t": 1}',
    "tokenizer_config.json": b'{"c": 1}',
    "chat_template.jinja": b"{{ messages }}",
    "processor_config.json": b'{"p": 1}',
}
NOT_NEEDED = {
    "README.md": b"# hello",
    ".gitattributes": b"* -text",
    "pytorch_model.bin": b"pickle",
    "weights.pth": b"pickled",
    "gemma.gguf": b"GGUF",
    "tokenizer.model": b"sentencepiece",
    "consolidated.safetensors": b"all of it again",
    "original/params.json": b"{  }",
    "original/model.safetensors": b"once more",
    "onnx/model.onnx": b"onnx",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server with one repository; this process's huggingface_hub talks to it and caches under tmp_path."""
    with running_hub() as server:
        server.repositories[REPO] = Repository(_write(tmp_path / "served", NEEDED | NOT_NEEDED))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _refused(name: str, *, revision: str | None = None, match: str) -> None:
    with pytest.raises(HubError, match=match) as caught:
        resolve(name, revision)
    assert "\n" not in str(caught.value)


def _snapshots(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").glob("models--*/snapshots/*/config.json"))


def test_a_local_folder_is_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _write(tmp_path / "my model", NEEDED)
    assert resolve(str(tmp_path / "my model")) == tmp_path / "my model"
    assert resolve(tmp_path / "my model") == tmp_path / "my model"
    assert resolve("~/my model") == tmp_path / "my model"


def test_a_folder_named_like_a_hub_id_comes_before_the_hub(tmp_path, monkeypatch):
    _write(tmp_path / "google" / "gemma-4-E2B-it", NEEDED)
    monkeypatch.chdir(tmp_path)
    assert resolve("google/gemma-4-E2B-it") == Path("google/gemma-4-E2B-it")


def test_a_revision_of_a_local_folder_is_a_bad_argument(tmp_path):
    with pytest.raises(ValueError, match="no revision 'main'"):
        resolve(tmp_path, "main")


def test_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    _refused(str(tmp_path / "model.safetensors"), match="is a file")


@pytest.mark.parametrize(
    "name", ["", "e3b", "/no/such/folder", "~/nowhere", "a/b/c", "gemma 4", "a/b--c", "x/..", "a/", "../x"]
)
def test_what_is_neither_folder_nor_hub_id_is_told_what_is_accepted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _refused(name, match="e2b, e4b, 12b, 26b, 31b, or a Hub id")


@given(st.text(max_size=30) | st.sampled_from(["~0", "\0", "x" * 5000]))
def test_no_text_without_one_slash_ever_reaches_the_hub(text):
    assume(text.count("/") != 1 and text.lower() not in SHORT_NAMES and not os.path.exists(os.path.expanduser(text)))
    _refused(text, match="is not a model")


@given(st.text("aZ0_-./", max_size=12) | st.sampled_from(["a/b.git", "a" * 96 + "/b", "a/" + "b" * 97]))
def test_a_hub_id_is_what_huggingface_hub_takes_for_one(text):
    try:
        validate_repo_id(text)
        valid = text.count("/") == 1
    except HFValidationError:
        valid = False
    assert is_hub_id(text) == valid


def test_letters_outside_ascii_are_in_no_hub_id():  # older versions of huggingface_hub let them through
    assert not is_hub_id("a/é")


def test_only_the_files_needed_are_fetched_and_each_once(hub):
    folder = resolve(REPO)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == NEEDED
    assert hub.downloads == dict.fromkeys(NEEDED, 1)


@pytest.mark.parametrize("revision", [None, "main", "the commit"])
def test_what_is_here_is_used_without_a_request(revision, hub):
    folder = resolve(REPO)
    hub.requests.clear()
    assert resolve(REPO, folder.name if revision == "the commit" else revision) == folder
    assert not hub.requests


@pytest.mark.parametrize("branch", ["v1", "refs/pr/3"])
def test_a_branch_that_was_fetched_is_used_without_a_request(branch, hub):
    hub.repositories[REPO].branch = branch
    folder = resolve(REPO, branch)
    hub.requests.clear()
    assert resolve(REPO, branch) == folder
    assert not hub.requests


@pytest.mark.parametrize("revision", ["../main", "/etc/hostname", "..", "a/../main", "x" * 5000, "no\0name"])
def test_a_revision_never_leads_out_of_the_cache(revision, hub):
    resolve(REPO)
    with pytest.raises(HubError):
        resolve(REPO, revision)


def test_an_update_asks_once_and_fetches_nothing_when_there_is_nothing_newer(hub):
    folder = resolve(REPO)
    hub.downloads.clear()
    hub.requests.clear()
    assert update(REPO) == folder
    assert not hub.downloads
    assert len(hub.requests) == 1
    assert newest_commit(REPO) == folder.name


@pytest.mark.parametrize("short", SHORT_NAMES)
def test_a_short_name_is_the_hub_id_in_the_table(short, hub):
    hub.repositories[SHORT_NAMES[short]] = hub.repositories[REPO]
    folder = resolve(short)
    assert SHORT_NAMES[short].replace("/", "--") in str(folder)
    assert resolve(short.upper()) == folder


def test_a_new_commit_fetches_only_what_changed(hub):
    old = resolve(REPO)
    hub.downloads.clear()
    (hub.repositories[REPO].folder / "chat_template.jinja").write_bytes(b"{{ new }}")
    assert resolve(REPO) == old
    new = update(REPO)
    assert hub.downloads == {"chat_template.jinja": 1}
    assert resolve(REPO) == new
    assert (new / "chat_template.jinja").read_bytes() == b"{{ new }}"
    assert (old / "chat_template.jinja").read_bytes() == NEEDED["chat_template.jinja"]


def test_a_commit_or_a_branch_can_be_asked_for(hub):
    commit = hub.repositories[REPO].commit
    assert resolve(REPO, commit) == resolve(REPO, "main") == resolve(REPO)
    _refused(REPO, revision="no-such-branch", match="no revision 'no-such-branch'")


def test_progress_counts_every_byte_once_and_ends_at_the_total(hub):
    seen: list[tuple[int, int]] = []
    resolve(REPO, on_progress=lambda done, total: seen.append((done, total)))
    size = sum(len(content) for content in NEEDED.values())
    assert {total for _, total in seen} == {size}
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == size


def test_nothing_is_printed(hub, capfd):
    hub.repositories[REPO].breaks["tokenizer.json"] = 3
    with pytest.raises(HubError):
        resolve(REPO)
    hub.repositories[REPO].breaks.clear()
    resolve(REPO)
    assert capfd.readouterr() == ("", "")


def test_offline_after_a_download_gives_the_same_folder_without_a_request(hub, monkeypatch):
    folder = resolve(REPO)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(REPO) == folder
    assert not hub.requests


def test_offline_without_a_download_says_so(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refused(REPO, match="HF_HUB_OFFLINE")
    assert not hub.requests


@pytest.mark.parametrize("missing", ["config.json", "model-00002-of-00002.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("listing", [True, False])
def test_offline_a_part_of_a_model_is_not_taken_for_the_whole(missing, listing, hub, monkeypatch, tmp_path):
    (resolve(REPO) / missing).unlink()
    if not listing:  # as older versions of huggingface_hub, and programs that fetch single files, leave the cache
        for path in (tmp_path / "cache").glob("models--*/trees/*.json"):
            path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refused(REPO, match=f"only in part in .*missing: {missing}.*HF_HUB_OFFLINE")


def test_a_shard_that_no_index_names_is_missed_by_its_number(hub, monkeypatch, tmp_path):
    folder = resolve(REPO)
    for name in ("model.safetensors.index.json", "model-00002-of-00002.safetensors"):
        (folder / name).unlink()
    for path in (tmp_path / "cache").glob("models--*/trees/*.json"):
        path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refused(REPO, match="HF_HUB_OFFLINE")


@pytest.mark.parametrize("missing", NEEDED)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_part_of_a_model_is_completed_and_then_nobody_is_asked(missing, dangling, hub):
    """As an interrupted download leaves it, another program that wanted less, or one that emptied the blobs."""
    path = resolve(REPO) / missing
    if dangling:
        path.resolve().unlink()
    path.unlink(missing_ok=not dangling)
    if dangling:
        path.symlink_to("../../blobs/gone")
    hub.downloads.clear()
    assert (resolve(REPO) / missing).read_bytes() == NEEDED[missing]
    assert set(hub.downloads) <= {missing}  # or it was in the cache's blobs still
    hub.requests.clear()
    resolve(REPO)
    assert not hub.requests


@pytest.mark.parametrize("missing", ["generation_config.json", "processor_config.json", "tokenizer_config.json"])
def test_offline_a_model_is_used_without_what_has_a_default(missing, hub, monkeypatch):
    folder = resolve(REPO)
    (folder / missing).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(REPO) == folder


def _fetched_file_by_file(names) -> Path:
    """As transformers does it, which leaves no list of what the repository has."""
    (folder,) = {Path(hf_hub_download(REPO, name)).parent for name in names}
    return folder


@pytest.mark.parametrize("left_out", [(), ("generation_config.json", "processor_config.json", "tokenizer_config.json")])
def test_what_another_program_fetched_file_by_file_is_used_without_a_request(left_out, hub):
    folder = _fetched_file_by_file(NEEDED.keys() - left_out)
    hub.requests.clear()
    assert resolve(REPO) == folder
    assert not hub.requests


def test_what_another_program_fetched_without_a_chat_template_is_completed(hub):
    folder = _fetched_file_by_file(NEEDED.keys() - {"chat_template.jinja"})
    assert resolve(REPO) == folder
    assert (folder / "chat_template.jinja").is_file()


def test_whether_a_model_has_a_chat_template_is_asked_once(hub):
    (hub.repositories[REPO].folder / "chat_template.jinja").unlink()
    folder = _fetched_file_by_file(NEEDED.keys() - {"chat_template.jinja"})
    assert resolve(REPO) == folder
    hub.requests.clear()
    assert resolve(REPO) == folder
    assert not hub.requests


@pytest.mark.parametrize("patterns", [["*.json", "model*.safetensors", "*.jinja", "*.txt", "*.model", "*.py"], None])
def test_what_mlx_lm_and_mlx_vlm_fetched_is_used_without_a_request(patterns, hub):
    folder = Path(snapshot_download(REPO, allow_patterns=patterns))
    hub.requests.clear()
    assert resolve(REPO) == folder
    assert not hub.requests


def test_a_part_of_a_newer_commit_takes_no_whole_model_away_and_is_completed_when_asked(hub):
    """mlx-lm, stopped at once: huggingface_hub had moved the branch already."""
    whole = resolve(REPO)
    (hub.repositories[REPO].folder / "model-00002-of-00002.safetensors").write_bytes(b"newer" * 40_000)
    snapshot_download(REPO, allow_patterns=["config.json"])
    hub.requests.clear()
    assert resolve(REPO) == whole
    assert not hub.requests
    assert (update(REPO) / "model-00002-of-00002.safetensors").read_bytes() == b"newer" * 40_000
    assert (resolve(REPO) / "model-00002-of-00002.safetensors").read_bytes() == b"newer" * 40_000


def test_macs_own_files_beside_a_model_in_the_cache_are_no_part_of_it(hub):
    folder = resolve(REPO)
    for name in NEEDED:
        (folder / f"._{name}").write_bytes(b"\0\5\x16\7 attributes of a file")
    hub.requests.clear()
    assert resolve(REPO) == folder
    assert not hub.requests


def test_an_unreachable_hub_is_no_hindrance_to_a_model_already_here(hub, monkeypatch):
    folder = resolve(REPO)
    (folder / "generation_config.json").unlink()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert resolve(REPO) == folder
    _refused("someone/else", match="cannot reach http://127.0.0.1:9")
    with pytest.raises(HubError, match="cannot reach"):
        update(REPO)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_out_of_order_is_no_hindrance_to_a_model_already_here(status, hub):
    folder = resolve(REPO)
    (folder / "generation_config.json").unlink()
    hub.status = status
    assert resolve(REPO) == folder
    _refused("someone/else", match=f"answered {status}.*try again later")


def test_a_branch_that_moves_during_a_download_is_not_fetched_twice(hub, monkeypatch):
    repository = hub.repositories[REPO]
    commit = repository.commit
    monkeypatch.setattr(Repository, "commit", property(lambda self: commit))
    real = file_download.http_get

    def moving(url, temp_file, **options):
        real(url, temp_file, **options)
        if "config.json" in url:
            hub.requests.clear()

    monkeypatch.setattr(file_download, "http_get", moving)
    assert resolve(REPO).name == commit
    assert not [request for request in hub.requests if request.endswith("/main")]


def test_a_log_in_page_in_place_of_the_hub_is_named(hub):
    hub.body = b"<html>Welcome to the hotel</html>"
    _refused(REPO, match="does not answer as a Hub does")


def test_an_unknown_model_is_named(hub):
    _refused("someone/nothing", match="no model someone/nothing")


def test_a_gated_model_says_where_to_accept_its_licence(hub, tmp_path):
    hub.repositories[REPO].gated = True
    _refused(REPO, match=f"{hub.url}/{REPO}, then run `hf auth login`")
    assert not _snapshots(tmp_path)


@pytest.mark.parametrize("status", [403, 418])
def test_a_refusal_without_a_code_names_its_status(status, hub):
    hub.status = status
    _refused(REPO, match=str(status))


@pytest.mark.parametrize("gone", [("config.json",), tuple(name for name in NEEDED if name.endswith(".safetensors"))])
def test_a_repository_without_a_checkpoint_is_refused_before_anything_is_fetched(gone, hub):
    for name in (*gone, "consolidated.safetensors", "pytorch_model.bin", "weights.pth", "gemma.gguf"):
        (hub.repositories[REPO].folder / name).unlink()
    shutil.rmtree(hub.repositories[REPO].folder / "onnx")
    _refused(REPO, match=r"no config\.json with \.safetensors")
    assert not hub.downloads


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["gemma-4-31B-it-Q4_K_M.gguf", "README.md"], "holds GGUF.*take 31b or google/gemma-4-31B-it"),
        (["config.json", "pytorch_model.bin"], "holds PyTorch's pickled weights"),
        (["config.json", "adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter"),
        (["gemma-4-E2B-it.litertlm"], "holds LiteRT"),
        (["onnx/model.onnx", "onnx/model.onnx_data"], "holds ONNX"),
    ],
)
def test_a_repository_of_another_format_is_refused_before_anything_is_fetched(files, told, hub, tmp_path):
    hub.repositories[REPO] = Repository(_write(tmp_path / "other", dict.fromkeys(files, b'{"model_type": "gemma4"}')))
    _refused(REPO, match=f"{REPO} {told}")
    assert not hub.downloads


def test_a_model_of_another_family_is_refused_before_anything_is_fetched(hub):
    (hub.repositories[REPO].folder / "config.json").write_bytes(b'{"model_type": "llama"}')
    _refused(REPO, match="not a Gemma 4 .*'llama'")
    assert not hub.downloads


def test_too_small_a_disk_is_refused_before_anything_is_fetched(hub, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("gemma4_mlx.checkpoint.hub.shutil.disk_usage", lambda path: usage(10, 10, 1000))
    _refused(REPO, match="needs 0.4 MB of disk .* set HF_HOME")
    assert not hub.downloads


def test_a_disk_that_fills_up_half_way_leaves_nothing_that_loads_and_the_next_try_completes(hub, monkeypatch, tmp_path):
    real = file_download.http_get

    def full_at_the_second_shard(url, temp_file, **options):
        if "00002-of" in url:
            temp_file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(url, temp_file, **options)

    monkeypatch.setattr(file_download, "http_get", full_at_the_second_shard)
    _refused(REPO, match="the disk filled up")
    assert not _snapshots(tmp_path)
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    monkeypatch.setattr(file_download, "http_get", real)
    hub.downloads.clear()
    assert {path.name for path in resolve(REPO).iterdir()} == set(NEEDED)
    assert "model-00001-of-00002.safetensors" not in hub.downloads


def test_a_cache_that_cannot_be_written_is_named(hub, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file, not a folder")
    _refused(REPO, match="cache")


@pytest.mark.parametrize("broken", ["model-00002-of-00002.safetensors", "config.json"])
def test_a_download_cut_half_way_leaves_nothing_that_loads_and_can_be_tried_again(broken, hub, monkeypatch, tmp_path):
    hub.repositories[REPO].breaks[broken] = 1 if broken == "config.json" else 100_000
    _refused(REPO, match="answered 503")
    assert not _snapshots(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refused(REPO, match="HF_HUB_OFFLINE")
    _refused(REPO, revision=hub.repositories[REPO].commit, match="HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.repositories[REPO].breaks.clear()
    folder = resolve(REPO)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == NEEDED


def test_an_update_that_fails_leaves_the_old_model_in_use(hub, monkeypatch):
    old = resolve(REPO)
    repository = hub.repositories[REPO]
    (repository.folder / "model-00002-of-00002.safetensors").write_bytes(b"newer" * 40_000)
    repository.breaks["model-00002-of-00002.safetensors"] = 10
    hub.downloads.clear()
    with pytest.raises(HubError, match="answered 503"):
        update(REPO)
    assert resolve(REPO) == old
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(REPO) == old


def _run(code: str, hub: HubServer, home: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)} | env,
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_environment_chooses_endpoint_cache_and_offline(hub, tmp_path):
    code = f"from gemma4_mlx.checkpoint.hub import resolve; print(resolve({REPO!r}))"
    out, err = _run(code, hub, tmp_path / "home").communicate(timeout=120)
    assert err == ""
    assert Path(out.strip()).is_relative_to(tmp_path / "home")
    hub.requests.clear()
    again, err = _run(code, hub, tmp_path / "home", HF_HUB_OFFLINE="1").communicate(timeout=120)
    assert (again, err) == (out, "")
    assert not hub.requests


def test_an_interrupt_ends_a_download_at_once_and_leaves_nothing_that_loads(hub, tmp_path):
    """The server never finishes the second shard: only an interrupt that reaches the download itself can end this."""
    hub.repositories[REPO].hangs = "model-00002-of-00002.safetensors"
    process = _run(f"from gemma4_mlx.checkpoint.hub import resolve; resolve({REPO!r})", hub, tmp_path / "home")
    while not hub.downloads["model-00002-of-00002.safetensors"] and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert not list((tmp_path / "home").rglob("snapshots/*/config.json"))
    assert not list((tmp_path / "home").rglob("*.incomplete"))


LOADING = """
import gemma4_mlx as g4, sys
told = []
g4.load({repo!r}{option})
print(told[-1][0] == told[-1][1] > 1_000_000 and told == sorted(told) if told else "nothing told")
"""


@pytest.mark.parametrize(
    ("option", "at_a_terminal", "said"),
    [(", on_fetch=lambda *far: told.append(far)", True, "True"), ("", True, "100%"), ("", False, "nothing told")],
)
def test_load_tells_of_a_download_or_shows_a_bar_at_a_terminal_alone(option, at_a_terminal, said, tmp_path):
    with running_demo_hub(REPO) as server:
        environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        environment.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
        environment.pop("HF_HUB_OFFLINE", None)
        script = LOADING.format(repo=REPO, option=option)
        outer, inner = os.openpty()
        termios.tcsetwinsize(inner, (24, 100))
        stderr = inner if at_a_terminal else subprocess.PIPE
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=stderr, timeout=120
        )
        os.close(inner)
        shown = b"" if done.stderr is None else done.stderr
        while at_a_terminal:
            try:
                shown += os.read(outer, 65536)
            except OSError:  # all has been read, and nobody can write any more
                break
        os.close(outer)
    assert done.returncode == 0, shown
    if option or not at_a_terminal:
        assert shown == b""
        assert done.stdout.decode().strip() == said
    else:
        assert said in shown.decode()
        assert REPO in shown.decode()
