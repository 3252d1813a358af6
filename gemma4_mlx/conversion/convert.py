"""`convert`: a checkpoint → a quantized one, in bounded memory, so that any machine can convert any size.

The output is in mlx-vlm's layout and loads here, in mlx-vlm and in mlx-lm. It appears whole or not at all, and an
interrupted conversion goes on where it stopped when it is run again. How each module is packed is decided in `recipes`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..byte_sizes import byte_size
from ..checkpoint.element_types import PRECISIONS, precision, precision_concern
from ..checkpoint.folder_kind import read_config_json
from ..checkpoint.headers import read_headers
from ..checkpoint.hub import SHORT_NAMES, is_hub_id, resolve
from ..checkpoint.load import read_config
from ..checkpoint.quantization import quantize_modules
from ..checkpoint.repacking import in_mlx_packing
from ..checkpoint.sources import StoredTensor, check_fit, find_packings, find_sources, parameter_shapes
from ..checkpoint.weight_files import names_in
from ..config import Config
from ..device_errors import device_errors
from ..errors import CheckpointError, PrecisionWarning
from ..model import Gemma4
from .conversion_plan import ConversionPlan, plan_conversion
from .hub_repository import check_login, fetch_config, upload_folder
from .model_card import model_card
from .partial_output import PartialOutput, remove_leftovers
from .recipes import Recipe, choose_recipe
from .shard_file import blocks, is_on_lattice, pack_exactly, repacked, write_shard

#: Files that go along as they are: tokenizer, template, processor and generation settings, licence.
_COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*")
_MOST_COPIED = 256 << 20  # bytes of one; a tokenizer.json has 32 MB
_KEPT_BY_QAT = "the recipe qat keeps each of its weights; for another, name the checkpoint it was made from"
_REPLACED = ("config.json", "*.safetensors.index.json", "README.md")
# `model_type` of a decoder alone → what the whole model's config.json says.
_WHOLE = {
    "gemma4_text": ("gemma4", "Gemma4ForConditionalGeneration"),
    "gemma4_unified_text": ("gemma4_unified", "Gemma4UnifiedForConditionalGeneration"),
}


@dataclass(frozen=True)
class _Conversion:
    """A source that was read and checked, and what it will become."""

    hub_id: str | None
    folder: Path
    raw_config: dict[str, Any]
    config: Config
    sources: dict[str, StoredTensor]
    plan: ConversionPlan

    def config_json(self) -> str:
        return json.dumps(_output_config(self.raw_config, self.config, self.plan), indent=2, ensure_ascii=False) + "\n"

    def index_json(self) -> str:
        places = {tensor.name: shard.file for shard in self.plan.shards for tensor in shard.tensors}
        metadata = {"total_size": self.plan.nbytes, "total_parameters": self.plan.weights}
        return json.dumps({"metadata": metadata, "weight_map": dict(sorted(places.items()))}, indent=2) + "\n"

    def fingerprint(self) -> str:
        """A digest of all that the large files depend on: the source's, and how they are laid out and packed."""
        files = {source.header.file for source in self.sources.values()}
        stats = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        layout = [[shard.file, [(t.name, t.dtype, t.shape) for t in shard.tensors]] for shard in self.plan.shards]
        content = json.dumps([1, str(self.folder.resolve()), stats, layout, self.plan.quantization()])
        return hashlib.sha256(content.encode()).hexdigest()


