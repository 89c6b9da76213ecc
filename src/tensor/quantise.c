/* SPDX-License-Identifier: Apache-2.0 */
/* Making blocks with little error. What is minimised is the plain sum of squares over a block. */
#include <math.h>
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_blocks.h"

/* False: not a number that f16 holds. */
static bool put_f16(unsigned char *p, float value) {
    uint16_t h = emo__f32_to_f16(value);
    p[0] = (unsigned char)(h & 255);
    p[1] = (unsigned char)(h >> 8);
    return (h & 0x7C00) != 0x7C00;
}

static float as_f16(float value) { return emo__f16_to_f32(emo__f32_to_f16(value)); }

/* To the nearest integer in [0, 15]; `v` is any finite number. */
static int nibble(float v) { return v <= 0.0f ? 0 : v >= 15.0f ? 15 : (int)(v + 0.5f); }

/* Also false for NaN. */
static bool all_within(const float *x, int n, float limit) {
    for (int i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= limit))
            return false;
    return true;
}

/* ---- q8_0 ---- */

static bool make_q8_0(unsigned char *block, const float *x) {
    float most = 0.0f;
    for (int i = 0; i < EMO__Q_SMALL; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float d = most / 127.0f;
    if (!put_f16(block, d))
        return false;
    float inverse = d >= 1e-30f ? 1.0f / d : 0.0f; /* smaller scales are 0 as f16 */
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        float v = x[i] * inverse;
        block[2 + i] = (unsigned char)(int8_t)(v < 0.0f ? v - 0.5f : v + 0.5f);
    }
    return true;
}

/* ---- q4_0 ---- */

/* The codes of x at 1 / scale, the scale that suits them best, and the squared error with it. */
static float fit_q4_0(const float *x, float inverse, uint8_t *q, float *scale) {
    float xq = 0.0f, qq = 0.0f, xx = 0.0f;
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        int code = nibble(x[i] * inverse + 8.0f);
        float v = (float)(code - 8);
        q[i] = (uint8_t)code;
        xq += x[i] * v;
        qq += v * v;
        xx += x[i] * x[i];
    }
    *scale = qq > 0.0f ? as_f16(xq / qq) : 0.0f;
    return xx - *scale * (2.0f * xq - *scale * qq);
}

/* The element of largest magnitude goes to -8, or a little beside it: the end that has one code more. */
static bool make_q4_0(unsigned char *block, const float *x) {
    enum { STEPS = 10 };
    float most = 0.0f;
    for (int i = 0; i < EMO__Q_SMALL; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    uint8_t best[EMO__Q_SMALL], q[EMO__Q_SMALL];
    float scale = 0.0f, least = INFINITY;
    memset(best, 8, sizeof best);
    for (int step = -STEPS; step <= STEPS && fabsf(most) >= 1e-30f; step++) {
        float s;
        float error = fit_q4_0(x, (-8.0f + 0.15f * (float)step) / most, q, &s);
        if (error < least) {
            least = error;
            scale = s;
            memcpy(best, q, sizeof best);
        }
    }
    for (int i = 0; i < EMO__Q_SMALL / 2; i++)
        block[2 + i] = (unsigned char)(best[i] | best[i + EMO__Q_SMALL / 2] << 4);
    return put_f16(block, scale);
}

/* ---- q4_k ---- */

/* x ~ scale q - offset over one group, scale and offset not negative. */
typedef struct line {
    float scale;
    float offset;
} line;

/* The line that suits codes best (least squares), and its error. */
static float fit_line(const float *x, const uint8_t *q, line *out) {
    const float n = (float)EMO__Q_SMALL;
    float sx = 0.0f, sq = 0.0f, sqq = 0.0f, sxq = 0.0f;
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        float v = (float)q[i];
        sx += x[i];
        sq += v;
        sqq += v * v;
        sxq += x[i] * v;
    }
    float det = n * sqq - sq * sq;
    line l = {0.0f, 0.0f};
    if (det > 0.0f) {
        l.scale = (n * sxq - sx * sq) / det;
        l.offset = (sq * sxq - sqq * sx) / det;
    } else if (sx < 0.0f) { /* one code for all */
        l.offset = -sx / n;
    } else {
        l.offset = -1.0f;
    }
    if (l.offset < 0.0f) {
        l.offset = 0.0f;
        l.scale = sqq > 0.0f ? sxq / sqq : 0.0f;
    }
    l.scale = l.scale < 0.0f ? 0.0f : l.scale;
    float error = 0.0f;
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        float gap = l.scale * (float)q[i] - l.offset - x[i];
        error += gap * gap;
    }
    *out = l;
    return error;
}

/* Codes nearest to x on a line, and their error. */
static float code_line(const float *x, line l, uint8_t *q) {
    float inverse = l.scale >= 1e-30f ? 1.0f / l.scale : 0.0f;
    float error = 0.0f;
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        int code = nibble((x[i] + l.offset) * inverse);
        float gap = l.scale * (float)code - l.offset - x[i];
        q[i] = (uint8_t)code;
        error += gap * gap;
    }
    return error;
}

/* The best line found from several first guesses: ranges a little wider and narrower than the group's own. */
static line search_line(const float *x) {
    enum { STEPS = 12, ROUNDS = 2 };
    float low = 0.0f, high = x[0];
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    line best = {0.0f, -low};
    if (!(high - low >= 1e-30f))
        return best;
    float least = INFINITY;
    uint8_t q[EMO__Q_SMALL];
    for (int step = -STEPS; step <= STEPS; step++) {
        line l = {(high - low) / (15.0f + 0.25f * (float)step), -low};
        (void)code_line(x, l, q);
        for (int round = 0; round < ROUNDS; round++) {
            float error = fit_line(x, q, &l);
            if (error < least) {
                least = error;
                best = l;
            }
            (void)code_line(x, l, q);
        }
    }
    return best;
}

