/* SPDX-License-Identifier: Apache-2.0 */
/* Attention, forward, f32: online softmax over tiles of 32 keys, 64 rows a block. Segments with at most 16 rows a kv
 * head (decoding) take blocks of 16 rows and split their keys into chunks of 512, whose partial results a second kernel
 * joins in ascending order. Which way a segment takes depends on that segment alone. Execs that
 * compute in bf16 prefill with attention_bf16.cu; decoding is bound by the cache's bytes and stays f32. */
#include "ops/attention_bf16.h"

enum { KEYS = 32, DECODE_ROWS = 16 };

/* Partial results of a split: its numerator, largest logit and sum. */
typedef struct partials {
    float *o;   /* [places, kv_heads, head_dim] */
    float *top; /* [places, kv_heads] */
    float *sum;
} partials;

template <int D, int RT>
__global__ static void __launch_bounds__(EMO_AT_BLOCK, 2)
    forward_k(emo_attention_args a, emo_at_shape shape, const emo_at_work *list, partials part) {
    constexpr int ROWS = 16 * RT, PLINE = KEYS + 4;
    EMO_DYN_SHARED(float, q); /* [ROWS][D + 4], then keys or values [KEYS][D + 4], then [ROWS][PLINE] */
    float *kv = q + ROWS * (D + 4), *prob = kv + KEYS * (D + 4);
    emo_at_work w = list[blockIdx.x];
    if (w.count == 0)
        return;
    int x = (int)(threadIdx.x & 15u), y = (int)(threadIdx.x >> 4);
    int64_t kv_at = (int64_t)blockIdx.y * a.head_dim;
    int32_t begin = w.chunk < 0 ? 0 : w.chunk * EMO_AT_CHUNK;
    int32_t end = emo_at_seen(w, shape, w.first + w.count - 1);
    if (w.chunk >= 0 && end > begin + EMO_AT_CHUNK)
        end = begin + EMO_AT_CHUNK;
    emo_at_load<D>(q, ROWS, a.head_dim, shape.vector, [&](int r) {
        if (r >= w.count)
            return (const float *)NULL;
        int32_t pair = w.first + r;
        return a.q + emo_at_query(w, shape, pair) * a.q_stride + (int64_t)emo_at_head(shape, pair) * a.head_dim;
    });
    float o[RT][D / 16], top[RT], sum[RT];
    int32_t seen[RT];
#pragma unroll
    for (int i = 0; i < RT; i++) {
        int r = y * RT + i;
        seen[i] = r < w.count ? emo_at_seen(w, shape, w.first + r) : 0;
        top[i] = -INFINITY;
        sum[i] = 0.0f;
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            o[i][j] = 0.0f;
    }
    for (int32_t k0 = begin; k0 < end; k0 += KEYS) {
        float s[RT][2];
        emo_at_load<D>(kv, KEYS, a.head_dim, shape.vector, [&](int r) {
            return k0 + r < end ? a.k + emo_at_key(w, shape, k0 + r) * a.kv_stride + kv_at : (const float *)NULL;
        });
        __syncthreads();
        emo_at_dots<D, RT, 2>(q, kv, s);
#pragma unroll
        for (int i = 0; i < RT; i++) {
            float most = -INFINITY;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int32_t key = k0 + x + 16 * j;
                s[i][j] = key < seen[i] && key < end ? s[i][j] * a.scale : -INFINITY;
                most = fmaxf(most, s[i][j]);
            }
#pragma unroll
            for (int offset = 8; offset > 0; offset >>= 1)
                most = fmaxf(most, __shfl_xor_sync(EMO_FULL_WARP, most, offset));
            float now = fmaxf(top[i], most);
            float keep = now == -INFINITY ? 1.0f : expf(top[i] - now); /* a row that has seen nothing yet stays 0 */
            top[i] = now;
            sum[i] *= keep;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                float p = s[i][j] == -INFINITY ? 0.0f : expf(s[i][j] - now);
                sum[i] += p;
                prob[(y * RT + i) * PLINE + x + 16 * j] = p;
            }
#pragma unroll
            for (int j = 0; j < D / 16; j++)
                o[i][j] *= keep;
        }
        __syncthreads();
        emo_at_load<D>(kv, KEYS, a.head_dim, shape.vector, [&](int r) {
            return k0 + r < end ? a.v + emo_at_key(w, shape, k0 + r) * a.kv_stride + kv_at : (const float *)NULL;
        });
        __syncthreads();
        emo_at_add<D, RT>(prob, PLINE, 1, kv, KEYS, o);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < RT; i++) {
        int r = y * RT + i;
#pragma unroll
        for (int offset = 8; offset > 0; offset >>= 1)
            sum[i] += __shfl_xor_sync(EMO_FULL_WARP, sum[i], offset);
        if (r >= w.count)
            continue;
        int32_t pair = w.first + r, head = emo_at_head(shape, pair);
        int64_t row = emo_at_query(w, shape, pair);
        if (w.chunk >= 0) {
            int64_t place = (int64_t)(w.place + r) * a.kv_heads + blockIdx.y;
            if (x == 0) {
                part.top[place] = top[i];
                part.sum[place] = sum[i];
            }
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                if (x + 16 * j < a.head_dim)
                    part.o[place * a.head_dim + x + 16 * j] = o[i][j];
            }
            continue;
        }
        if (x == 0 && a.lse != NULL)
            a.lse[row * a.heads + head] = top[i] + logf(sum[i]);
        float inverse = 1.0f / sum[i];
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            if (x + 16 * j < a.head_dim)
                a.o[row * a.o_stride + (int64_t)head * a.head_dim + x + 16 * j] = o[i][j] * inverse;
        }
    }
}

