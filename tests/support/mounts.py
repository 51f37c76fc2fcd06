"""A directory that changes as Kubernetes changes a mounted ConfigMap or Secret: everything at once, by one link."""

import shutil
from pathlib import Path


class Mount:
    """`NAME -> ..data/NAME` and `..data -> ..REVISION`; `publish` swaps `..data` and removes the old revision."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._revision = 0
        directory.mkdir(parents=True, exist_ok=True)

    def publish(self, **files: str) -> None:
        """The whole content from now on; `__` in a name stands for a dot."""
        content = {name.replace("__", "."): text for name, text in files.items()}
        before = self._current()
        self._revision += 1
        revision = self.directory / f"..2026_01_01_00_00_00.{self._revision:09d}"
        revision.mkdir()
        for name, text in content.items():
            (revision / name).write_text(text)
        draft = self.directory / "..data_tmp"
        draft.symlink_to(revision.name)
        draft.rename(self.directory / "..data")
        for link in self.directory.iterdir():
            if link.is_symlink() and not link.name.startswith("..") and link.name not in content:
                link.unlink()
        for name in content:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(Path("..data") / name)
        if before is not None:
            shutil.rmtree(before)

    def _current(self) -> Path | None:
        data = self.directory / "..data"
        return self.directory / data.readlink() if data.is_symlink() else None