typedef struct super {
    float d;
    float m;
    uint8_t s[EMO__Q4_K_GROUPS];
    uint8_t t[EMO__Q4_K_GROUPS];
    uint8_t q[EMO__Q4_K_BLOCK];
} super;

static uint8_t six_bits(float v) { return (uint8_t)(v <= 0.0f ? 0 : v >= 63.0f ? 63 : (int)(v + 0.5f)); }

/* For every group the pair (s, t) near (s0, t0) with the least error, its codes, and the error of the block. */
static float settle_groups(const float *x, super *b, const uint8_t *s0, const uint8_t *t0) {
    float total = 0.0f;
    for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
        float least = INFINITY;
        uint8_t q[EMO__Q_SMALL];
        for (int s = s0[g] - 1; s <= s0[g] + 1; s++)
            for (int t = t0[g] - 1; t <= t0[g] + 1; t++) {
                if (s < 0 || s > 63 || t < 0 || t > 63)
                    continue;
                line l = {b->d * (float)s, b->m * (float)t};
                float error = code_line(x + EMO__Q_SMALL * g, l, q);
                if (error < least) {
                    least = error;
                    b->s[g] = (uint8_t)s;
                    b->t[g] = (uint8_t)t;
                    memcpy(b->q + EMO__Q_SMALL * g, q, sizeof q);
                }
            }
        total += least;
    }
    return total;
}

/* d and m by least squares with everything else as it stands. */
static void fit_super(const float *x, const super *b, float *d, float *m) {
    float aa = 0.0f, ab = 0.0f, bb = 0.0f, ax = 0.0f, bx = 0.0f;
    for (int i = 0; i < EMO__Q4_K_BLOCK; i++) {
        int g = i / EMO__Q_SMALL;
        float a = (float)b->s[g] * (float)b->q[i], c = -(float)b->t[g];
        aa += a * a;
        ab += a * c;
        bb += c * c;
        ax += a * x[i];
        bx += c * x[i];
    }
    float det = aa * bb - ab * ab;
    if (det > 1e-6f * aa * bb) {
        *d = (bb * ax - ab * bx) / det;
        *m = (aa * bx - ab * ax) / det;
    } else if (aa > 0.0f) {
        *d = ax / aa;
    }
}

static void pack_super(unsigned char *block, const super *b) {
    unsigned char *packed = block + 4;
    memset(packed, 0, 12);
    for (int g = 0; g < 4; g++) {
        packed[g] = (unsigned char)(b->s[g] | (b->s[g + 4] >> 4) << 6);
        packed[g + 4] = (unsigned char)(b->t[g] | (b->t[g + 4] >> 4) << 6);
        packed[g + 8] = (unsigned char)((b->s[g + 4] & 15) | (b->t[g + 4] & 15) << 4);
    }
    for (int pair = 0; pair < 4; pair++)
        for (int i = 0; i < EMO__Q_SMALL; i++)
            block[16 + 32 * pair + i] = (unsigned char)(b->q[64 * pair + i] | b->q[64 * pair + 32 + i] << 4);
}

static bool make_q4_k(unsigned char *block, const float *x) {
    enum { ROUNDS = 3 };
    line lines[EMO__Q4_K_GROUPS];
    line most = {0.0f, 0.0f};
    for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
        lines[g] = search_line(x + EMO__Q_SMALL * g);
        most.scale = lines[g].scale > most.scale ? lines[g].scale : most.scale;
        most.offset = lines[g].offset > most.offset ? lines[g].offset : most.offset;
    }
    super best = {0}, trial = {0};
    float least = INFINITY;
    trial.d = as_f16(most.scale / 63.0f);
    trial.m = as_f16(most.offset / 63.0f);
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t s0[EMO__Q4_K_GROUPS], t0[EMO__Q4_K_GROUPS];
        for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
            s0[g] = trial.d > 0.0f ? six_bits(lines[g].scale / trial.d) : 0;
            t0[g] = trial.m > 0.0f ? six_bits(lines[g].offset / trial.m) : 0;
        }
        float error = settle_groups(x, &trial, s0, t0);
        if (!(error < least))
            break;
        least = error;
        best = trial;
        fit_super(x, &best, &trial.d, &trial.m);
        trial.d = as_f16(trial.d < 0.0f ? 0.0f : trial.d);
        trial.m = as_f16(trial.m < 0.0f ? 0.0f : trial.m);
    }
    pack_super(block, &best);
    bool d_fits = put_f16(block, best.d);
    return put_f16(block + 2, best.m) && d_fits;
}

bool emo__quantise(void *dst, emo_dtype dtype, const float *src, size_t count) {
    int64_t block = emo__dtype_block(dtype);
    size_t bytes = emo__dtype_run(dtype, block);
    unsigned char *to = dst;
    /* beyond these a scale is no f16, and squares overflow soon after */
    float limit = 65504.0f * (dtype == EMO_DTYPE_Q8_0 ? 127.0f : dtype == EMO_DTYPE_Q4_0 ? 8.0f : 63.0f);
    if (block <= 1 || count % (size_t)block != 0)
        return false;
    for (size_t i = 0; i < count; i += (size_t)block, to += bytes) {
        bool fits = all_within(src + i, (int)block, limit);
        if (fits && dtype == EMO_DTYPE_Q8_0)
            fits = make_q8_0(to, src + i);
        else if (fits && dtype == EMO_DTYPE_Q4_0)
            fits = make_q4_0(to, src + i);
        else if (fits)
            fits = make_q4_k(to, src + i);
        if (!fits)
            return false;
    }
    return true;
}
