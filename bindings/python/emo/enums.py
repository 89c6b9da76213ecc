# SPDX-License-Identifier: Apache-2.0
# Written by generate.py from the C headers. Do not edit.
"""The constants of the C interface. Members are integers; options also take their names in
lower case: schedule="cosine"."""
import enum

__all__ = [
    "Status",
    "ErrorDomain",
    "Dtype",
    "CachePolicy",
    "TokenType",
    "DeviceKind",
    "ExportFormat",
    "LogLevel",
    "PoolScope",
    "PoolKind",
    "RouterGating",
    "RouterSharedMode",
    "BalanceScope",
    "RouterMode",
    "Isa",
    "SelectMethod",
    "State",
    "Batching",
    "StopReason",
    "TaskType",
    "TaskColumnKind",
    "Schedule",
    "TrainOnly",
    "Recompute",
    "OptimizerOn",
    "TrainPart",
    "BenchKind",
]


class Status(enum.IntEnum):
    """The result of a call."""

    OK = 0  # success
    INVALID_ARGUMENT = -1  # an argument is invalid
    OUT_OF_MEMORY = -2  # out of memory
    IO = -3  # reading or writing failed
    NOT_FOUND = -4  # not found
    FORMAT = -5  # malformed data
    UNSUPPORTED = -6  # not supported
    BUSY = -7  # the object is in use by another thread
    CANCELLED = -8  # cancelled by the caller
    MISMATCH = -9  # the objects do not fit together
    RANGE = -10  # an option is out of range
    EXISTS = -11  # it exists already
    LIMIT = -12  # a limit was exceeded
    BACKEND = -13  # the back end failed
    NUMERIC = -14  # a number is not finite
    COMM = -15  # communication between ranks failed
    INTERNAL = -16  # internal error, please report it


class ErrorDomain(enum.IntEnum):
    """Where an error came from; informative."""

    NONE = 0
    ARGUMENT = 1  # the call itself
    SYSTEM = 2  # the operating system; `number` is errno
    FILE = 3  # the contents of a file; `number` is a byte offset or a line, see the message
    BACKEND = 4  # a back end; `number` is its own code


class Dtype(enum.IntEnum):
    """Element types. Gaps are for growth."""

    F32 = 0
    F16 = 1
    BF16 = 2
    U8 = 16
    I32 = 17
    I64 = 18
    F64 = 19
    Q8_0 = 32  # weights only: blocks of 32, 8 bits and one f16 scale
    Q4_0 = 33  # weights only: blocks of 32, 4 bits and one f16 scale
    Q4_K = 34  # weights only: blocks of 256, 4 bits, 6-bit scales and offsets for every 32


class CachePolicy(enum.IntEnum):
    """Which expert gives its place to another."""

    POOL = 0  # the one longest neither used nor in the pool or mask of a pass; among equals (a pool larger than the cache) the one whose layer comes last. The default
    LRU = 1  # the one longest not used
    LFU = 2  # the one least often used; counts are halved from time to time
    HOST = 3  # the one that emo_cache_worth gives the least


class TokenType(enum.IntEnum):
    """Element type of token files that do not say it themselves."""

    U16 = 0
    U32 = 1
    AUTO = 2  # the smaller one that holds the vocabulary


class DeviceKind(enum.IntEnum):
    """What a device is."""

    OTHER = 0
    CPU = 1
    CUDA = 16  # an NVIDIA GPU


class ExportFormat(enum.IntEnum):
    """File formats of emo_model_export()."""

    GGUF = 1


class LogLevel(enum.IntEnum):
    """Constants of emo_log_level."""

    ERROR = 0
    WARNING = 1
    INFO = 2
    DEBUG = 3


class PoolScope(enum.IntEnum):
    """Whose tokens share a pool."""

    DOCUMENT = 0  # each document of a packed row; the default
    ROW = 1  # each row, whatever documents it holds
    PROMPT = 2  # the prompt chooses, and the generated tokens keep the choice


class PoolKind(enum.IntEnum):
    """What kind of policy it is."""

    NONE = 0  # no pool: every expert
    FIXED = 1  # `min` experts
    UNIFORM = 2  # uniform in [min, max], both included
    MASS = 3  # by probability mass, clamped to [min, max]
    SCHEDULED = 4  # from all experts down to `min` over decay_steps
    TABLE = 5  # sizes given one by one


class RouterGating(enum.IntEnum):
    """How scores are made from logits."""

    SOFTMAX = 0
    SIGMOID = 1


class RouterSharedMode(enum.IntEnum):
    """The weight of shared experts: 1 each (as in EMO's training), or a softmax over their own logits (as in the Hugging Face inference model; the two differ from two shared experts on)."""

    ONE = 0
    SOFTMAX = 1


class BalanceScope(enum.IntEnum):
    """Over what the load-balancing loss counts tokens."""

    MICROBATCH = 0  # the micro-batch, over all ranks (as the reference does)
    BATCH = 1  # the micro-batches of the step so far, and the previous step's for those to come
    WINDOW = 2  # mean over the last N steps, this one included; N = 1 is BATCH
    DOCUMENT = 3  # each document over its own pool, then the mean


class RouterMode(enum.IntEnum):
    """Training draws pools and computes losses; evaluation uses the policy's evaluation pool and computes none."""

    TRAIN = 0
    EVAL = 1


