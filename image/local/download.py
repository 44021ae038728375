"""Fetches a model's files from the hub into a folder. Run in `.venv-engine`, which has huggingface_hub.

Usage: python download.py MODEL REVISION FOLDER; the token is HF_TOKEN's. On failure the last line of output says why.
"""

import sys

from huggingface_hub import HfApi, snapshot_download  # type: ignore[import-not-found]

# Weights in formats that vLLM does not load when safetensors are there, and copies for other programs.
OTHER_FORMATS = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.ot", "original/*", "onnx/*"]


def main(model: str, revision: str, folder: str) -> None:
    """Fetch every file that vLLM needs; takes up an earlier, interrupted fetch."""
    names = HfApi().list_repo_files(model, revision=revision)
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    ignored = OTHER_FORMATS if has_safetensors else OTHER_FORMATS[3:]
    snapshot_download(model, revision=revision, local_dir=folder, ignore_patterns=ignored)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except Exception as error:  # the boundary: whatever the library raises becomes one line
        sys.exit(f"error: {type(error).__name__}: {str(error).splitlines()[0]}")
