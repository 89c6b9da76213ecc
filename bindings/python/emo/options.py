# SPDX-License-Identifier: Apache-2.0
# Written by generate.py from the C headers. Do not edit.
"""The options of every call as types, for editors and type checkers. Each is a keyword of the call,
with the name, the default and the meaning of the field in C."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence, TypedDict, Union

if TYPE_CHECKING:
    from .comm import Comm
    from .data import Dataset
    from .mask import Mask
    from .pool import Pool
    from .runtime import Allocator, Executor
    from .train import StepMetrics

Path = Union[str, "os.PathLike[str]"]
#: progress(phase, done, total): how far a long call is; a true result cancels it
Progress = Callable[[str, int, int], object]


class DatasetOptions(TypedDict, total=False):
    """Options of emo_dataset_open()."""

    skip_broken: int  # 1: leave out documents that cannot be read, and count them; 0: they are errors
    max_documents: int  # stop after so many (of the wanted domain); 0: all
    domain: Optional[Path]  # only documents of this domain; NULL: all
    cache_dir: Optional[Path]  # folder for the tokenised form, used again by later calls; NULL: keep it in memory
    token_type: Union[int, str]  # of token files without .npy header; EMO_TOKENS_AUTO
    eos: int  # end-of-text id that ends documents when they are packed; -1: the tokenizer's
    progress: Optional[Progress]  # phase "tokenize", units are bytes of the files (0 in all where not known)
    mix_root: Optional[Path]  # folder that the paths of mix files begin in; NULL: the mix file's own
    mix_tokenizer: Optional[Path]  # stands for {TOKENIZER} in the paths of mix files; NULL: allenai/dolma2-tokenizer


class EvalOptions(TypedDict, total=False):
    """Options of emo_eval_documents() and emo_eval_choices()."""

    seq_len: int  # window in tokens; 0: the training row length stored with the model, else max_positions
    mask: Optional[Mask]  # run-time restriction; NULL: none
    pool: Union[Pool, str, None]  # pool chosen from each window of a document; NULL: none
    batch_tokens: int  # tokens per forward pass; 0: 4096
    progress: Optional[Progress]


class ExportOptions(TypedDict, total=False):
    """Options of emo_model_export()."""

    format: Union[int, str]  # EMO_EXPORT_GGUF
    dtype: Union[int, str]  # -1: as held; F32, F16, BF16, Q8_0, Q4_0 or Q4_K. Norms and routers are F32 in any case; with a 4-bit type the head is Q8_0, and so is a matrix whose rows 256 does not divide
    no_tokenizer: int  # 1: without the tokenizer
    mask: Optional[Mask]  # only these experts, as emo_model_prune() keeps them; NULL: all that are loaded
    name: Optional[Path]  # the model's name in the file; NULL: "emo"
    progress: Optional[Progress]  # phase "export", tensors
    head: Union[int, str]  # type of the head instead of what `dtype` makes of it; -1: as `dtype` says. So the next
    embedding: Union[int, str]  # the token embedding
    attention: Union[int, str]  # the projections around attention
    shared: Union[int, str]  # the shared experts, which every token uses


class MaskOptions(TypedDict, total=False):
    """Shape and start value of a mask with always-active experts; see emo_mask_create_with()."""

    layers: int  # number of layers, 1 to 65536, dense ones included
    experts: Any  # [layers] experts, shared ones included; 0: a dense layer; at most 1048576
    shared: Any  # [layers] shared experts, at most `experts`; NULL: none
    always: Any  # ids of always-active experts, layer after layer
    full: int  # non-zero: start with every expert on; 0: only shared and always-active ones


class ModelCreateOptions(TypedDict, total=False):
    """Options of emo_model_create_json()."""

    compute: Union[int, str]  # as in emo_model_load_options; EMO_DTYPE_F32
    seed: int  # of the initial weights: normal, std initializer_range, cut at 3 std
    progress: Optional[Progress]  # phase "initialise", tensors


class ModelLoadOptions(TypedDict, total=False):
    """Options of the load functions."""

    dtype: Union[int, str]  # -1: keep the file's (weights stay in the mapped file where possible); else convert
    subset: Optional[Mask]  # load subset: other experts are never read; NULL: all. Copied. The model's mask from then on; shared and always-active experts are loaded in any case
    no_map: int  # 1: read into memory instead of using the mapped file
    compute: Union[int, str]  # EMO_DTYPE_F32, EMO_DTYPE_BF16: see emo_model_set_compute(); -1: BF16 when matrices stay quantised (they are several times as fast in it), else F32
    progress: Optional[Progress]
    pruning: Optional[Path]  # text of a pruning_metadata.json (the original ids of a pruned model), for sources; NULL: none, or the folder's
    memory_budget: int  # bytes for experts that not every token uses, see cache.h; 0: no budget, all of them
    cache_policy: Union[int, str]  # with memory_budget; EMO_CACHE_POOL
    no_prefetch: int  # 1: with memory_budget, no thread that reads ahead
    drop_source: int  # 1: with memory_budget, the system is told to forget a file's bytes once they were read, so that they take no memory besides; 0: it keeps them while it has room
    cache_worth: Any  # with EMO_CACHE_HOST; ctx must live as long as the model


class ModelSaveOptions(TypedDict, total=False):
    """Options of emo_model_save()."""

    dtype: Union[int, str]  # -1: as held; F32, BF16 or F16
    shard_bytes: int  # largest shard; 0: 5 GB
    progress: Optional[Progress]
    extended: int  # 1: also what the reference's configuration has no key for (sigmoid gating, a score bias), under a model_type that its code does not take for its own; 0: such models are refused


class PruneOptions(TypedDict, total=False):
    """Options of emo_model_prune()."""

    method: Optional[Path]  # recorded in pruning_metadata.json; NULL: "mask"
    keep: Optional[Sequence[Sequence[int]]]  # instead of a mask (then NULL): ids to keep, layer after layer; unlike a mask they may leave shared experts out (then more routed ones are used per token)
    progress: Optional[Progress]  # phase "copy", units are tensors


class MergeOptions(TypedDict, total=False):
    """Options of emo_model_merge(): what a tuned subset gives back to its parent."""

    router: int  # also the gate rows of all kept experts
    shared: int  # also the shared experts
    rest: int  # also every tensor outside the MoE blocks
    average: float  # weight a of the child: parent = (1 - a) parent + a child, in [0, 1]; 1 replaces (default)
    progress: Optional[Progress]  # phases "copy" (tensors) and "merge" (layers)


class RouterOptions(TypedDict, total=False):
    """Options of emo_router_create(). hidden, experts and top_k must be set."""

    hidden: int  # 1 to 1048576
    experts: int  # E, shared ones included; 1 to 65536
    shared: int  # H, 0 to E - 1
    top_k: int  # K, shared (or always-active) ones included; k = K - H in 1 .. n
    gating: Union[int, str]  # default EMO_ROUTER_SOFTMAX
    shared_mode: Union[int, str]  # default EMO_ROUTER_SHARED_ONE
    norm_p: float  # > 0: chosen weights are divided by their p-norm (1: sum to one); default 0: not
    jitter: float  # x times uniform noise in [1 - jitter, 1 + jitter], training only; 0 to below 1
    always: Sequence[int]  # [n_always] ids, ascending; copied
    balance_weight: float  # of the load-balancing loss; default 0.1
    z_weight: float  # of the z-loss; default 0.001
    balance_scope: Union[int, str]  # default EMO_BALANCE_MICROBATCH
    balance_window: int  # steps of EMO_BALANCE_WINDOW, 1 to 65536; default 1
    layer: int  # the layer this router stands for: in random draws, masks and pool tables; default 0
    seed: int  # of pools and jitter; default 0
    comm: Optional[Comm]  # counts and loss divisors are summed over its ranks; retained; NULL: one rank


class RouterBatch(TypedDict, total=False):
    """The input of emo_router_forward(). Pointers are borrowed until backward has run or the next forward begins."""

    mode: Union[int, str]  # default EMO_ROUTER_TRAIN
    rows: int  # rows of packed tokens
    seq_len: int  # tokens per row; rows * seq_len tokens in all, below 2^31 / K
    first_document: int  # default 0
    step: int  # training step, key of the random draws; default 0
    loss_div_factor: float  # N of this rank's whole batch, all micro-batches; 0: the tokens of this call
    microbatch: int  # which micro-batch of the step this is; default 0
    microbatches: int  # of how many; default 1
    first_token: int  # number of the first token in the step over all micro-batches and ranks, the key of the jitter; default 0


class RuntimeOptions(TypedDict, total=False):
    """Options of emo_runtime_create(). Zeroed hooks mean the library's own."""

    threads: int  # workers of the library's pool, 1..1024; 0: the CPUs this process may use
    isa: Union[int, str]  # highest level to use; EMO_ISA_AUTO: the best the machine has
    allocator: Optional[Allocator]  # alloc NULL: malloc
    log: Optional[Callable[[int, str], object]]  # log NULL: silent
    executor: Optional[Executor]  # parallel_for NULL: the library's own pool, which parks and never spins for long
    libraries: Optional[Path]  # folder of the libraries that plug-ins open themselves (cuBLASLt), and only there; NULL: beside the plug-in, then where the dynamic linker looks