@device_errors()
def convert(
    source: str | Path,
    target: str | Path,
    *,
    recipe: str | Recipe | None = None,
    bits: int | None = None,
    dtype: str = "bfloat16",
    revision: str | None = None,
    upload: str | None = None,
    on_fetch: Callable[[int, int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert and quantize a checkpoint.

    Memory stays at a few hundred megabytes whatever the model's size. Stopped at any moment, even by a power cut, the
    same call takes up where it was; until the end there is only `target.partial`.

    Args:
        source: a Hub id such as `"google/gemma-4-E2B-it"`, or a folder, of a checkpoint that is not quantized.
        target: the folder to make; it must not exist.
        recipe: a name in `RECIPES` (`"4bit"`, `"8bit"`, `"mxfp4"`, `"bf16"`, `"speech"`, `"qat"`) or a `Recipe`;
            `"4bit"` if neither this nor `bits` is given. With `"qat"` no packed weight differs from the source's.
        bits: the short way to a recipe: 4, 8 or 16.
        dtype: precision of everything that is not packed: `"bfloat16"`, `"float16"` or `"float32"`.
        revision: branch, tag or commit of a Hub id.
        upload: Hub id of a repository to put the result in; made if it does not exist.
        on_fetch: called with (bytes here, bytes in all) while the source is fetched from the Hub.
        on_progress: called with (bytes written, bytes in all).

    Returns:
        The target.

    Raises:
        CheckpointError: the source is damaged, does not fit its config or is already quantized; the target exists or
            cannot be written; the disk is full; a module's columns do not divide by the recipe's group size; weights
            that `"qat"` has to keep to the bit are not on its lattice.
        HubError: the source cannot be fetched, or the result not uploaded.
        ConfigError: the source is not a Gemma 4.
        OutOfMemoryError, DeviceError: memory ran out, or the GPU failed; the same call goes on from there.
        ValueError: an unknown recipe, number of bits or dtype.
    """
    chosen = _arguments(recipe, bits, dtype)
    target = Path(os.path.abspath(os.path.expanduser(target)))
    if os.path.lexists(target) and not os.path.lexists(target.with_name(f"{target.name}.partial")):
        raise CheckpointError(f"{target} exists already: remove it, or name another folder")  # before any download
    if concern := precision_concern(precision(dtype)):
        warnings.warn(f"{target.name}: {concern}", PrecisionWarning, stacklevel=2)
    if upload is not None:
        check_login(upload)
    if (hub_id := _hub_id(str(source))) is not None:
        _config_to_convert(hub_id, revision)  # before gigabytes are fetched in vain
    work = _prepare(str(source), resolve(source, revision, on_fetch), chosen, dtype)
    fingerprint = work.fingerprint()
    if not remove_leftovers(target, fingerprint):
        try:
            with PartialOutput(target, fingerprint) as output:
                _write(work, output, on_progress or (lambda done, total: None))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _disk_full(target) from error
            raise
    if upload is not None:
        upload_folder(target, upload)
    return target


def plan(
    source: str | Path,
    *,
    recipe: str | Recipe | None = None,
    bits: int | None = None,
    dtype: str = "bfloat16",
    revision: str | None = None,
) -> ConversionPlan:
    """What `convert` with the same arguments would write; it writes nothing and fetches no weights.

    Raises:
        CheckpointError, HubError, ConfigError, ValueError: as `convert`.
    """
    chosen = _arguments(recipe, bits, dtype)
    hub_id = _hub_id(str(source))
    if hub_id is None:
        return _prepare(str(source), resolve(source, revision), chosen, dtype).plan
    return plan_conversion(_config_to_convert(hub_id, revision), chosen, dtype)


def _arguments(recipe: str | Recipe | None, bits: int | None, dtype: str) -> Recipe:
    if dtype not in PRECISIONS:
        raise ValueError(f"dtype must be one of {', '.join(PRECISIONS)}, not {dtype!r}")
    return choose_recipe(recipe, bits)


def _prepare(name: str, folder: Path, recipe: Recipe, dtype: str) -> _Conversion:
    """Read the source's config and headers, and see that all of it can be converted before anything is."""
    raw = dict(read_config_json(folder))
    config = Config.from_dict(raw)
    headers = read_headers(folder)
    config, sources = find_sources(headers, config)
    if any(leaf.endswith(".weight_scale") for leaf in sources):
        return _prepare_packed(name, folder, raw, config, sources, recipe, dtype)
    _refuse_quantized(name, config, sources)
    _files_to_copy(folder)
    check_fit(sources, parameter_shapes(Gemma4(config)), {}, folder)
    planned = plan_conversion(config, recipe, dtype)
    if off_lattice := _off_lattice(planned, sources):
        planned = plan_conversion(config, recipe, dtype, off_lattice)
    return _Conversion(_hub_id(name), folder, raw, config, sources, planned)


def _prepare_packed(
    name: str,
    folder: Path,
    raw: dict[str, Any],
    config: Config,
    sources: dict[str, StoredTensor],
    recipe: Recipe,
    dtype: str,
) -> _Conversion:
    """The same for a source that another program packed, of which every packed weight stays what it is."""
    _files_to_copy(folder)
    model = Gemma4(config)
    sources = in_mlx_packing(sources, model)
    if recipe.name != "qat":
        raise CheckpointError(f"{name} is quantized already: {_KEPT_BY_QAT}")
    packings = find_packings(sources, model)
    quantize_modules(model, packings)
    check_fit(sources, parameter_shapes(model), packings, folder)
    planned = plan_conversion(config, recipe, dtype, packings=packings)
    for module in packings:
        repacked(sources[f"{module}.scales"], precision(dtype))  # before anything is written
    return _Conversion(_hub_id(name), folder, raw, config, sources, planned)


def _off_lattice(planned: ConversionPlan, sources: Mapping[str, StoredTensor]) -> list[str]:
    """Modules that the recipe keeps because their weights do not lie on its lattice. It reads all that must lie on it.

    Raises:
        CheckpointError: weights that the recipe does not keep do not lie on it; the tensor is named.
    """
    found = []
    for parameter in planned.parameters:
        if not parameter.exact:
            continue
        source, dtype = sources[parameter.name], precision(planned.dtype)
        module = parameter.name.removesuffix(".weight")
        rule = planned.recipe.rule_for(module, True)
        if rule is not None and rule.keep_off_lattice:
            if not is_on_lattice(source, parameter, dtype):
                found.append(module)
            continue
        for block in blocks(source, parameter):
            pack_exactly(block, source, dtype)
    return found


def _hub_id(name: str) -> str | None:
    """The Hub id a name stands for; None if it is a folder's."""
    if name.lower() in SHORT_NAMES:
        return SHORT_NAMES[name.lower()]
    # What is neither a folder nor a Hub id is told by `resolve`.
    return name if is_hub_id(name) and not os.path.isdir(os.path.expanduser(name)) else None


def _config_to_convert(hub_id: str, revision: str | None) -> Config:
    config = read_config(fetch_config(hub_id, revision))
    _refuse_quantized(hub_id, config, {})
    return config


def _refuse_quantized(name: str, config: Config, sources: Mapping[str, StoredTensor]) -> None:
    packed = (config.quantization or {}).get("quant_method") in ("compressed-tensors", "gemma")
    if packed and not sources:
        return  # how, its tensors will tell
    # The tensors tell, where there are any: the makers' "-unquantized" checkpoints have a quantization_config, too.
    if any(parameter.endswith(".scales") for parameter in sources) or (config.quantization and not sources):
        raise CheckpointError(
            f"{name} is quantized already: name the checkpoint it was made from, such as google/gemma-4-E2B-it"
        )


def _write(work: _Conversion, output: PartialOutput, on_progress: Callable[[int, int], None]) -> None:
    planned = work.plan
    open_shards = [shard for shard in planned.shards if not output.is_finished(shard.file)]
    done = planned.nbytes - sum(shard.nbytes for shard in open_shards)
    free = shutil.disk_usage(output.folder).free
    if planned.nbytes - done > free:
        raise CheckpointError(
            f"{output.target} needs {byte_size(planned.nbytes - done)} and its disk has {byte_size(free)} free: "
            "make room, or name a folder on another disk"
        )

    def written(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        on_progress(done, planned.nbytes)

    on_progress(done, planned.nbytes)
    for shard in open_shards:
        write_shard(output.folder / shard.file, shard, work.sources, precision(planned.dtype), written)
        output.finish(shard.file)
    for path in _files_to_copy(work.folder):
        shutil.copyfile(path, output.folder / path.name)
    (output.folder / "README.md").write_text(model_card(work.hub_id, planned), encoding="utf-8")
    (output.folder / "model.safetensors.index.json").write_text(work.index_json(), encoding="utf-8")
    (output.folder / "config.json").write_text(work.config_json(), encoding="utf-8")
    output.publish()


def _files_to_copy(folder: Path) -> list[Path]:
    """The files beside the weights that go along.

    Links count only within the folder, and from a snapshot of the Hub's cache to its blobs. A checkpoint that somebody
    else made may have a key of ours for its licence, and the output may be uploaded.

    Raises:
        CheckpointError: one is a link to somewhere else, or far larger than such files are.
    """
    place = folder.resolve()
    allowed = [place]
    if place.parent.name == "snapshots":
        allowed.append(place.parents[1] / "blobs")
    found = []
    for name in names_in(folder):
        path = folder / name
        if name[0] == "." or not _fits(name, _COPIED) or _fits(name, _REPLACED) or not path.is_file():
            continue
        real = path.resolve()
        if real.parent not in allowed:
            raise CheckpointError(f"{path} is a link to {real}, outside of its folder: put a copy there, or remove it")
        if real.stat().st_size > _MOST_COPIED:
            raise CheckpointError(f"{path} is larger than {_MOST_COPIED >> 20} MiB: move it out of the checkpoint")
        found.append(path)
    return found


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _disk_full(target: Path) -> CheckpointError:
    return CheckpointError(
        f"the disk filled up while writing {target}: make room and run the same again (finished files are kept)"
    )


def _output_config(raw: Mapping[str, Any], source: Config, plan: ConversionPlan) -> dict[str, Any]:
    """The source's `config.json` with what has changed, and what the peers read in places of their own."""
    config = dict(raw)
    if (whole := _WHOLE.get(config["model_type"])) is not None:
        # The output has the whole model's names, also when only the decoder is there.
        model_type, architecture = whole
        config = {
            "model_type": model_type,
            "architectures": [architecture],
            "text_config": dict(raw),
            "vision_config": None,
            "audio_config": None,
        }
    for key in ("torch_dtype", "quantization_config"):  # of the source; the second may tell of its training alone
        config.pop(key, None)
    config["dtype"] = plan.dtype
    for part in ("text_config", "vision_config", "audio_config"):
        if config.get(part):
            config[part] = {key: value for key, value in config[part].items() if key not in ("dtype", "torch_dtype")}
    text = source.text
    # The peers know only the published spelling of what full layers have of their own.
    config["text_config"]["global_head_dim"] = text.global_head_dim
    config["text_config"]["num_global_key_value_heads"] = text.num_global_key_value_heads
    config["vocab_size"] = text.vocab_size  # mlx-lm looks for it here
    # transformers reads this at the top, mlx-lm in the text part; the tensors know best.
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = text.tie_word_embeddings
    if quantization := plan.quantization():
        config["quantization"] = config["quantization_config"] = quantization
    return config
