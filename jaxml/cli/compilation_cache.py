"""JAX's persistent compilation cache, in a folder of this JAX and this machine."""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import tempfile

import jax


def default_folder() -> pathlib.Path:
    """The folder for caches of the user."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root, "jaxml")


def use_compilation_cache(folder: pathlib.Path) -> pathlib.Path:
    """Makes JAX store compiled programs below a folder, and returns where.

    Code for one processor may crash another, so each has a folder of its own.

    Raises:
        OSError: If the folder cannot be written.
    """
    jaxlib = importlib.metadata.version("jaxlib")
    versions = f"jax-{jax.__version__}-jaxlib-{jaxlib}"
    folder = folder / f"{versions}-{jax.default_backend()}-{_processor_digest()}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _processor_digest() -> str:
    """Equal on machines whose processors have one name and the same instructions."""
    description = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # Linux has this file
        names = "model name", "flags", "Features"
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        description += sorted({line for line in lines if line.startswith(names)})
    return hashlib.sha256("\n".join(description).encode()).hexdigest()[:8]