class SelectOptions(TypedDict, total=False):
    """Options of emo_select()."""

    method: Union[int, str]
    keep: int  # experts kept per MoE layer, the shared ones included; required
    keep_shared: int  # how many of them are shared: -1 all (default); fewer: the best ones (a mask cannot say that: emo_select_experts() only)
    seed: int  # of EMO_SELECT_RANDOM
    seq_len: int  # as emo_stats_options
    prepend_eos: int  # as emo_stats_options
    progress: Optional[Progress]


class SessionOptions(TypedDict, total=False):
    """Options of emo_session_create()."""

    sequences: int  # 1..1024; 1
    capacity: int  # tokens per sequence, prompt included; 0: max_positions (grown on demand)
    max_tokens: int  # generated per sequence after each append; 0: up to the capacity; -1: none
    mask: Optional[Mask]  # copied; NULL: every loaded expert
    pool: Union[Pool, str, None]  # a policy of EMO_POOL_SCOPE_PROMPT (retained): per layer, the pool is chosen inside the mask from all tokens of a sequence that are there when its work begins, then frozen until the session is reset; NULL: none
    temperature: float  # 0: greedy; 0
    top_k: int  # 0: off
    top_p: float  # (0, 1]; 1: off
    min_p: float  # [0, 1]; 0: off
    repetition_penalty: float  # > 0; 1: off
    repetition_window: int  # last tokens the penalty looks at; 0: all
    seed: int
    ignore_eos: int
    prepend_eos: int  # 1: an empty sequence begins with eos when text is appended, as in training (default)
    stop: Union[str, Sequence[str]]  # stop strings (UTF-8, 1..4096 bytes, at most 256), copied: text ends before the one that is complete first; text that may become one is held back
    progress: Optional[Progress]  # also called during long prompts and the encoding of long texts; non-zero cancels that call, not the session
    batch_sequences: int  # 0..1024, sequences in a batch; 0: all that have work
    batch_tokens: int  # 1..65536, tokens in a batch, at least one of each of its sequences; more only for a prompt that is to choose its pool; 512
    batching: Union[int, str]
    max_wait: int  # 1..1048576, batches that a sequence with work is left out of at most, one after the other; more only where the sequences with work are more than so many batches hold, while no page is free for it, and for prompts that choose their pools, which go whole; 16
    page_tokens: int  # tokens of a page of the cache, a power of two, 1..4096; 64
    share_prefix: int  # 1: without a pool policy, a sequence that begins like another one, and may use the same experts, reads that one's pages as far as they are full (default)
    count_experts: int  # 1: the statistics count the experts that batches read; 0
    no_graph: int  # 1: a device launches every batch anew, also where it could replay a graph of it; 0
    cache_bytes: int  # bytes of all pages; no sequence gets longer than they hold. Sequences wait for pages; those that came last give theirs back, when older ones need them, and are computed anew later. 0: as many as all sequences need at most (grown on demand)


