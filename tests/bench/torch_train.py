#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training speed of the same EMO in PyTorch: torch_train.py [--threads N] [--steps N] [--dtype f32|bf16] [--way eager|compiled].

The other side of `emo bench --shape small --what train`: hidden 256, 6 layers, 32 routed experts of 128 and a shared one, four experts a
token, vocabulary 8192, eight rows of 512 tokens a step, the same documents, uniform document pools of 4 to 32 experts,
all losses, clipping, AdamW, f32. Written in the reference's style (a Python loop over the documents for the pools, over
the experts with index_select and index_add), and where a choice costs PyTorch nothing, in the faster way: tokens are
sorted by expert once a layer, gate and up are one product, attention is fused and runs document by document, AdamW is
the fused one. bf16 is autocast; compiled is torch.compile, with
dynamic shapes, of what has no loop over documents or experts in it: rotation, an expert, the head with its losses. Prints a JSON object: training (tokens a
second, the median of the steps), peak_memory in bytes. Status 77 when torch is not installed.
"""

import argparse
import contextlib
import json
import resource
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

HIDDEN, LAYERS, ROUTED, SHARED, INNER, CHOSEN = 256, 6, 32, 1, 128, 3
VOCAB, ROWS, SEQ, POOL_MIN, POOL_MAX, EOS = 8192, 8, 512, 4, 32, 1
BALANCE, ROUTER_Z, LM_Z, NORM_EPS = 0.1 / LAYERS, 0.001 / LAYERS, 1e-5, 1e-6


def make_stream():
    """The documents of emo bench in a row, each ended by the end-of-text token."""
    stream, x = [], 12345
    for document in range(400):
        for _ in range(40 + document * 97 % (800 - 40)):
            x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
            u = x / 4294967296.0
            stream.append(int(2 + u * u * (VOCAB - 2)))
        stream.append(EOS)
    return torch.tensor(stream)


def documents_of(ids):
    """(begin, end) of the documents in a packed batch; no document crosses a row."""
    ends = set(range(SEQ, ROWS * SEQ + 1, SEQ))
    ends.update((ids == EOS).nonzero().flatten().add(1).tolist())
    spans, begin = [], 0
    for end in sorted(ends):
        spans.append((begin, end))
        begin = end
    return spans


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        return F.rms_norm(x, (HIDDEN,), self.weight, NORM_EPS)


def rotate(qkv, cos, sin):
    half = qkv.shape[-1] // 2
    rotated = qkv[:, :2]
    other = torch.cat((-rotated[..., half:], rotated[..., :half]), dim=-1)
    return (rotated * cos + other * sin).permute(1, 2, 0, 3)


def swiglu(x, gate_up, down):
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


def head_losses(x, head, labels, n):
    logits = F.linear(x, head)
    lse = logits.logsumexp(dim=-1)
    target = logits.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    valid = labels >= 0
    ce = ((lse - target) * valid).sum() / n
    return ce, ce + LM_Z * (lse.square() * valid).sum() / n


def matrix(rows, cols):
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, cols), std=0.02, a=-0.06, b=0.06))


class Attention(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, matrix(3 * HIDDEN, HIDDEN), matrix(HIDDEN, HIDDEN)

    def forward(self, x, cos, sin, spans):
        size = HIDDEN // self.heads
        qkv = F.linear(x, self.qkv).view(-1, 3, self.heads, size)
        q, k = rotate(qkv, cos, sin)
        v = qkv[:, 2].transpose(0, 1)
        parts = [
            F.scaled_dot_product_attention(q[None, :, b:e], k[None, :, b:e], v[None, :, b:e], is_causal=True)[0]
            for b, e in spans
        ]
        return F.linear(torch.cat(parts, dim=1).transpose(0, 1).reshape(-1, HIDDEN), self.out)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = matrix(ROUTED + SHARED, HIDDEN)
        self.gate_up = nn.ParameterList(matrix(2 * INNER, HIDDEN) for _ in range(ROUTED + SHARED))
        self.down = nn.ParameterList(matrix(HIDDEN, INNER) for _ in range(ROUTED + SHARED))

    def expert(self, e, x):
        return swiglu(x, self.gate_up[e], self.down[e])

    def forward(self, x, spans, labels):
        logits = F.linear(x, self.router[:ROUTED])
        with torch.no_grad():
            probs = logits.softmax(dim=-1)
            masked = torch.zeros_like(logits, dtype=torch.bool)
            sizes = torch.randint(POOL_MIN, POOL_MAX + 1, (len(spans),)).tolist()
            for (begin, end), pool in zip(spans, sizes):
                if pool < ROUTED:
                    usage = probs[begin:end].sum(dim=0)
                    masked[begin:end, usage.topk(ROUTED - pool, largest=False).indices] = True
        logits = logits.masked_fill(masked, float("-inf"))
        scores = logits.softmax(dim=-1)
        weights, indices = scores.topk(CHOSEN, dim=-1)
        flat = indices.flatten()
        counts = torch.bincount(flat, minlength=ROUTED)
        balance = ROUTED / CHOSEN * (counts * scores.mean(dim=0)).sum() / labels
        z = logits.logsumexp(dim=-1).square().sum() / labels
        order = flat.argsort(stable=True)
        tokens, weights = order // CHOSEN, weights.flatten()[order]
        out, begin = self.expert(ROUTED, x), 0
        for e, count in enumerate(counts.tolist()):
            if count > 0:
                rows = tokens[begin : begin + count]
                y = self.expert(e, x.index_select(0, rows)) * weights[begin : begin + count, None]
                out = out.index_add(0, rows, y) if e == 0 or not out.requires_grad else out.index_add_(0, rows, y)
                begin += count
        return out, BALANCE * balance + ROUTER_Z * z


class Block(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.norm1, self.attention, self.norm2, self.experts = Norm(), Attention(heads), Norm(), Experts()

    def forward(self, x, cos, sin, spans, labels):
        x = x + self.attention(self.norm1(x), cos, sin, spans)
        y, loss = self.experts(self.norm2(x), spans, labels)
        return x + y, loss


class Model(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.embedding, self.head = matrix(VOCAB, HIDDEN), matrix(VOCAB, HIDDEN)
        self.blocks, self.norm = nn.ModuleList(Block(heads) for _ in range(LAYERS)), Norm()
        size = HIDDEN // heads
        angles = torch.arange(SEQ)[:, None] * 500000.0 ** (-torch.arange(0, size, 2) / size)
        angles = torch.cat((angles, angles), dim=-1).repeat(ROWS, 1)[:, None, None]
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids, labels, spans):
        x, n, loss = F.embedding(ids, self.embedding), (labels >= 0).sum(), 0.0
        for block in self.blocks:
            x, aux = block(x, self.cos, self.sin, spans, n)
            loss = loss + aux
        ce, total = head_losses(self.norm(x), self.head, labels, n)
        return ce, total + loss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--way", choices=("eager", "compiled"), default="eager")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model, stream = Model(options.heads), make_stream()
    plain = [p for name, p in model.named_parameters() if name == "embedding"]
    decayed = [p for name, p in model.named_parameters() if name != "embedding"]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.1}]
    adamw = torch.optim.AdamW(groups, lr=4e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    if options.way == "compiled":
        for name in ("rotate", "swiglu", "head_losses"):
            globals()[name] = torch.compile(globals()[name], dynamic=True)
    precision = torch.autocast("cpu", torch.bfloat16) if options.dtype == "bf16" else contextlib.nullcontext()
    warm = 3 if options.way == "compiled" else 1  # steps that allocate or compile are not counted
    seconds = []
    for step in range(options.steps + warm):
        start = time.perf_counter()
        at = step * ROWS * SEQ % (len(stream) - ROWS * SEQ)
        ids = stream[at : at + ROWS * SEQ]
        labels = torch.cat((ids.view(ROWS, SEQ)[:, 1:], torch.full((ROWS, 1), -100)), dim=1).flatten()
        adamw.zero_grad(set_to_none=True)
        with precision:
            ce, total = model(ids, labels, documents_of(ids))
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        for p in model.parameters():  # as the reference: experts that nobody chose are updated all the same
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        adamw.step()
        loss = ce.item()
        seconds.append(time.perf_counter() - start)
    timed = sorted(seconds[warm:])
    print(json.dumps({
        "training": ROWS * SEQ / timed[len(timed) // 2],
        "loss": loss,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
