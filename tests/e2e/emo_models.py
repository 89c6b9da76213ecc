# SPDX-License-Identifier: Apache-2.0
"""Models of libemo through ctypes, and of llama.cpp through llama-cpp-python: what comparing the two needs."""
import ctypes as c
import json
import struct

import llama_cpp as ll
import numpy as np

import emo_tokenizers

TYPES = {"f32": 0, "bf16": 2, "f16": 1, "q8_0": 32, "q4_0": 33, "q4_k": 34}


class Progress(c.Structure):
    _fields_ = [("ctx", c.c_void_p), ("report", c.c_void_p)]


class ExportOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("format", c.c_int32), ("dtype", c.c_int32), ("no_tokenizer", c.c_int32),
                ("mask", c.c_void_p), ("name", c.c_char_p), ("progress", Progress)]


class ExportInfo(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("tensors", c.c_int32), ("fallbacks", c.c_int32), ("reserved", c.c_int32),
                ("bytes", c.c_uint64)]


class CreateOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("reserved", c.c_int32), ("seed", c.c_uint64)]


class Emo(emo_tokenizers.Emo):
    """The library; a model is a handle from create() or open()."""

    def create(self, config, seed=1):
        model, text = c.c_void_p(), json.dumps(config).encode()
        options = CreateOptions(c.sizeof(CreateOptions), 0, seed)
        self.call("emo_model_create_json", self.rt, text, c.c_size_t(len(text)), c.byref(options), c.byref(model))
        return model

    def open(self, path):
        model = c.c_void_p()
        self.call("emo_model_load_path", self.rt, str(path).encode(), None, c.byref(model))
        return model

    def close(self, model):
        self.lib.emo_model_release(model)

    def give(self, model, tok):
        self.call("emo_model_set_tokenizer", model, tok)

    def give_bytes(self, model):
        tok = c.c_void_p()
        self.call("emo_tokenizer_create_bytes", self.rt, c.byref(tok))
        self.give(model, tok)
        self.release(tok)

    def tokenizer(self, model):
        self.lib.emo_model_tokenizer.restype = c.c_void_p
        return c.c_void_p(self.lib.emo_model_tokenizer(model))

    def export(self, model, path, kind, mask=None):
        """Writes a GGUF file; returns how many tensors did not get the type."""
        options = ExportOptions(c.sizeof(ExportOptions), 1, TYPES[kind], 0, mask, None, Progress())
        info = ExportInfo(c.sizeof(ExportInfo))
        self.call("emo_model_export", model, str(path).encode(), c.byref(options), c.byref(info))
        return info.fallbacks

    def mask(self, model, dropped):
        """A mask without the experts in a list of (layer, expert)."""
        mask = c.c_void_p()
        self.call("emo_model_mask", model, c.byref(mask))
        for layer, expert in dropped:
            self.call("emo_mask_set", mask, c.c_int32(layer), c.c_int32(expert), c.c_int32(0))
        return mask

    def prune(self, model, mask):
        out = c.c_void_p()
        self.call("emo_model_prune", model, mask, None, c.byref(out))
        return out

    def logits(self, model, ids, vocab):
        out = np.empty((len(ids), vocab), np.float32)
        array = (c.c_int32 * len(ids))(*ids)
        self.call("emo_eval_logits", model, array, c.c_size_t(len(ids)), None, out.ctypes.data_as(c.c_void_p),
                  c.c_size_t(out.size))
        return out

    def tensor(self, model, name):
        count = c.c_size_t()
        self.call("emo_model_tensor_f32", model, name.encode(), None, c.c_size_t(0), c.byref(count))
        out = np.empty(count.value, np.float32)
        self.call("emo_model_tensor_f32", model, name.encode(), out.ctypes.data_as(c.c_void_p), count, c.byref(count))
        return out

    def save(self, model, folder):
        self.call("emo_model_save", model, str(folder).encode(), None)


@ll.llama_log_callback
def silence(_level, _text, _data):
    pass


class Llama:
    """A GGUF file in llama.cpp, as exact as it can: no flash attention, keys and values in f32."""

    def __init__(self, path, positions):
        ll.llama_log_set(silence, c.c_void_p(0))
        ll.llama_backend_init()
        params = ll.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = ll.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self.vocab = ll.llama_model_get_vocab(self.model)
        self.size = ll.llama_vocab_n_tokens(self.vocab)
        self.positions = positions

    def close(self):
        ll.llama_model_free(self.model)

    def context(self):
        params = ll.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.positions
        params.n_threads = params.n_threads_batch = 1  # its threads spin where others want the CPU
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = ll.llama_init_from_model(self.model, params)
        if not context:
            raise RuntimeError("llama.cpp makes no context")
        return context

    def decode(self, context, ids, at):
        """Logits of every one of the ids, which stand at position `at` and after."""
        batch = ll.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = at + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        if ll.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        rows = np.ctypeslib.as_array(ll.llama_get_logits(context), shape=(len(ids), self.size)).copy()
        ll.llama_batch_free(batch)
        return rows

    def logits(self, ids, at_once=True):
        context = self.context()
        step = len(ids) if at_once else 1
        rows = [self.decode(context, ids[i:i + step], i) for i in range(0, len(ids), step)]
        ll.llama_free(context)
        return np.concatenate(rows)

    def tokenize(self, text, special=False):
        """The ids of bytes."""
        room = len(text) + 8
        ids = (ll.llama_token * room)()
        n = ll.llama_tokenize(self.vocab, text, len(text), ids, room, False, special)
        if n < 0:
            raise RuntimeError("llama_tokenize failed")
        return list(ids[:n])

    def greedy(self, prompt, count, eos):
        """The text of the most probable tokens after eos and a prompt, up to the end of the text."""
        ids, out = [eos, *self.tokenize(prompt)], b""
        context, at = self.context(), 0
        for _ in range(count):
            row = self.decode(context, ids, at)[-1]
            at += len(ids)
            best = int(row.argmax())
            if best == eos:
                break
            piece = c.create_string_buffer(256)
            n = ll.llama_token_to_piece(self.vocab, best, piece, 256, 0, False)
            out += piece.raw[:n]
            ids = [best]
        ll.llama_free(context)
        return out


def llama_quantise(source, target, kind):
    """llama.cpp's own quantiser on a GGUF file; every matrix gets the type."""
    params = ll.llama_model_quantize_default_params()
    params.ftype = {"q4_0": 2, "q8_0": 7, "q4_k": 14}[kind]
    params.pure = True
    params.nthread = 1
    ll.llama_log_set(silence, c.c_void_p(0))
    if ll.llama_model_quantize(str(source).encode(), str(target).encode(), c.byref(params)) != 0:
        raise RuntimeError("llama_model_quantize failed")


def read_safetensors(path):
    """The f32 tensors of a model.safetensors, by name."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(length))
        data = f.read()
    return {name: np.frombuffer(data[e["data_offsets"][0]:e["data_offsets"][1]], np.float32).reshape(e["shape"])
            for name, e in head.items() if name != "__metadata__" and e["dtype"] == "F32"}


def write_safetensors(path, tensors):
    head, at = {}, 0
    for name, array in tensors.items():
        head[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            f.write(np.ascontiguousarray(array, np.float32).tobytes())


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def kl(p, q):
    """The mean over positions of KL(p || q), from logits, in nats."""
    p, q = log_softmax(p), log_softmax(q)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def loss(rows, ids):
    """The mean cross entropy of each next token."""
    return float(-log_softmax(rows[:-1])[np.arange(len(ids) - 1), ids[1:]].mean())