/* A warp per row of a segment that was split: list[i] is its first split, the others follow `count` places apart. */
__global__ static void __launch_bounds__(128)
    join_k(emo_attention_args a, emo_at_shape shape, const emo_at_work *list, partials part) {
    emo_at_work w = list[blockIdx.x];
    int lane = (int)(threadIdx.x & 31u);
    for (int r = (int)(threadIdx.x >> 5); r < w.count; r += 4) {
        int32_t pair = w.first + r, head = emo_at_head(shape, pair), splits = w.chunk;
        int64_t row = emo_at_query(w, shape, pair);
        int64_t first = (int64_t)(w.place + r) * a.kv_heads + blockIdx.y, step = (int64_t)w.count * a.kv_heads;
        float top = -INFINITY, sum = 0.0f;
        for (int32_t s = 0; s < splits; s++)
            top = fmaxf(top, part.top[first + s * step]);
        for (int32_t s = 0; s < splits; s++)
            sum += part.sum[first + s * step] * expf(part.top[first + s * step] - top);
        for (int32_t c = lane; c < a.head_dim; c += 32) {
            float o = 0.0f;
            for (int32_t s = 0; s < splits; s++) {
                int64_t place = first + s * step;
                o = fmaf(part.o[place * a.head_dim + c], expf(part.top[place] - top), o);
            }
            a.o[row * a.o_stride + (int64_t)head * a.head_dim + c] = o / sum;
        }
        if (lane == 0 && a.lse != NULL)
            a.lse[row * a.heads + head] = top + logf(sum);
    }
}

/* ---- host ---- */

