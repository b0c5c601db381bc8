"""A Hugging Face hub id (`owner/name`, or `owner/name@revision`): taken from the local cache, or fetched into it.

Small files come first and are checked, so that a base that would be refused costs no download of its weights. Only JSON, text,
tokenizer and safetensors files are ever asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from tunewright.core.errors import BaseModelError
from tunewright.models.safety import INDEX, WEIGHTS, check_configurations
from tunewright.models.sources import Resolved, Source

_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")
SMALL = ["*.json", "*.txt", "*.model", "*.jinja"]
NEVER = ["*/*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.py", "*.h5", "*.msgpack", "consolidated*", "adapter_*"]


class Hub(Source):
    """The Hugging Face hub. A revision pins what is fetched; without one the hub's default branch is meant."""

    order: ClassVar[int] = 40

    def claims(self, base: str) -> bool:
        return bool(_ID.fullmatch(base))

    def resolve(self, base: str) -> Resolved:
        return Resolved(base, "hub", hub_id=base)

    def fetch(self, resolved: Resolved) -> Path:
        """The cached snapshot when it is complete, else a fresh one; `BaseModelError` when the hub lacks it or is out of reach."""
        assert resolved.hub_id is not None
        name, _, revision = resolved.hub_id.partition("@")
        cached = _snapshot(name, revision, [*SMALL, "*.safetensors"], offline=True)
        if (
            cached is not None
            and (cached / "config.json").is_file()
            and ((cached / WEIGHTS).is_file() or (cached / INDEX).is_file())
        ):
            return cached
        small = _snapshot(name, revision, SMALL, offline=False)
        assert small is not None
        check_configurations(small)
        whole = _snapshot(name, revision, [*SMALL, "*.safetensors"], offline=False)
        assert whole is not None
        return whole


def _snapshot(name: str, revision: str, patterns: list[str], offline: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The hub's library has changed its HTTP client before; the root of that client's errors is always a parent of its own.
    transport: tuple[type[Exception], ...] = HfHubHTTPError.__bases__  # type: ignore[assignment]
    try:
        return Path(
            snapshot_download(
                name, revision=revision or None, allow_patterns=patterns, ignore_patterns=NEVER, local_files_only=offline
            )
        )
    except LocalEntryNotFoundError:
        if offline:
            return None
        problem, hint = (
            f"'{name}' is neither a folder nor in the local cache, and the hub cannot be reached",
            ("Connect this machine, or copy the base here as a folder and give its path; `--base embedded` needs no network."),
        )
    except GatedRepoError:
        problem, hint = (
            f"the hub gives '{name}' only to accounts that accepted its licence",
            "Accept it on the model's page, then run: hf auth login",
        )
    except RepositoryNotFoundError:
        problem, hint = (
            f"the hub has no model '{name}', or it is private",
            "Check the spelling; for a private one run: hf auth login",
        )
    except RevisionNotFoundError:
        problem, hint = f"the hub's '{name}' has no revision '{revision}'", "Give a branch, a tag or a commit after the @."
    except (HFValidationError, OSError, *transport) as error:
        problem, hint = f"'{name}' could not be fetched ({str(error).splitlines()[0][:200]})", "Try again later."
    raise BaseModelError(problem, where="base", hint=hint)
