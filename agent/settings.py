"""What can be set, by flag, environment (AGENT_...) or agent.toml, in that order."""

import os
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from .errors import BadInput
from .files import read_whole
from .records import Seed
from .server.address import check_address
from .text import one_line

DEFAULT_MODEL = "gpt-5"
DEFAULT_SERVER = "https://api.openai.com/v1"
_LARGEST = 1 << 20  # bytes of agent.toml
_READ = re.compile(r"(?:AGENT|OPENAI)_.*|.*_PROXY|SSL_CERT_(?:FILE|DIR)|OMP_NUM_THREADS|XDG_CACHE_HOME", re.IGNORECASE)
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Settings(BaseModel):
    """Everything but the key, which only ever stands in OPENAI_API_KEY."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    iterations: int = Field(1, ge=0, le=1_000_000)
    parallel: int = Field(1, ge=1, le=64)
    protocol: Literal["smoke", "fast", "mad"] = "smoke"
    proposer: Literal["openai", "catalogue", "manual"] | None = None
    model: _Text = DEFAULT_MODEL
    base_url: Annotated[_Text, AfterValidator(check_address)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    ray: _Text | None = None  # local, auto or HOST:PORT; without it an evaluation takes one device
    sandbox: Literal["require", "auto", "off"] = "auto"
    seed: Seed = 0
    tries: int = Field(3, ge=1, le=20)
    commit: bool = True
    answer_seconds: float = Field(600, ge=1, le=86_400)  # for one exchange with a model, its retries included
    retries: int = Field(3, ge=0, le=10)  # of one exchange
    price_input: float | None = Field(None, ge=0, le=1_000_000)  # per million tokens; without it no cost is recorded
    price_output: float | None = Field(None, ge=0, le=1_000_000)
    evaluation_hours: float = Field(48, gt=0, le=10_000)
    silence_minutes: float = Field(30, gt=0, le=600_000)  # an evaluation that reports nothing for so long is stopped

    @property
    def key(self) -> str | None:
        return os.environ.get("OPENAI_API_KEY") or None

    @property
    def server(self) -> str | None:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or None

    @property
    def chosen_proposer(self) -> Literal["openai", "catalogue", "manual"]:
        """Without a key and without a server of one's own there is no model to ask."""
        return self.proposer or ("openai" if self.key or self.server else "catalogue")


def load(root: Path, flags: dict[str, Any]) -> Settings:
    """The settings of a run under `root`; a flag that is None was not given."""
    _trim_environment()
    given = {name: value for name, value in flags.items() if value is not None}
    merged = _file(root / "agent.toml") | _environment() | given
    merged = {name: value.strip() if isinstance(value, str) else value for name, value in merged.items()}
    for name, value in merged.items():
        field = Settings.model_fields.get(name)
        if field and isinstance(value, str) and not value.isprintable():
            raise BadInput(f"the setting {name!r} holds {one_line(ascii(value), 60)}: write plain text")
        if field and isinstance(value, bool) and field.annotation is not bool:
            raise BadInput(f"{_given_as(name, str(value).lower(), given)}: it is no switch")
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if name not in Settings.model_fields:  # its value may be a key that got there by mistake: it is not shown
            raise BadInput(f"agent.toml: there is no setting {one_line(name, 60)!r}{_near(name, Settings.model_fields)}") from None
        raise BadInput(f"{_given_as(name, merged[name], given)}: {_wanted(first)}") from None


def _given_as(name: str, value: Any, flags: dict[str, Any]) -> str:
    """The setting as whoever gave it wrote it."""
    shown = one_line(str(value), 60) or "''"
    if name in flags:
        return f"--{name.replace('_', '-')} {shown}"
    return f"{_variable(name)}={shown}" if name in _environment() else f"agent.toml, {name} = {shown}"


_BOUNDS = {"greater_than_equal": "at least {ge}", "greater_than": "more than {gt}", "less_than_equal": "at most {le}"}
_BOUNDS |= {"less_than": "less than {lt}", "literal_error": "{expected}", "finite_number": "a finite number"}
_BOUNDS |= dict.fromkeys(("int_parsing", "int_parsing_size", "int_type", "int_from_float"), "a whole number")
_BOUNDS |= dict.fromkeys(("float_parsing", "float_type"), "a number") | dict.fromkeys(("bool_parsing", "bool_type"), "true or false")
_BOUNDS |= {"string_type": "text", "string_too_short": "a text that is not empty", "string_too_long": "at most {max_length} characters long"}


def _wanted(error: Any) -> str:
    if error["type"] == "value_error":
        return one_line(str(error["ctx"]["error"]), 200)
    words = _BOUNDS.get(error["type"])
    bound = {key: int(value) if isinstance(value, float) else value for key, value in error.get("ctx", {}).items()}
    return f"it must be {words.format(**bound)}" if words else one_line(error["msg"], 200)


def _variable(name: str) -> str:
    return f"AGENT_{name.upper()}"


def _trim_environment() -> None:
    """Blanks around a value, as of a pasted line, mean nothing, and a blank value is none; the libraries that read some take them as they are."""
    for name in filter(_READ.fullmatch, list(os.environ)):
        if value := os.environ.pop(name).strip():
            os.environ[name] = value


def _environment() -> dict[str, str]:
    names = {name: _variable(name) for name in Settings.model_fields}
    return {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}


def unknown_variables() -> list[str]:
    """A sentence for each AGENT_... in the environment that is no setting: a typo would have no effect, unseen."""
    known = [_variable(name) for name in Settings.model_fields]
    others = sorted(name for name in os.environ if name.startswith("AGENT_") and name not in known)
    return [f"{one_line(name, 60)} is no setting and has no effect{_near(name, known)}" for name in others]


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1, 0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_whole(path, _LARGEST).decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a number with too many digits
        raise BadInput(f"{path} is no TOML: {one_line(str(error))}") from None