emo_status emo_cuda_attention_check(const emo_attention_args *a, emo_at_shape *shape, emo_error *err) {
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads != 0 || a->head_dim < 1)
        return emo_cuda_fail(
            err, EMO_E_INVALID_ARGUMENT,
            "attention with %d heads, %d kv heads and head_dim %d: heads must be a multiple of kv heads", (int)a->heads,
            (int)a->kv_heads, (int)a->head_dim);
    if (a->head_dim > EMO_AT_MOST)
        return emo_cuda_unsupported(err, "attend with a head_dim above 256");
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        if (s->q_count < 0 || s->q_count > s->k_count)
            return emo_cuda_fail(err, EMO_E_INVALID_ARGUMENT,
                                 "attention segment %lld has %lld queries and %lld keys: at most one query per key",
                                 (long long)i, (long long)s->q_count, (long long)s->k_count);
        if (s->k_count > INT32_MAX / 2 || s->q_count > INT32_MAX / (a->heads / a->kv_heads))
            return emo_cuda_unsupported(err, "attend over a segment of more than 2^30 rows");
    }
    if (a->page_rows < 0 || (a->page_rows & (a->page_rows - 1)) != 0 || a->page_rows > (int64_t)1 << 30)
        return emo_cuda_fail(err, EMO_E_INVALID_ARGUMENT,
                             "attention over pages of %lld rows: it must be a power of two up to 2^30",
                             (long long)a->page_rows);
    shape->pages = NULL;
    shape->page_shift = 0;
    shape->group = a->heads / a->kv_heads;
    shape->vector = a->head_dim % 4 == 0 && a->q_stride % 4 == 0 && a->kv_stride % 4 == 0 && a->o_stride % 4 == 0 &&
                    (((uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v | (uintptr_t)a->d_o) & 15u) == 0;
    return EMO_OK;
}

emo_status emo_cuda_attention_pages(emo_exec *exec, const emo_attention_args *a, emo_at_shape *shape, emo_error *err) {
    int64_t entries = 0;
    void *staged = NULL;
    if (a->page_rows == 0)
        return EMO_OK;
    while ((int64_t)1 << shape->page_shift < a->page_rows)
        shape->page_shift++;
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        int64_t end = s->k_begin + emo_ceil_div(s->k_count, a->page_rows);
        entries = end > entries ? end : entries;
    }
    if (entries == 0)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_stage(exec, a->pages, (size_t)entries * sizeof *a->pages, &staged, err));
    shape->pages = (const int32_t *)staged;
    return EMO_OK;
}

static int64_t splits_of(const emo_attention_segment *s) { return emo_ceil_div(s->k_count, EMO_AT_CHUNK); }
static int decodes(const emo_attention_args *a, const emo_attention_segment *s) {
    return s->q_count * (a->heads / a->kv_heads) <= DECODE_ROWS;
}
/* Queries of the segment in the asked slice. */
static void slice_of(const emo_attention_args *a, const emo_attention_segment *s, int64_t *first, int64_t *last) {
    *first = a->q_first > s->q_begin ? a->q_first - s->q_begin : 0;
    *last = a->q_last - s->q_begin < s->q_count ? a->q_last - s->q_begin : s->q_count;
}

/* The longest rows first, so that the grid does not end with them. */
static void fill_prefill(const emo_attention_args *a, int64_t rows, emo_at_list *list) {
    int64_t group = a->heads / a->kv_heads, first, last;
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        slice_of(a, s, &first, &last);
        if (decodes(a, s))
            continue;
        for (int64_t tile = emo_ceil_div((last - first) * group, rows) - 1; tile >= 0 && last > first; tile--) {
            int64_t pair = first * group + tile * rows, left = last * group - pair;
            emo_at_push(list, s, pair, left < rows ? left : rows, -1, 0);
        }
    }
}

/* Splits of decoding segments: those of one segment lie one after the other in the partial results. */
static void fill_decode(const emo_attention_args *a, int64_t most, emo_at_list *list) {
    (void)most; /* a segment that decodes is one tile */
    int64_t group = a->heads / a->kv_heads, place = 0, first, last;
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        slice_of(a, s, &first, &last);
        if (!decodes(a, s) || last <= first)
            continue;
        int64_t splits = splits_of(s), rows = (last - first) * group;
        for (int64_t c = 0; c < splits; c++)
            emo_at_push(list, s, first * group, rows, splits > 1 ? (int32_t)c : -1, place + c * rows);
        place += splits > 1 ? splits * rows : 0;
    }
}

