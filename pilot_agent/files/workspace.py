"""A directory the agent writes into, `configPath` above all: made when first needed, and left as it was found."""

from pathlib import Path

from pilot_agent.errors import SettingsError
from pilot_agent.files.publish import publish


class Workspace:
    """Remembers every directory and file it made, so that `remove` takes away exactly those."""

    def __init__(self, root: Path, what: str = "configPath", directory_mode: int = 0o755) -> None:
        """`what`: the setting that names it, for errors."""
        self.root, self._what, self._directory_mode = root.absolute(), what, directory_mode
        self._directories: list[Path] = []
        self._files: list[Path] = []

    def create(self, *names: str) -> None:
        """Make the root and its sub-directories `names`. Raises SettingsError naming the path."""
        for directory in (self.root, *(self.root / name for name in names)):
            missing = [path for path in (directory, *directory.parents) if not path.exists()]
            for path in reversed(missing):
                try:
                    path.mkdir(mode=self._directory_mode)
                except OSError as error:
                    raise SettingsError(f"{self._what} {self.root}: {path} can't be made: {error.strerror}") from None
                self._directories.append(path)

    def claim(self, name: str) -> Path:
        """The path of a file that will be made by someone on our behalf, to be removed with the rest."""
        path = self.root / name
        if path not in self._files:
            self._files.append(path)
        return path

    def write(self, name: str, content: bytes, *, mode: int = 0o644, owner: int | None = None) -> Path:
        """Publish a file, which belongs to `owner`. Raises SettingsError naming the path."""
        path = self.claim(name)
        try:
            publish(path, content, mode, owner)
        except OSError as error:
            raise SettingsError(f"{self._what} {self.root}: {path} can't be written: {error.strerror}") from None
        return path

    def remove(self) -> None:
        """Take away what was made. A directory someone else put files into stays."""
        for file in self._files:
            try:
                file.unlink(missing_ok=True)
            except OSError:
                pass  # the directory became read-only under us: nothing more to do at the end of a run
        for directory in reversed(self._directories):
            try:
                directory.rmdir()
            except OSError:
                pass  # not empty: not only ours any more
        self._files.clear()
        self._directories.clear()
