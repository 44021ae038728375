"""Whether a model's files in the cache are complete, decided without a request to the Hub.

``whole/COMMIT.json`` lists the files of a complete commit with the hashes, sizes and times with which they were verified.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from image.engine.blobs import State, is_right, state
from image.engine.weight_files import has_layout, missing, select

PARALLEL_FILES = 8
LONGEST_HEADER_BYTES = 100_000_000  # of the safetensors format
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Repository:
    """A model on the Hub or in S3.

    Attributes:
        name: the Hub id, or the address in S3.
        revision: a branch, tag or commit on the Hub.
        mistral: the layout to load, see `select`.
        needs: "model": it must have a model's weights; "weights": any, such as an adapter's; "": a tokenizer needs none.
        setting: the setting that names it, for messages.
    """

    name: str
    revision: str = "main"
    mistral: bool | None = None
    needs: str = field(default="model", compare=False)
    setting: str = field(default="model", compare=False)

    def folder(self, cache: Path) -> Path:
        """The folder of its files in the Hub's cache."""
        return cache / ("models--" + re.sub(r"://|/", "--", self.name))


@dataclass(frozen=True)
class Weights:
    """A model's files, complete and verified; ``hashes`` maps the names to the Hub's hashes."""

    repository: Repository
    commit: str
    folder: Path
    size_bytes: int
    hashes: Mapping[str, str] = field(default_factory=dict, compare=False)


def marked(repository: Repository, root: Path) -> Weights | None:
    """The model, if every file is unchanged since it was verified."""
    commit = commit_of(repository, root)
    files = _marker(root, commit) if commit else {}
    if not commit or not files:
        return None
    snapshot = root / "snapshots" / commit
    if any(state(snapshot / name) != expected for name, (_, expected) in files.items()):
        return None
    if not has_layout(files, repository.mistral):
        return None
    return _weights(repository, commit, root, files)


def mended(repository: Repository, root: Path, tell: Callable[[str], None]) -> Weights | None:
    """The model, if files were copied or touched but their hashes still match; avoids downloading them again."""
    commit = commit_of(repository, root)
    files = _marker(root, commit) if commit else {}
    if not commit or not files:
        return None
    snapshot = root / "snapshots" / commit
    now = {name: state(snapshot / name) for name in files}
    changed = [name for name, (_, expected) in files.items() if now[name] != expected]
    if changed:
        tell(f"weights: {len(changed)} files of {repository.name} changed since they were verified; verifying again")
    if not has_layout(files, repository.mistral):
        return None
    if not all_right({snapshot / name: (files[name][0], files[name][1][0]) for name in changed}):
        return None
    found = {name: (digest, now[name] or expected) for name, (digest, expected) in files.items()}
    mark(root, commit, found, tell)
    return _weights(repository, commit, root, found)


def unmarked(repository: Repository, root: Path, tell: Callable[[str], None]) -> Weights | None:
    """A model that the Hub's own client downloaded, if nothing is missing and every file matches the hash in its name."""
    commit = commit_of(repository, root)
    if not commit or _marker(root, commit):
        return None
    snapshot = root / "snapshots" / commit
    there = {str(path.relative_to(snapshot)): path for path in snapshot.rglob("*") if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in there.items()}
    chosen = select(sizes, mistral=repository.mistral)
    indexes = {name: there[name].read_text(errors="replace") for name in there if name.endswith(".index.json")}
    if not {"config.json", "params.json"} & set(there) or not chosen.weights or missing(chosen, sizes, indexes):
        return None
    if any(name.endswith(".safetensors") and (tensors_end(there[name]) or 0) > sizes[name] for name in sizes):
        return None
    hashes = {name: path.resolve().name for name, path in there.items() if _HASH.fullmatch(path.resolve().name)}
    if set(chosen.weights) - set(hashes):  # copies: nothing says what they should contain
        return None
    tell(f"weights: {repository.name}: another program downloaded commit {commit[:12]}; verifying it")
    if not all_right({there[name]: (digest, sizes[name]) for name, digest in hashes.items()}):
        return None
    found = {name: (digest, told) for name, digest in hashes.items() if (told := state(there[name]))}
    mark(root, commit, found, tell)
    return _weights(repository, commit, root, found)