/* The rows to join: `chunk` is the number of splits. */
static void fill_join(const emo_attention_args *a, int64_t most, emo_at_list *list) {
    (void)most;
    int64_t group = a->heads / a->kv_heads, place = 0, first, last;
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        slice_of(a, s, &first, &last);
        if (!decodes(a, s) || last <= first || splits_of(s) < 2)
            continue;
        int64_t rows = (last - first) * group;
        emo_at_push(list, s, first * group, rows, (int32_t)splits_of(s), place);
        place += splits_of(s) * rows;
    }
}

template <int D, int RT>
static cudaError_t launch(const emo_attention_args *a, const emo_at_shape &shape, const emo_at_work *work,
                          int64_t count, const partials &part, const emo_queue &stream) {
    size_t shared = ((16 * RT + KEYS) * (D + 4) + 16 * RT * (KEYS + 4)) * sizeof(float);
    return EMO_LAUNCH_WIDE((forward_k<D, RT>), dim3((unsigned)count, (unsigned)a->kv_heads), EMO_AT_BLOCK, shared,
                           stream, emo_at_given(a), shape, work, part);
}

emo_status emo_cuda_attention_forward(emo_exec *exec, const emo_attention_args *args, emo_error *err) {
    emo_at_shape shape;
    const emo_at_work *work;
    int64_t count, joins = 0, rows = 0;
    int wide = emo_ab_takes(exec, args);
    int64_t tile_rows = wide ? (int64_t)EMO_AB_ROWS : args->head_dim > 128 ? 32 : 64;
    partials part = {NULL, NULL, NULL};
    emo_queue stream = emo_cuda_stream(exec);
    cudaError_t launched = cudaSuccess;
    EMO_CUDA_TRY(emo_cuda_attention_check(args, &shape, err));
    EMO_CUDA_TRY(emo_cuda_attention_pages(exec, args, &shape, err));
    EMO_CUDA_TRY(emo_cuda_attention_list(exec, args, fill_prefill, tile_rows, &work, &count, err));
    if (count > 0 && wide) {
        EMO_CUDA_TRY(emo_cuda_attention_bf16(exec, args, &shape, work, count, err));
    } else if (count > 0) {
        EMO_AT_DIM(args->head_dim,
                   launched = (launch < D, D == 256 ? 2 : 4 > (args, shape, work, count, part, stream)));
        EMO_CUDA_TRY(emo_cuda_launched(launched, "attention", err));
    }
    EMO_CUDA_TRY(emo_cuda_attention_list(exec, args, fill_decode, DECODE_ROWS, &work, &count, err));
    if (count == 0)
        return EMO_OK;
    for (int64_t i = 0; i < args->n_segments; i++)
        if (decodes(args, &args->segments[i]) && splits_of(&args->segments[i]) > 1)
            rows += splits_of(&args->segments[i]) * args->segments[i].q_count * shape.group;
    if (rows > 0) {
        void *room;
        if (stream.tape != NULL) /* what the list has room for, so that it is the same in every step */
            rows = count * DECODE_ROWS;
        size_t floats = (size_t)rows * (size_t)args->kv_heads;
        if (rows > INT32_MAX)
            return emo_cuda_unsupported(err, "decode with this many partial results");
        EMO_CUDA_TRY(emo_cuda_scratch(exec, floats * (size_t)(args->head_dim + 2) * sizeof(float), &room, err));
        part.o = (float *)room;
        part.top = part.o + floats * (size_t)args->head_dim;
        part.sum = part.top + floats;
    }
    EMO_AT_DIM(args->head_dim, launched = (launch<D, 1>(args, shape, work, count, part, stream)));
    EMO_CUDA_TRY(emo_cuda_launched(launched, "attention: decode", err));
    EMO_CUDA_TRY(emo_cuda_attention_list(exec, args, fill_join, DECODE_ROWS, &work, &joins, err));
    if (joins == 0)
        return EMO_OK;
    return emo_cuda_launched(EMO_LAUNCH(join_k, dim3((unsigned)joins, (unsigned)args->kv_heads), 128, 0, stream,
                                        emo_at_given(args), shape, work, part),
                             "attention: join", err);
}
