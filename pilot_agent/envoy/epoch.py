"""Hot-restart epochs: their base-id, and the shared memory Envoy leaves behind.

Envoy never removes /dev/shm/envoy_shared_memory_<base-id>0, so the agent removes its own. A child that fails during a
hot restart poisons that memory for every later epoch; a new generation (epoch 0, new base-id) is the only way on.
"""

import os
from pathlib import Path
from typing import NamedTuple

SHARED_MEMORY = Path("/dev/shm")


class Epoch(NamedTuple):
    """Epoch `number` of the generation `base_id`; the id is None until Envoy wrote it, and without hot restart."""

    number: int = 0
    base_id: int | None = None
    can_hot_restart: bool = True

    def next(self) -> "Epoch":
        return self._replace(number=self.number + 1)


def is_shared_memory_usable(directory: Path = SHARED_MEMORY) -> bool:
    """Whether Envoy can make its hot-restart memory: without it, it does not start at all."""
    return os.access(directory, os.W_OK | os.X_OK)


def read_base_id(path: Path) -> int | None:
    """The id Envoy chose (--base-id-path); None while it has not written one."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def remove_generation(base_id_path: Path, directory: Path = SHARED_MEMORY) -> None:
    """Remove what a dead generation left: its shared memory, and the file with its id. Quiet where there is nothing."""
    base_id = read_base_id(base_id_path)
    if base_id is not None:
        (directory / f"envoy_shared_memory_{base_id}0").unlink(missing_ok=True)
    base_id_path.unlink(missing_ok=True)