class Isa(enum.IntEnum):
    """Instruction-set levels of the CPU back end. A level never exceeds what the machine has."""

    AUTO = 0
    SCALAR = 1
    NEON = 16
    NEON_DOT = 20  # with dot products of 8 bits
    NEON_BF16 = 24  # with those and bf16
    AVX2 = 32
    AVX512 = 48
    AVX512_VNNI = 52  # with whole numbers of 8 bits
    AVX512_BF16 = 56  # with that and bf16; chosen by itself where it is faster than AVX-512 without
    AMX = 64  # AMX tiles, where the system lets the process have them


class SelectMethod(enum.IntEnum):
    """Constants of emo_select_method."""

    USAGE = 0  # largest mean router probability, all layers from one pass of the full model
    LAYERWISE = 1  # the same, each layer in the model whose earlier layers are already restricted
    EASY_EP = 2  # EASY-EP: gate * output norm * how much the block turns the token
    RANDOM = 3  # the control


class State(enum.IntEnum):
    """How far emo_session_advance() came."""

    PENDING = 0  # the budget is used up; call again
    TEXT = 1  # new output of at least one sequence: tokens, and text unless it is held back
    DONE = 2  # nothing is left to do and all output was reported; appending starts it again


class Batching(enum.IntEnum):
    """Which sequences a batch takes, when more have work than fit. Results are the same with each."""

    ARRIVAL = 0  # those that have waited longest, in the order in which their work came
    POOL = 1  # the one that has waited longest, then one after the other the one that adds the fewest experts to what the batch reads (by the pools and masks of sequences, else by the experts they used lately), as long as the bytes read per sequence do not grow


class StopReason(enum.IntEnum):
    """Why a sequence stopped."""

    NONE = 0  # it has not
    EOS = 1  # it generated eos
    LENGTH = 2  # max_tokens or the capacity
    STRING = 3  # a stop string; the tokens that spell it remain in the sequence
    CANCELLED = 4  # emo_session_cancel()


class TaskType(enum.IntEnum):
    """Constants of emo_task_type."""

    CHOICE = 0  # the likeliest of several continuations
    GENERATION = 1  # a text generated greedily, compared with the right answers
    PERPLEXITY = 2  # how likely a text is


class TaskColumnKind(enum.IntEnum):
    """Constants of emo_task_column_kind."""

    ALL = 0  # every expert
    SUBSET = 1  # `keep` experts by the run's method, chosen for each task
    RANDOM = 2  # `keep` experts drawn by the seed
    MASK = 3  # the mask of index `mask`


class Schedule(enum.IntEnum):
    """Constants of emo_schedule."""

    COSINE = 0
    LINEAR = 1
    CONSTANT = 2
    WSD = 3


class TrainOnly(enum.IntEnum):
    """Constants of emo_train_only."""

    ALL = 0
    EXPERTS = 1  # the routed experts alone


class Recompute(enum.IntEnum):
    """What the backward pass makes again instead of keeping it from the forward: less memory for more time, the same bits."""

    NONE = 0  # only what is cheap: normed inputs, activations of experts
    EXPERTS = 1  # the products before the activations, of experts and dense MLPs
    LAYER = 2  # each layer from its input


class OptimizerOn(enum.IntEnum):
    """Where the moments of AdamW lie."""

    DEVICE = 0  # with the weights
    HOST = 1  # in host memory, from where they come to the device in pieces: the same bits. For weights that are in host memory themselves there is no difference


class TrainPart(enum.IntEnum):
    """Parts of training that take time, see emo_trainer_profile()."""

    DATA = 0  # rows of the next step: reading, packing, labels
    EMBED = 1  # token embedding
    NORM = 2  # RMSNorm
    LINEAR = 3  # the projections around attention
    ROPE = 4  # rotary positions
    ATTENTION = 5  # attention itself
    ROUTING = 6  # router, pools, top-k, dispatch plan, balancing: what EMO adds to the experts
    EXPERTS = 7  # expert products, with the gathering and summing of their rows
    DENSE = 8  # dense MLPs
    HEAD = 9  # logits and loss, with their gradient: all counted as forward
    OPTIMIZER = 10  # gradients to zero, norm, clipping, AdamW
    RANKS = 11  # sums over ranks, and waiting for them
    VALIDATION = 12  # loss on the validation data
    CHECKPOINT = 13  # checkpoints and the exported model
    OTHER = 14  # metrics, callbacks, bookkeeping


class BenchKind(enum.IntEnum):
    """Constants of emo_bench_kind."""

    READ = 1  # every worker reads memory, in order: at each call another eighth of `bytes`
    PEAK = 2  # the innermost loop of products, f32 or bf16 as `compute` says, on operands in cache
    PEAK_INT8 = 3  # the same for whole numbers of 8 bits; EMO_E_UNSUPPORTED where a level sums none
    EMBED = 16
    NORM = 17
    LINEAR = 18  # [tokens, hidden] times [inner, hidden]
    ROPE = 19
    ATTENTION = 20
    ROUTE = 21  # router, pools of a quarter of the experts (from 64 tokens on), top-k
    PLAN = 22
    EXPERTS = 23  # tokens evenly over the routed experts, and all of them through the shared one
    SWIGLU = 24
    HEAD_LOSS = 25  # logits and loss; backward: with their gradient
    HEAD_LOGITS = 26
    ADAMW = 27  # of a matrix [tokens, hidden]
    SUMSQ = 28  # the same