class SequenceOptions(TypedDict, total=False):
    """What a sequence has of its own."""

    max_tokens: int  # this field and the next ones: as in emo_session_options
    mask: Optional[Mask]  # copied; the sequence uses what both it and the session's mask allow; NULL: the latter
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    repetition_window: int
    seed: int  # draws are those of sequence 0 in a session of its own with this seed
    ignore_eos: int


class StatsOptions(TypedDict, total=False):
    """Options of emo_stats_collect()."""

    easy_ep: int  # also collect EASY-EP scores (refused with always-active experts)
    mask: Optional[Mask]  # run-time restriction; NULL: none (with a load subset: that)
    seq_len: int  # window of tokens a document is cut into; 0: whole documents up to max_positions
    prepend_eos: int  # 1: each document begins with eos, as in training rows (default)
    progress: Optional[Progress]


class TaskSetOptions(TypedDict, total=False):
    """Options of emo_task_set_open()."""

    limit: int  # items of each task at most, whatever its file says; 0: as it says
    root: Optional[Path]  # folder that relative paths of data files begin in; NULL: the task file's own
    progress: Optional[Progress]  # phase "read tasks", units are tasks of the file


class TaskRunOptions(TypedDict, total=False):
    """Options of emo_task_run()."""

    method: Union[int, str]  # of the subsets in `keep`: usage (default), layerwise, EASY-EP or random
    keep: Sequence[int]  # [n_keep] columns: experts kept per MoE layer, shared ones included; 0: all
    masks: Sequence[Mask]  # [n_masks] columns after those, the same mask for every task
    random: int  # after each subset a column of the control: so many random subsets of its size, scores over all of them; 0: none
    seq_len: int  # most tokens of a context with its continuation, as emo_eval_options
    examples: int  # validation items that experts are chosen from, at most; drawn by `seed` as emo_dataset_filter() does; 0: all
    seed: int  # of that draw and of random subsets
    sequences: int  # items worked on at once, 1 to 1024: memory against speed, never results; 0: by size
    batch_tokens: int  # tokens per forward pass; 0: 2048
    progress: Optional[Progress]  # phase "evaluate tasks", units are items of all columns; also called inside of them


