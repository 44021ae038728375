"""Which of a repository's files vLLM needs: the weights it loads, and the configuration, tokenizer and code beside them.

Standard library only, so that the planner can use it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Copies for other programs; vLLM reads no file in these folders.
_OTHER_FOLDERS = frozenset({"original", "onnx", "openvino", "coreml", "metal", "tflite"})
_OTHER_FORMATS = re.compile(r".*\.(h5|msgpack|onnx|onnx_data|ot|tflite|mlmodel)")
_OLDER = re.compile(r".*\.(bin|pt|pth)")
# The same weights in the older format. Other names are parts of their own (bge-m3: sparse_linear.pt), loaded beside them.
_OLDER_COPY = re.compile(r"(pytorch_model|model|consolidated|adapter_model)([-._].*)?\.(bin|pt|pth)")
_TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)")
_CONSOLIDATED = re.compile(r"consolidated([-._].*)?\.safetensors")
_SHARD = re.compile(r"(?P<before>.*[^-])-\d+-of-(?P<count>\d+)(?P<after>\.\w+)")
_ADAPTER = re.compile(r"adapter_model([-._].*)?\.(safetensors|bin|pt)")


class NoWeightsError(ValueError):
    """The repository has no weights that vLLM can load as asked; one line with what was found and what to set."""


@dataclass(frozen=True)
class WeightFiles:
    """A repository's files by their use.

    Attributes:
        weights: loaded as weights.
        copies: the same weights again in the other of two layouts, Mistral's (``consolidated*.safetensors``) and the Hub's.
        others: configuration, tokenizer, chat templates, code.
        sizes: the bytes of each file of the repository, where known.
    """

    weights: tuple[str, ...]
    copies: tuple[str, ...]
    others: tuple[str, ...]
    sizes: Mapping[str, int | None]

    @property
    def weight_bytes(self) -> int | None:
        """The bytes of the weights; None if the size of one is unknown."""
        return self._total(self.weights)

    @property
    def total_bytes(self) -> int | None:
        """The bytes of the weights and of the files beside them; None if the size of one is unknown."""
        return self._total(self.weights + self.others)

    def _total(self, names: Iterable[str]) -> int | None:
        known = [self.sizes[name] for name in names]
        return None if None in known else sum(size or 0 for size in known)


def select(
    sizes: Mapping[str, int | None], *, adapter: str | None = None, gguf: str = "", mistral: bool | None = None
) -> WeightFiles:
    """Select the files that vLLM needs; older formats are left out only in a folder that has safetensors.

    Args:
        sizes: each file's path and its bytes, None if unknown.
        adapter: a folder with a LoRA adapter (``""``: the root), instead of the whole model.
        gguf: a GGUF quantization, such as ``Q4_K_M``, instead of safetensors.
        mistral: whether to load Mistral's layout (``--load-format mistral``) if both are there; None: as vLLM itself
            decides, if the configuration of that layout (params.json) is there, too.

    Returns:
        The selection; ``weights`` is empty for a repository without weights (a tokenizer), see ``required``.
    """
    names = [name for name in sorted(sizes) if name.partition("/")[0] not in _OTHER_FOLDERS or "/" not in name]
    if adapter is not None:
        names = [name for name in names if _folder(name) == adapter.strip("/")]
    names = [name for name in names if not _OTHER_FORMATS.fullmatch(name) and not _TRAINING.fullmatch(_base(name))]
    modern = {_folder(name) for name in names if name.endswith(".safetensors")}
    names = [name for name in names if not (_folder(name) in modern and _OLDER_COPY.fullmatch(_base(name)))]
    quantized = [name for name in names if name.endswith(".gguf")]
    weights = [name for name in names if name.endswith(".safetensors") or _OLDER.fullmatch(name)]
    others = [name for name in names if name not in {*quantized, *weights}]
    copies: list[str] = []
    if gguf:
        tag = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(gguf)}(?![A-Za-z0-9_])", re.IGNORECASE)
        weights = [name for name in quantized if tag.search(name)]
    elif adapter is not None:
        weights = [name for name in weights if _ADAPTER.fullmatch(_base(name))]
    else:
        first = [name for name in weights if _CONSOLIDATED.fullmatch(name)]
        second = [name for name in weights if re.fullmatch(r"model([-._][^/]*)?\.safetensors", name)]
        if first and second:
            copies = second if ("params.json" in sizes if mistral is None else mistral) else first
            weights = [name for name in weights if name not in copies]
    return WeightFiles(tuple(weights), tuple(copies), tuple(others), dict(sizes))


def has_layout(names: Iterable[str], mistral: bool | None) -> bool:
    """Whether these files contain the layout that is loaded; always, if vLLM decides."""
    weights = [name for name in names if name.endswith(".safetensors")]
    if mistral is None or not weights:
        return True
    return any(bool(_CONSOLIDATED.fullmatch(name)) is mistral for name in weights)


def required(files: WeightFiles, repository: str, *, adapter: bool = False) -> WeightFiles:
    """The same selection, for a model that must have weights; ``adapter``: those of a LoRA adapter are enough.

    Raises:
        NoWeightsError: there are none.
    """
    if any(adapter or not _ADAPTER.fullmatch(_base(name)) for name in files.weights):
        return files
    if files.weights:
        raise NoWeightsError(
            f"weights: {repository} has only the weights of a LoRA adapter; "
            "set model to the adapter's base model, and loraAdapters to the adapter"
        )
    if any(name.endswith(".gguf") for name in files.sizes):
        raise NoWeightsError(
            f"weights: {repository} has only GGUF files for what was asked; "
            "set model to the repository with safetensors, or name a GGUF quantization that it has"
        )
    raise NoWeightsError(
        f"weights: {repository} has no weights that vLLM loads; set model to a repository with safetensors"
    )


def missing(files: WeightFiles, there: Mapping[str, int], indexes: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The files that are missing or have the wrong size in a folder; empty if its content is whole.

    Args:
        files: what is wanted.
        there: each file in the folder and its bytes.
        indexes: the text of each ``*.index.json`` in the folder by its path; every shard that it lists must be there.
    """
    wanted = {name for name in files.weights + files.others if there.get(name, -1) != _expected(files, there, name)}
    for path, text in (indexes or {}).items():
        try:
            shards = {str(shard) for shard in json.loads(text)["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError):
            wanted.add(path)
            continue
        prefix = _folder(path) + "/" if "/" in path else ""
        selected = any(prefix + shard in files.weights for shard in shards)
        wanted |= {prefix + shard for shard in shards if selected and prefix + shard not in there}
    wanted |= {name for name in _shards(files.weights) if name not in there}
    return tuple(sorted(wanted))


def _shards(names: Iterable[str]) -> set[str]:
    """All shards of which one is named: ``model-00001-of-00003.safetensors`` names three."""
    found = set()
    for name in names:
        if shard := _SHARD.fullmatch(name):
            count, width = int(shard["count"]), len(shard["count"])
            found |= {
                f"{shard['before']}-{i:0{width}}-of-{shard['count']}{shard['after']}"
                for i in range(1, min(count, 9999) + 1)
            }
    return found


def _expected(files: WeightFiles, there: Mapping[str, int], name: str) -> int:
    size = files.sizes[name]
    return there.get(name, 0) if size is None else size


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def indexed_bytes(index: str) -> int | None:
    """The bytes of all tensors that a ``model.safetensors.index.json`` states, where the sizes of the files are unknown."""
    try:
        total = json.loads(index)["metadata"]["total_size"]
    except (ValueError, KeyError, TypeError):
        return None
    return (
        int(total) if isinstance(total, int | float) and not isinstance(total, bool) and 0 < total < 1 << 50 else None
    )
