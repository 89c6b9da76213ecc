# SPDX-License-Identifier: Apache-2.0
"""Models: create, load (all or a subset of the experts), save, prune, merge; and what is done with one."""
from __future__ import annotations

import ctypes
import json
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

from ._call import Handle, Hooks, call, create, get, make, path_bytes, text, text_bytes
from ._lib import STRUCTS, ctype, library
from ._opt import Options, documented, enum_value, int32_array, integer
from .array import Array
from .enums import CachePolicy, Dtype
from .mask import Mask
from .runtime import Runtime, runtime_or_default
from .source import as_source
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .data import Choices, Dataset
    from .evaluate import ChoiceScores, Evaluation
    from .options import (EvalOptions, ExportOptions, MergeOptions, ModelCreateOptions, ModelLoadOptions, ModelSaveOptions, PruneOptions,
                          SelectOptions, SessionOptions, StatsOptions, TrainOptions)
    from .session import Session
    from .stats import Stats
    from .train import Trainer

    Config = Union[str, Dict[str, Any]]
    Path = Union[str, os.PathLike[str]]
    Documents = Union[str, Dataset, Iterable[Any]]

__all__ = ["CacheEntry", "CacheStats", "ExportInfo", "Model", "ModelInfo", "load"]


class ModelInfo(NamedTuple):
    """What a model is."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    expert_inner: int  #: intermediate size of one expert
    top_k: int  #: experts per token, the shared ones included
    max_positions: int
    eos: Optional[int]
    dtype: Dtype  #: of the matrices as held
    parameters: int  #: of the whole model
    loaded: int  #: parameters in memory or mapped
    active: int  #: parameters used per token
    non_finite: int  #: loaded weights that are NaN or infinite; counted only when asked for
    embedding: int  #: parameters of the token embedding and the head


class CacheStats(NamedTuple):
    """What an expert cache did since the model was loaded; all zero for a model without a memory budget."""

    policy: CachePolicy
    experts: int  #: that come and go
    capacity: int  #: how many of them there is room for
    present: int  #: how many are there now
    bytes: int  #: memory of the places
    hits: int  #: experts that a layer of a pass asked for and that were there
    misses: int  #: and that were not
    read_ahead: int  #: experts read before anything asked for them
    evictions: int  #: experts that gave their place to another
    bytes_read: int  #: of experts, from the source
    read_ns: int  #: time in reads, of all threads
    stall_ns: int  #: time that passes stood still for a read
    failed_reads: int


class CacheEntry(NamedTuple):
    """An expert in the cache, as `cache_worth` sees it."""

    layer: int
    expert: int
    layers_ahead: int  #: layers until its own comes again; 0: the one under way, and more of its rows are to come
    passes_unused: int  #: passes since one used it, 0: the one under way
    passes_unpooled: int  #: passes since one had it in its pool or mask
    steps_unused: int  #: layers of passes since one used it
    uses: float  #: layers of passes that used it, halved from time to time


class ExportInfo(NamedTuple):
    """What Model.export() wrote."""

    tensors: int
    fallbacks: int  #: tensors in Q8_0 because their rows do not divide into the blocks that were asked for
    bytes: int  #: of the file


def _info(struct: Any) -> ModelInfo:
    values = {name: getattr(struct, name) for name in ModelInfo._fields}
    values["eos"] = None if values["eos"] < 0 else values["eos"]
    values["dtype"] = Dtype(values["dtype"])
    return ModelInfo(**values)


def _set_worth(struct: Any, worth: Any) -> object:
    """Options: a function that says what an expert in the cache is worth. What it raises counts as nothing worth."""
    if worth is None:
        return None
    if not callable(worth):
        raise TypeError("cache_worth must be callable")

    def of(_: Any, address: int) -> float:
        try:
            entry = STRUCTS["emo_cache_entry"].from_address(address)
            return float(worth(CacheEntry(*[getattr(entry, name) for name in CacheEntry._fields])))
        except BaseException:
            return float("nan")

    struct.cache_policy = CachePolicy.HOST
    struct.cache_worth.worth = ctype("double (*)(void *, const emo_cache_entry *)")(of)
    return struct.cache_worth.worth


def _config_bytes(config: "Config") -> bytes:
    return (config if isinstance(config, str) else json.dumps(config)).encode("utf-8")


class Model(Handle):
    """A decoder-only transformer: EMO, a standard mixture of experts, or dense.

    Model(config) makes a new one with random weights from a dict or the text of a config.json; Model.load() and
    emo.load() read one. Several sessions of one model may run at once; while a session or a trainer lives, changing the
    model raises emo.Busy.

    Args:
        config: the keys of config.json; missing ones take the reference's defaults
        tokenizer: attached to the model; its vocabulary is the model's where config has no vocab_size
        seed: of the initial weights
    """

    _release = "emo_model_release"

    def __init__(self, config: "Config", *, tokenizer: Optional[Tokenizer] = None, runtime: Optional[Runtime] = None,
                 **options: "Unpack[ModelCreateOptions]") -> None:
        rt = runtime_or_default(runtime)
        if tokenizer is not None and isinstance(config, dict):
            config = dict({"vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eos}, **config)
        hooks = Hooks()
        filled = Options("emo_model_create_options", "emo.Model", options, hooks=hooks)
        raw = _config_bytes(config)
        self._adopt(create(Model, "emo_model_create_json", rt, raw, len(raw), filled.struct, hooks=hooks), rt)
        if tokenizer is not None:
            self.tokenizer = tokenizer

    @classmethod
    @documented("emo_model_load_options")
    def load(cls, path: "Path", *, runtime: Optional[Runtime] = None, **options: "Unpack[ModelLoadOptions]") -> "Model":
        """Loads a folder: config.json, model.safetensors or its shards, and where they are there tokenizer.json and
        pruning_metadata.json; or a GGUF file. With `subset=mask` other experts are never read, with `memory_budget` they
        are read when they are asked for; `cache_worth(entry)` is then a policy of your own: the least gives its place."""
        rt = runtime_or_default(runtime)
        hooks = Hooks()
        filled = Options("emo_model_load_options", "emo.Model.load", options, {"cache_worth": _set_worth}, hooks)
        return make(cls, "emo_model_load_path", rt, path_bytes(path), filled.struct, keep=(rt, *filled.keep), hooks=hooks)

    @classmethod
    @documented("emo_model_load_options")
    def from_sources(cls, config: "Optional[Config]", weights: Iterable[Any], *, tokenizer: Optional[Tokenizer] = None,
                     runtime: Optional[Runtime] = None, **options: "Unpack[ModelLoadOptions]") -> "Model":
        """Loads from memory or open files: the configuration, and the safetensors files in any order, each an
        emo.Source, bytes, a memoryview, or a file with seek() and read(). A GGUF file alone needs no configuration:
        None."""
        rt = runtime_or_default(runtime)
        hooks = Hooks()
        filled = Options("emo_model_load_options", "emo.Model.from_sources", options, {"cache_worth": _set_worth}, hooks)
        sources = [as_source(what, rt) for what in weights]
        raw = None if config is None else _config_bytes(config)
        array = (ctypes.c_void_p * max(len(sources), 1))(*[s._reference.enter("Source") for s in sources])
        try:
            model = make(cls, "emo_model_load_sources", rt, raw, len(raw or b""), array, len(sources), filled.struct,
                         keep=(rt, *sources, *filled.keep), hooks=hooks)
        except BaseException:
            for source in sources:
                source._raise_failed()
            raise
        finally:
            for source in sources:
                source._reference.leave()
        if tokenizer is not None:
            model.tokenizer = tokenizer
        return model

    @staticmethod
    def info_of(config: "Config", *, runtime: Optional[Runtime] = None) -> ModelInfo:
        """What a model of that configuration would be, without making it."""
        raw = _config_bytes(config)
        struct = library().new("emo_model_info")
        call("emo_model_info_json", runtime_or_default(runtime), raw, len(raw), struct)
        return _info(struct)

    @property
    def info(self) -> ModelInfo:
        """Its shape and size."""
        struct = library().new("emo_model_info")
        call("emo_model_get_info", self, struct)
        return _info(struct)

    @property
    def cache_stats(self) -> CacheStats:
        """What the expert cache did; see the option `memory_budget` of load()."""
        struct: Any = library().new("emo_cache_stats")
        call("emo_model_get_cache_stats", self, struct)
        values = {name: getattr(struct, name) for name in CacheStats._fields}
        return CacheStats(**{**values, "policy": CachePolicy(values["policy"])})

    def count_non_finite(self, *, progress: Optional[Callable[[str, int, int], object]] = None) -> int:
        """Loaded weights that are NaN or infinite; reads every weight."""
        hooks = Hooks(progress)
        struct: Any = library().new("emo_model_info")
        struct.non_finite = 1
        hooks.fill(struct.progress)
        call("emo_model_get_info", self, struct, hooks=hooks)
        return int(struct.non_finite)

    @property
    def config(self) -> Dict[str, Any]:
        """The configuration it would be saved with."""
        found: Dict[str, Any] = json.loads(text("emo_model_config_json", self))
        return found

    @property
    def experts(self) -> List[int]:
        """Experts of every layer, shared ones included; 0: a dense layer."""
        return [int(get("emo_model_experts", self, layer)) for layer in range(self.info.layers)]

    @property
    def shared(self) -> List[int]:
        """How many of them are shared."""
        return [int(get("emo_model_shared", self, layer)) for layer in range(self.info.layers)]

    def original_expert(self, layer: int, expert: int) -> int:
        """The id an expert had in the model this one was pruned from, through all prunings."""
        found = int(get("emo_model_original_expert", self, integer("int32_t", layer, "layer"),
                        integer("int32_t", expert, "expert")))
        if found < 0:
            raise IndexError("no expert %d in layer %d" % (expert, layer))
        return found

    @property
    def tokenizer(self) -> Optional[Tokenizer]:
        """The tokenizer beside the model, or attached to it; None: none. Set it to attach another."""
        attached: Optional[Tokenizer] = getattr(self, "_tokenizer", None)
        if attached is not None and not attached.closed:
            return attached
        address = get("emo_model_tokenizer", self)
        if not address:
            return None
        # The library lends it; a copy of one's own can be kept whatever becomes of the model.
        found = Tokenizer.from_json(_borrowed_json(address), runtime=self._keep[0])  # type: ignore[arg-type]
        eos = library().emo_tokenizer_eos(address)
        found.eos = None if eos < 0 else eos
        self._tokenizer: Optional[Tokenizer] = found
        return found

    @tokenizer.setter
    def tokenizer(self, tokenizer: Optional[Tokenizer]) -> None:
        call("emo_model_set_tokenizer", self, tokenizer)
        self._tokenizer = tokenizer

    @property
    def compute(self) -> Dtype:
        """The element type of products: Dtype.F32, or Dtype.BF16 for bf16 operands with f32 sums. Set it to change it."""
        return Dtype(get("emo_model_compute", self))

    @compute.setter
    def compute(self, compute: Union[Dtype, int, str]) -> None:
        call("emo_model_set_compute", self, enum_value("emo_dtype", compute, "compute"))

    def to(self, device: str) -> "Model":
        """Moves the weights to a device: "cpu", or one that a plug-in brought (emo.Runtime.load_backend), such as "cuda"
        or "cuda:1"; gives the model back. Sessions, trainers and evaluations made from then on run there."""
        call("emo_model_to_device", self, text_bytes(device, "device"))
        return self

    def mask(self) -> Mask:
        """A mask with every expert of this model on; of a model loaded in part, those that are there."""
        return make(Mask, "emo_model_mask", self, keep=self._keep)

    def tensor(self, name: str) -> Array:
        """A copy of one tensor, f32 [elements] in row-major order; names are the reference's."""
        count = ctypes.c_size_t()
        raw = text_bytes(name, "name")
        call("emo_model_tensor_f32", self, raw, None, 0, ctypes.byref(count))
        out = Array("f32", (count.value,))
        call("emo_model_tensor_f32", self, raw, out.address, count.value, ctypes.byref(count))
        return out

    @documented("emo_model_save_options")
    def save(self, folder: "Path", **options: "Unpack[ModelSaveOptions]") -> None:
        """Writes a folder that libemo and transformers load, each file atomically."""
        hooks = Hooks()
        filled = Options("emo_model_save_options", "emo.Model.save", options, hooks=hooks)
        call("emo_model_save", self, path_bytes(folder), filled.struct, hooks=hooks)

    @documented("emo_export_options")
    def export(self, path: "Path", **options: "Unpack[ExportOptions]") -> ExportInfo:
        """Writes one file for other programs: GGUF, with weights as they are or quantised (dtype="q4_k" ...)."""
        hooks = Hooks()
        filled = Options("emo_export_options", "emo.Model.export", options, hooks=hooks)
        struct: Any = library().new("emo_export_info")
        call("emo_model_export", self, path_bytes(path), filled.struct, struct, hooks=hooks)
        return ExportInfo(struct.tensors, struct.fallbacks, struct.bytes)

    @documented("emo_prune_options")
    def prune(self, mask: Optional[Mask] = None, **options: "Unpack[PruneOptions]") -> "Model":
        """A smaller model with the mask's experts only; or with those of `keep`, a list of ids for each layer."""
        hooks = Hooks()

        def set_keep(struct: Any, rows: Optional[Sequence[Sequence[int]]]) -> object:
            if rows is None:
                return None
            offsets = [0]
            for ids in rows:
                offsets.append(offsets[-1] + len(ids))
            o_array = int32_array(offsets, "keep")
            k_array = int32_array([i for ids in rows for i in ids], "keep")
            if len(rows) != self.info.layers:
                raise ValueError("keep has %d layers, the model %d" % (len(rows), self.info.layers))
            struct.keep, struct.keep_offsets = ctypes.addressof(k_array), ctypes.addressof(o_array)
            return o_array, k_array

        filled = Options("emo_prune_options", "emo.Model.prune", options, {"keep": set_keep}, hooks)
        return make(Model, "emo_model_prune", self, mask, filled.struct, keep=self._keep, hooks=hooks)

    @documented("emo_merge_options")
    def merge(self, child: "Model", **options: "Unpack[MergeOptions]") -> "Model":
        """A copy of this model with the routed experts of a pruned (and tuned) child back at their original ids."""
        hooks = Hooks()
        filled = Options("emo_merge_options", "emo.Model.merge", options, hooks=hooks)
        return make(Model, "emo_model_merge", self, child, filled.struct, keep=self._keep, hooks=hooks)

    # What the other modules do with a model.

    def session(self, **options: "Unpack[SessionOptions]") -> "Session":
        """A session: emo.Session(model, **options)."""
        from .session import Session

        return Session(self, **options)

    def generate(self, prompt: Union[str, Sequence[int]], tokens: int = 0,
                 **options: "Unpack[SessionOptions]") -> Iterator[str]:
        """Continues a prompt in a session of its own; gives the text in pieces as it comes.

        Args:
            tokens: how many to generate at most; 0: up to eos or max_positions
        """
        from .session import Session

        options.setdefault("max_tokens", tokens)
        return Session(self, **options).generate(prompt)

    def select(self, calibration: "Optional[Documents]" = None, **options: "Unpack[SelectOptions]") -> Mask:
        """Chooses `keep` experts per layer for a text, several, or a Dataset: see emo.select.select()."""
        from .select import select

        return select(self, calibration, **options)

    def stats(self, documents: "Documents", **options: "Unpack[StatsOptions]") -> "Stats":
        """Router statistics over documents: see emo.Stats.collect()."""
        from .stats import Stats

        return Stats.collect(self, documents, **options)

    def evaluate(self, documents: "Documents", *, per_document: bool = False,
                 **options: "Unpack[EvalOptions]") -> "Evaluation":
        """Loss on documents, in all and by domain: see emo.evaluate.documents()."""
        from .evaluate import documents as run

        return run(self, documents, per_document=per_document, **options)

    def evaluate_choices(self, items: "Choices", **options: "Unpack[EvalOptions]") -> "ChoiceScores":
        """Accuracy on multiple-choice items: see emo.evaluate.choices()."""
        from .evaluate import choices as run

        return run(self, items, **options)

    def logits(self, tokens: Any, **options: "Unpack[EvalOptions]") -> Array:
        """Logits of every position of one sequence, f32 [tokens, vocab]."""
        from .evaluate import logits as run

        return run(self, tokens, **options)

    def train(self, data: "Dataset", **options: "Unpack[TrainOptions]") -> "Trainer":
        """A trainer of this model: emo.Trainer(model, data, **options)."""
        from .train import Trainer

        return Trainer(self, data, **options)

    def __repr__(self) -> str:
        if self.closed:
            return "<emo.Model closed>"
        info = self.info
        return "<emo.Model of %d layers, %d parameters, %d active>" % (info.layers, info.parameters, info.active)


def _borrowed_json(address: int) -> str:
    return text("emo_tokenizer_to_json", address, terminated=False)


def load(what: "Path", *, runtime: Optional[Runtime] = None, **options: "Unpack[ModelLoadOptions]") -> Model:
    """Loads a model: emo.Model.load(folder, **options)."""
    return Model.load(what, runtime=runtime, **options)