class TokenizerEncodeOptions(TypedDict, total=False):
    """Options of emo_tokenizer_encode_with()."""

    parse_special: int  # 0: special tokens in the text are plain text; 1: they become their ids (trusted text only)
    add_special: int  # 1: what the file's post-processor puts around a text (begin and end marks) is added
    progress: Optional[Progress]  # for texts above 64 KiB: phase "tokenize", bytes; report NULL: none


class DecoderOptions(TypedDict, total=False):
    """Options of emo_decoder_create()."""

    skip_special: int  # 1: special tokens give no text; 0: they are spelled out (default)


class TokenizerTrainOptions(TypedDict, total=False):
    """Options of emo_tokenizer_train()."""

    vocab_size: int  # tokens in all, with the 256 bytes and the end-of-text token: 257..4194304; 8192
    min_frequency: int  # a pair that occurs less often is not merged, at least 1; 2
    max_bytes: int  # stop reading after the text in which so many bytes are reached; 0: read everything
    eos: Optional[Path]  # the end-of-text token, UTF-8, not empty; NULL: EMO_TOKENIZER_EOS
    pattern: Optional[Path]  # the regular expression that cuts words; NULL: the one of cl100k
    progress: Optional[Progress]  # phases "count words" (bytes) and "merge" (merges); report NULL: none


