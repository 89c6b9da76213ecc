# SPDX-License-Identifier: Apache-2.0
"""Run folders: what a trainer with `out=` left there, and how to go on."""
from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Union

from .model import Model
from .runtime import Runtime

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import ModelLoadOptions

__all__ = ["Run"]


class Run:
    """A folder that Trainer(out=...) or `emo train --out` wrote: the exported model with the run beside it.

    To go on with a run, give the trainer the same options and resume=1.
    """

    def __init__(self, folder: "Union[str, os.PathLike[str]]") -> None:
        self.folder = pathlib.Path(folder)
        if not (self.folder / "state").is_dir():
            raise FileNotFoundError("%s holds no run: it has no folder state" % self.folder)

    def metrics(self) -> Iterator[Dict[str, Any]]:
        """The metrics of every step so far, with the names of StepMetrics."""
        with open(self.folder / "metrics.jsonl", encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # the last one may be in the middle of being written
                    yield json.loads(line)

    @property
    def checkpoints(self) -> List[pathlib.Path]:
        """The folders of the checkpoints, oldest first; each is a model folder."""
        found = [p for p in (self.folder / "state").glob("step-*") if p.name[5:].isdigit()]
        return sorted(found, key=lambda p: int(p.name[5:]))

    @property
    def latest(self) -> Optional[pathlib.Path]:
        """The newest complete checkpoint; None when there is none."""
        name = self.folder / "state" / "latest"
        return self.folder / "state" / name.read_text(encoding="utf-8").strip() if name.exists() else None

    def model(self, *, runtime: Optional[Runtime] = None, **options: "Unpack[ModelLoadOptions]") -> Model:
        """The model as of the last checkpoint."""
        return Model.load(self.folder, runtime=runtime, **options)
