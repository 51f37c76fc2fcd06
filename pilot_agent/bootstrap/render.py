"""Templates to JSON documents: the only place that knows where templates live and how they are rendered.

Every value goes through `tojson`; an expression that forgot it, or names something undefined, is an error with file and
line. What comes out is parsed at once, so no caller ever sees text that is not JSON. No I/O but reading templates.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2.bccache import Bucket
from markupsafe import Markup

from pilot_agent.errors import TemplateError

YAML_TEMPLATES = (".yaml", ".yaml.j2", ".yaml.tmpl")


def _refuse(value: object) -> object:
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises UndefinedError with the name
    raise TypeError(f"{value!r} can't be written as JSON")


def _tojson(value: object) -> Markup:
    return Markup(json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_refuse))  # noqa: S704 - JSON, not HTML


def _only_json(value: object) -> object:
    """What an expression may print: with autoescape on, only `tojson` and macros make Markup."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises UndefinedError with the name
    raise jinja2.TemplateRuntimeError(f"value {value!r} is printed without the tojson filter")


def templates_directory() -> Path:
    """Where the shipped templates are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_templates"
    return installed if installed.is_dir() else package.parent / "templates"


class _CompiledTemplates(jinja2.BytecodeCache):
    """Compiled templates beside their sources, as Python keeps its own: compiling ours takes 50 ms of the start.

    Only shipped templates are kept, and only where the package is writable; a stale file is known by its checksum.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._directory = root, root / "__pycache__"
        self._own_keys: set[str] = set()

    def get_bucket(self, environment: jinja2.Environment, name: str, filename: str | None, source: str) -> Bucket:
        if filename is not None and Path(filename).is_relative_to(self._root):
            self._own_keys.add(self.get_cache_key(name, filename))
        return super().get_bucket(environment, name, filename, source)

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._own_keys:
            try:
                with self._path(bucket).open("rb") as file:
                    bucket.load_bytecode(file)
            except OSError:
                pass  # not compiled yet

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._own_keys:
            path = self._path(bucket)
            draft = path.with_suffix(f".{os.getpid()}")
            try:
                self._directory.mkdir(exist_ok=True)
                draft.write_bytes(bucket.bytecode_to_string())
                draft.replace(path)
            except OSError:
                pass  # an installation owned by somebody else: compile at every start

    def _path(self, bucket: Bucket) -> Path:
        return self._directory / f"{bucket.key}.{sys.implementation.cache_tag}-jinja{jinja2.__version__}.j2c"


class Renderer:
    """Renders templates by name (shipped ones) or by path (a user's own), to parsed JSON.

    A template may print macros' results directly; everything else must pass `tojson`.
    """

    def __init__(self) -> None:
        self._root = templates_directory()
        self._environment = jinja2.Environment(
            # Absolute paths come from users' settings; names are looked up among the shipped templates only.
            loader=jinja2.FunctionLoader(self._load),
            undefined=jinja2.StrictUndefined,
            finalize=_only_json,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=True,
            auto_reload=False,
            bytecode_cache=_CompiledTemplates(self._root),
            cache_size=64,
        )
        self._environment.filters["tojson"] = _tojson

    def compile_shipped(self) -> None:
        """Compile every shipped template where it lies, for an image whose user may not write there."""
        for path in sorted(self._root.rglob("*.j2")):
            self._environment.get_template(str(path.relative_to(self._root)))

    def render(self, name: str, variables: Mapping[str, object]) -> Any:
        """Render the template `name` (relative to the shipped ones, or an absolute path) and parse the result.

        It is JSON, or YAML where the name says so (`YAML_TEMPLATES`); what `tojson` prints is both.

        Raises TemplateError with file, line and reason.
        """
        try:
            text = self._environment.get_template(name).render(variables)
        except jinja2.TemplateNotFound as error:
            raise TemplateError(f"template {error.name}: {error.message}") from None
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"template {error.filename or name}:{error.lineno}: {error.message}") from None
        except Exception as error:  # noqa: BLE001 - a template may raise anything: it runs what its author wrote
            line = _line_in(error, self._path(name))
            raise TemplateError(f"template {self._path(name)}{line}: {error}") from None
        if name.endswith(YAML_TEMPLATES):
            return _parsed_yaml(text, self._path(name))
        try:
            return json.loads(text)
        except ValueError as error:
            raise TemplateError(
                f"template {self._path(name)}: the result is not JSON: {error}{_near(text, error)}"
            ) from None

    def _path(self, name: str) -> Path:
        return self._root / name

    def _load(self, name: str) -> tuple[str, str, None]:
        path = self._path(name)
        try:
            return path.read_text(encoding="utf-8"), str(path), None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise jinja2.TemplateNotFound(str(path), f"can't be read: {reason}") from None


def _parsed_yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        document = yaml.safe_load(text)
        json.dumps(document)  # what becomes JSON may hold no dates, and no keys but texts
    except (yaml.YAMLError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())
        raise TemplateError(f"template {path}: the result is not YAML that JSON can say: {words}") from None
    return document


def _line_in(error: Exception, path: Path) -> str:
    """`:LINE` of the innermost template frame of `error`, where there is one."""
    line = ""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(path):
            line = f":{frame.tb_lineno}"
        frame = frame.tb_next
    return line


def _near(text: str, error: ValueError) -> str:
    position = getattr(error, "pos", None)
    if position is None:
        return ""
    return f", near {text[max(0, position - 30) : position + 10]!r}"
