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

/* Sums over the codes 0 to 15 of 32 numbers. Plain loops without branches, which compilers turn into vectors, and sums
 * that are joined in a fixed order: every instruction set gives the same bits. */
typedef struct sums {
    float q;
    float qq;
    float xq;
} sums;

static float join(const float *a) {
    float b[16], c[8];
    for (int i = 0; i < 16; i++)
        b[i] = a[i] + a[i + 16];
    for (int i = 0; i < 8; i++)
        c[i] = b[i] + b[i + 8];
    return ((c[0] + c[4]) + (c[2] + c[6])) + ((c[1] + c[5]) + (c[3] + c[7]));
}

/* The code of x is the integer nearest to (x + offset) * inverse, within the ends. Floats in [0, 15] have the order of
 * their bits, and minima of integers become vectors where those of floats, which might be NaN, do not. */
static float code_of(float x, float offset, float inverse) {
    float v = (x + offset) * inverse;
    int32_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = bits > 0 ? bits : 0;
    bits = bits < 0x41700000 ? bits : 0x41700000; /* 15.0f */
    memcpy(&v, &bits, sizeof v);
    return (float)(int32_t)(v + 0.5f);
}

/* bias: what a code of 0 stands for, times -1. */
static sums sum_codes(const float *x, float offset, float inverse, float bias) {
    float q[EMO__Q_SMALL], qq[EMO__Q_SMALL], xq[EMO__Q_SMALL];
    for (int i = 0; i < EMO__Q_SMALL; i++)
        q[i] = code_of(x[i], offset, inverse) - bias;
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        qq[i] = q[i] * q[i];
        xq[i] = x[i] * q[i];
    }
    return (sums){join(q), join(qq), join(xq)};
}

static void put_codes(const float *x, float offset, float inverse, uint8_t *out) {
    for (int i = 0; i < EMO__Q_SMALL; i++)
        out[i] = (uint8_t)code_of(x[i], offset, inverse);
}

/* Sums of x and of its squares. */
static void sum_inputs(const float *x, float *sx, float *sxx) {
    float squares[EMO__Q_SMALL];
    for (int i = 0; i < EMO__Q_SMALL; i++)
        squares[i] = x[i] * x[i];
    *sx = join(x);
    *sxx = join(squares);
}

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

/* The element of largest magnitude goes to -8, or a little beside it: the end that has one code more. Of the scales
 * tried the one is taken whose codes leave the least error with the scale that suits them best. */
static bool make_q4_0(unsigned char *block, const float *x) {
    enum { STEPS = 10 };
    float most = 0.0f, scale = 0.0f, inverse = 0.0f, best = 0.0f, sx, sxx;
    for (int i = 0; i < EMO__Q_SMALL; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    sum_inputs(x, &sx, &sxx);
    for (int step = -STEPS; step <= STEPS && fabsf(most) >= 1e-30f; step++) {
        float trial = (-8.0f + 0.15f * (float)step) / most;
        sums t = sum_codes(x, 8.0f / trial, trial, 8.0f);
        float s = t.qq > 0.0f ? as_f16(t.xq / t.qq) : 0.0f;
        float gain = s * (2.0f * t.xq - s * t.qq); /* what the error is below the sum of the squares */
        if (gain > best) {
            best = gain;
            scale = s;
            inverse = trial;
        }
    }
    uint8_t q[EMO__Q_SMALL];
    memset(q, 8, sizeof q);
    if (inverse != 0.0f)
        put_codes(x, 8.0f / inverse, inverse, q);
    for (int i = 0; i < EMO__Q_SMALL / 2; i++)
        block[2 + i] = (unsigned char)(q[i] | q[i + EMO__Q_SMALL / 2] << 4);
    return put_f16(block, scale);
}

/* ---- q4_k ---- */

/* x ~ scale q - offset over one group, scale and offset not negative. */
typedef struct line {
    float scale;
    float offset;
} line;

/* A group and its sums. */
typedef struct group {
    const float *x;
    float sx;
    float sxx;
} group;

static float inverse_of(line l) { return l.scale >= 1e-30f ? 1.0f / l.scale : 0.0f; }

/* The squared error of codes on a line. */
static float error_on(const group *g, line l, sums t) {
    const double n = EMO__Q_SMALL, s = (double)l.scale, o = (double)l.offset;
    double e = (double)g->sxx + s * (s * (double)t.qq - 2.0 * ((double)t.xq + o * (double)t.q)) +
               o * (2.0 * (double)g->sx + n * o);
    return (float)e;
}

/* The line that suits codes best: least squares. */
static line fit_line(const group *g, sums t) {
    const float n = (float)EMO__Q_SMALL;
    float det = n * t.qq - t.q * t.q;
    line l = {0.0f, 0.0f};
    if (det > 0.0f) {
        l.scale = (n * t.xq - g->sx * t.q) / det;
        l.offset = (t.q * t.xq - t.qq * g->sx) / det;
    } else if (g->sx < 0.0f) { /* one code for all */
        l.offset = -g->sx / n;
    } else {
        l.offset = -1.0f;
    }
    if (l.offset < 0.0f) {
        l.offset = 0.0f;
        l.scale = t.qq > 0.0f ? t.xq / t.qq : 0.0f;
    }
    l.scale = l.scale < 0.0f ? 0.0f : l.scale;
    return l;
}

/* The best line found from several first guesses: ranges a little wider and narrower than the group's own. */
static line search_line(const group *g) {
    enum { STEPS = 12, ROUNDS = 2 };
    float low = 0.0f, high = g->x[0];
    for (int i = 0; i < EMO__Q_SMALL; i++) {
        low = g->x[i] < low ? g->x[i] : low;
        high = g->x[i] > high ? g->x[i] : high;
    }
    line best = {0.0f, -low};
    if (!(high - low >= 1e-30f))
        return best;
    float least = INFINITY;
    for (int step = -STEPS; step <= STEPS; step++) {
        line l = {(high - low) / (15.0f + 0.25f * (float)step), -low};
        for (int round = 0; round < ROUNDS; round++) {
            sums t = sum_codes(g->x, l.offset, inverse_of(l), 0.0f);
            l = fit_line(g, t);
            float error = error_on(g, l, t);
            if (error < least) {
                least = error;
                best = l;
            }
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
static float settle_groups(const group *groups, super *b, const uint8_t *s0, const uint8_t *t0) {
    float total = 0.0f;
    for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
        float least = INFINITY;
        line best = {0.0f, 0.0f};
        for (int s = s0[g] - 1; s <= s0[g] + 1; s++)
            for (int t = t0[g] - 1; t <= t0[g] + 1; t++) {
                if (s < 0 || s > 63 || t < 0 || t > 63)
                    continue;
                line l = {b->d * (float)s, b->m * (float)t};
                float error = error_on(&groups[g], l, sum_codes(groups[g].x, l.offset, inverse_of(l), 0.0f));
                if (error < least) {
                    least = error;
                    best = l;
                    b->s[g] = (uint8_t)s;
                    b->t[g] = (uint8_t)t;
                }
            }
        put_codes(groups[g].x, best.offset, inverse_of(best), b->q + EMO__Q_SMALL * g);
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
    group groups[EMO__Q4_K_GROUPS];
    for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
        groups[g].x = x + EMO__Q_SMALL * g;
        sum_inputs(groups[g].x, &groups[g].sx, &groups[g].sxx);
        lines[g] = search_line(&groups[g]);
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
        float error = settle_groups(groups, &trial, s0, t0);
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