def tensors_end(path: Path) -> int | None:
    """The size that a safetensors file must have by its own header; None if it is not in that format.

    The format: 8 bytes with the length of the header, the header as JSON with the offsets of each tensor, the tensors.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER_BYTES:
                return None
            header = json.loads(file.read(length))
        ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return 8 + length + max(ends, default=0)


def all_right(files: Mapping[Path, tuple[str, int]]) -> bool:
    """Whether each file has its hash and size."""
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        return all(pool.map(lambda item: is_right(item[0], *item[1]), files.items()))


def trusted(root: Path) -> dict[str, State]:
    """Map each hash to the state in which that blob was verified, for all commits that were ever complete."""
    commits = [path.stem for path in (root / "whole").glob("*.json")]
    return {digest: expected for commit in commits for digest, expected in _marker(root, commit).values()}


def mark(root: Path, commit: str, files: Mapping[str, tuple[str, State]], tell: Callable[[str], None]) -> None:
    """Record a verified commit; if that fails, the next start verifies it again."""
    marker = {name: {"hash": digest, "state": told} for name, (digest, told) in files.items()}
    try:
        write(root / "whole" / f"{commit}.json", json.dumps(marker, indent=1))
    except OSError as error:
        tell(f"weights: {root} cannot be written ({error.strerror}); the next start verifies the files again")


def write(path: Path, text: str) -> None:
    """Write a small file at once: it never has half of its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def commit_of(repository: Repository, root: Path) -> str | None:
    """The commit that the cache has for the revision; None if there is none."""
    if re.fullmatch(r"[0-9a-f]{40}", repository.revision):
        return repository.revision
    try:
        found = (root / "refs" / repository.revision).read_text().strip()
    except (OSError, ValueError):
        return None
    return found if re.fullmatch(r"[0-9a-f]{40}", found) else None


def pin(repository: Repository, root: Path, commit: str, *, replaces: str | None = None) -> str:
    """Record the commit of a branch, unless another process has recorded one; returns the recorded one.

    Args:
        repository: the model, at a branch or tag.
        root: its folder in the cache.
        commit: the branch's commit.
        replaces: a recorded commit that does not exist any more.
    """
    reference = root / "refs" / repository.revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    new = reference.with_name(f".{uuid.uuid4().hex}.part")
    write(new, commit)
    try:
        if reference.exists() and commit_of(repository, root) in (None, replaces):  # torn, or rewritten on the Hub
            reference.unlink(missing_ok=True)
        os.link(new, reference)  # fails if it exists: the first process wins
    except FileExistsError:
        return commit_of(repository, root) or commit
    except OSError:  # no hard links
        new.replace(reference)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
    return commit


def loaded_bytes(repository: Repository, sizes: Mapping[str, int]) -> int:
    """The bytes that vLLM loads: some repositories contain the weights twice, once as Mistral's consolidated file."""
    return select(sizes, mistral=repository.mistral).total_bytes or 0


def _weights(repository: Repository, commit: str, root: Path, files: Mapping[str, tuple[str, State]]) -> Weights:
    size = loaded_bytes(repository, {name: told[0] for name, (_, told) in files.items()})
    hashes = {name: digest for name, (digest, _) in files.items()}
    return Weights(repository, commit, root / "snapshots" / commit, size, hashes)


def _marker(root: Path, commit: str) -> dict[str, tuple[str, State]]:
    """Map each file name to its hash and the state in which it was verified; empty if the commit was never complete."""
    try:
        told = json.loads((root / "whole" / f"{commit}.json").read_text())
        return {str(name): (str(file["hash"]), list(file["state"])) for name, file in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