class TrainOptions(TypedDict, total=False):
    """Options of emo_trainer_create()."""

    schedule: Union[int, str]  # EMO_SCHEDULE_COSINE
    pool: Union[Pool, str, None]  # NULL: none, a standard MoE
    balance_scope: Union[int, str]  # EMO_BALANCE_BATCH
    balance_window: int  # steps, for EMO_BALANCE_WINDOW; 30
    balance_weight: float  # 0.1, divided by the number of layers
    z_weight: float  # 0.001, divided by the number of layers
    lm_z_weight: float  # 1e-5
    lr: float  # peak, 4e-3
    beta1: float  # 0.9
    beta2: float  # 0.95
    eps: float  # 1e-8
    weight_decay: float  # 0.1, on everything but the token embedding
    max_grad_norm: float  # 1; 0: no clipping
    alpha_f: float  # final learning rate over peak, 0.1
    warmup_min_lr: float  # 0
    decay_min_lr: float  # wsd: 0
    warmup: int  # steps; -1: 5 % of the run, at most 2000
    decay: int  # wsd: steps of the final decay; -1: 10 % of the run
    max_steps: int  # one of max_steps, max_tokens, max_minutes is required for emo_trainer_run()
    max_tokens: int
    max_minutes: float  # a short calibration turns it into a number of steps, which is stored
    batch_rows: int  # rows a step over all ranks, 12
    accumulate: int  # micro-batches a step, 1; divides batch_rows / ranks
    seq_len: int  # tokens a row, 256
    train_only: Union[int, str]  # EMO_TRAIN_ALL
    seed: int  # order of documents, pools
    checkpoint_every: int  # steps; 0: only at the end
    keep_checkpoints: int  # 2
    optimizer_on: Union[int, str]  # EMO_OPTIMIZER_DEVICE
    valid_every: int  # steps; 0: at the end only
    out: Optional[Path]  # folder of the run; NULL: nothing is written
    resume: int  # continue from `out`; a folder without a run starts fresh
    profile: int  # 1: keep the time of each part for emo_trainer_profile(); 0
    valid: Optional[Dataset]  # NULL: no validation
    mask: Optional[Mask]  # train the model restricted to these experts (see emo_mask); NULL: all
    comm: Optional[Comm]  # NULL: a single rank
    progress: Optional[Progress]  # non-zero cancels: the creation, between micro-batches, a validation, a checkpoint (phase "checkpoint", tensors; the one before stays)
    on_step: Callable[[StepMetrics], object]  # after each step; non-zero stops with EMO_E_CANCELLED
    gating: Union[int, str]  # how scores are made from logits; -1: as the model does. Else the model does so from here on, also when it is saved, loaded and run
    score_bias_rate: float  # > 0: after each step, bias += rate * sign(mean(counts) - counts) over the experts of the mask; the model gets a score bias if it has none. 0: no update
    jitter: float  # the router's input times uniform noise in [1 - jitter, 1 + jitter]; 0: none
    repetition_count: int  # a row that holds some span of up to repetition_period tokens so often in a row is left out of the loss, though its tokens count as trained; 0: no filter, else 2 or more (the reference: 32)
    repetition_period: int  # 13
    recompute: Union[int, str]  # EMO_RECOMPUTE_NONE
    no_graph: int  # 1: a device launches every step anew, also where it could replay a graph of it; 0


class TrainPlanOptions(TypedDict, total=False):
    """What planning is for; see emo_train_plan_json()."""

    compute: Union[int, str]  # as of the model that would be trained: EMO_DTYPE_F32 or EMO_DTYPE_BF16
    device: Optional[Path]  # "cuda", "cuda:1"; NULL: "cpu"
    plugin: Optional[Path]  # absolute path of the device's plug-in, where it is not loaded: then neither a device nor a driver needs to be there; NULL: the device is loaded


class BenchOptions(TypedDict, total=False):
    """What is timed, and the shape of it."""

    kind: Union[int, str]
    device: Optional[Path]  # NULL: "cpu"
    weights: Union[int, str]  # F32; F16, BF16, or forward Q8_0, Q4_0, Q4_K
    compute: Union[int, str]  # F32 or BF16
    backward: int  # 1: the backward pass
    experts: int  # all of them, of which the last is shared; 33
    top_k: int  # experts a token, the shared one included; 4
    heads: int  # 8; divides hidden into an even number
    tokens: int  # 512
    hidden: int  # 256
    inner: int  # of an expert and of SWIGLU; the outputs of LINEAR; 128
    vocab: int  # 8192
    document: int  # tokens of a document, the last one may be shorter; 0: all tokens are one
    past: int  # of ATTENTION, one document, forward: keys before those of the tokens; 0
    bytes: int  # of READ, a multiple of 4 MiB; 512 MiB
