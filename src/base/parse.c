/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A decimal number is digits * 10^exponent. 800 digits decide every rounding (a halfway case has at most 767); what
 * follows only matters as "not zero". */
#define MAX_DIGITS 800
/* ceil(log2(10^1145)) + bits of 800 digits + slack, in 32-bit limbs. */
#define LIMBS 256

typedef struct bignum {
    uint32_t limb[LIMBS]; /* little-endian */
    size_t n;
} bignum;

static void big_mul_add(bignum *b, uint32_t factor, uint32_t add) {
    uint64_t carry = add;
    for (size_t i = 0; i < b->n; i++) {
        carry += (uint64_t)b->limb[i] * factor;
        b->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry != 0 && b->n < LIMBS)
        b->limb[b->n++] = (uint32_t)carry;
}

/* b = floor(b / divisor); true when a remainder was dropped. */
static bool big_div(bignum *b, uint32_t divisor) {
    uint64_t rest = 0;
    for (size_t i = b->n; i-- > 0;) {
        rest = rest << 32 | b->limb[i];
        b->limb[i] = (uint32_t)(rest / divisor);
        rest %= divisor;
    }
    while (b->n > 0 && b->limb[b->n - 1] == 0)
        b->n--;
    return rest != 0;
}

static void big_shift_limbs(bignum *b, size_t by) {
    memmove(b->limb + by, b->limb, b->n * sizeof b->limb[0]);
    memset(b->limb, 0, by * sizeof b->limb[0]);
    b->n += by;
}

/* The value b * 2^scale (plus something positive below one unit when sticky), rounded to nearest, ties to even. */
static double big_to_double(const bignum *b, int scale, bool sticky) {
    if (b->n == 0)
        return 0.0;
    int top = 32 * (int)b->n; /* bits, made exact below */
    for (uint32_t high = b->limb[b->n - 1]; (high & 0x80000000u) == 0; high <<= 1)
        top--;
    /* Weight of the last bit kept: 53 bits, fewer for subnormals. */
    int last = top - 53;
    if (last + scale < -1074)
        last = -1074 - scale;
    uint64_t mantissa = 0;
    bool half = false;
    for (int bit = top - 1; bit >= 0; bit--) {
        bool one = (b->limb[bit / 32] >> (bit % 32) & 1u) != 0;
        if (bit >= last)
            mantissa = mantissa << 1 | (one ? 1u : 0u);
        else if (bit == last - 1)
            half = one;
        else if (one) {
            sticky = true;
            break;
        }
    }
    if (last > top) /* everything is below half of the last bit */
        return 0.0;
    if (last < 0) /* fewer bits than a double has: exact */
        return ldexp((double)mantissa, scale);
    if (half && (sticky || (mantissa & 1u) != 0))
        mantissa++;
    return ldexp((double)mantissa, last + scale);
}

static double decimal_to_double(const unsigned char *digits, size_t n, int exponent, bool sticky) {
    bignum b;
    b.n = 0;
    for (size_t i = 0; i < n; i++)
        big_mul_add(&b, 10, digits[i]);
    int scale = 0;
    if (exponent >= 0) {
        for (; exponent >= 9; exponent -= 9)
            big_mul_add(&b, 1000000000u, 0);
        for (; exponent > 0; exponent--)
            big_mul_add(&b, 10, 0);
    } else {
        /* 3.33 bits are lost per digit; keep two limbs more than a double needs. */
        size_t limbs = (size_t)(-exponent) * 4 / 32 + 4;
        big_shift_limbs(&b, limbs);
        scale = -32 * (int)limbs;
        for (; exponent <= -9; exponent += 9)
            sticky |= big_div(&b, 1000000000u);
        for (; exponent < 0; exponent++)
            sticky |= big_div(&b, 10);
    }
    return big_to_double(&b, scale, sticky);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool emo__parse_double(const char *text, size_t length, double *out) {
    const char *p = text;
    const char *end = text + length;
    bool negative = false;
    if (p < end && (*p == '-' || *p == '+'))
        negative = *p++ == '-';
    unsigned char digits[MAX_DIGITS];
    size_t n = 0;
    long exponent = 0;
    bool any = false;
    bool sticky = false;
    bool after_point = false;
    for (; p < end && (is_digit(*p) || (*p == '.' && !after_point)); p++) {
        if (*p == '.') {
            after_point = true;
            continue;
        }
        any = true;
        unsigned char d = (unsigned char)(*p - '0');
        if (n == 0 && d == 0) {
            exponent -= after_point;
        } else if (n < MAX_DIGITS) {
            digits[n++] = d;
            exponent -= after_point;
        } else {
            sticky |= d != 0;
            exponent += !after_point;
        }
    }
    if (!any)
        return false;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        bool down = false;
        if (p < end && (*p == '-' || *p == '+'))
            down = *p++ == '-';
        if (p == end)
            return false;
        long e = 0;
        for (; p < end && is_digit(*p); p++)
            e = e < 1000000000 ? e * 10 + (*p - '0') : e;
        exponent += down ? -e : e;
    }
    if (p != end)
        return false;
    double value = 0.0;
    if (n > 0) {
        long magnitude = (long)n + exponent; /* 10^(magnitude - 1) <= value < 10^magnitude */
        if (magnitude > 310)
            return false;
        if (magnitude >= -330)
            value = decimal_to_double(digits, n, (int)exponent, sticky);
        if (isinf(value))
            return false;
    }
    *out = negative ? -value : value;
    return true;
}

bool emo__parse_i64(const char *text, size_t length, int64_t *out) {
    size_t i = 0;
    bool negative = false;
    if (length > 0 && (text[0] == '-' || text[0] == '+')) {
        negative = text[0] == '-';
        i = 1;
    }
    if (i == length)
        return false;
    int64_t value = 0; /* kept negative, as that side reaches further */
    for (; i < length; i++) {
        if (!is_digit(text[i]))
            return false;
        if (__builtin_mul_overflow(value, (int64_t)10, &value) ||
            __builtin_sub_overflow(value, (int64_t)(text[i] - '0'), &value))
            return false;
    }
    if (!negative && value == INT64_MIN)
        return false;
    *out = negative ? value : -value;
    return true;
}

/* snprintf writes the locale's decimal point; put '.' in its place. */
static size_t print_digits(char text[EMO__NUMBER_TEXT], int precision, double value) {
    int n = snprintf(text, EMO__NUMBER_TEXT, "%.*g", precision, value);
    if (n < 0 || (size_t)n >= EMO__NUMBER_TEXT)
        return 0;
    size_t length = 0;
    bool point = false;
    for (size_t i = 0; i < (size_t)n; i++) {
        char c = text[i];
        if (is_digit(c) || c == '-' || c == '+' || c == 'e') {
            text[length++] = c;
        } else if (!point) { /* a point of several bytes counts once */
            text[length++] = '.';
            point = true;
        }
    }
    text[length] = '\0';
    return length;
}

size_t emo__format_f64(char text[EMO__NUMBER_TEXT], double value) {
    if (!isfinite(value)) {
        memcpy(text, "null", 5);
        return 4;
    }
    size_t length = 0;
    for (int precision = 1; precision <= 17; precision = precision < 15 ? precision + 7 : precision + 1) {
        double back = 0.0;
        length = print_digits(text, precision, value);
        if (emo__parse_double(text, length, &back) && back == value)
            break;
    }
    return length;
}

size_t emo__format_f32(char text[EMO__NUMBER_TEXT], float value) {
    if (!isfinite(value)) {
        memcpy(text, "null", 5);
        return 4;
    }
    size_t length = 0;
    for (int precision = 6; precision <= 9; precision++) {
        double back = 0.0;
        length = print_digits(text, precision, (double)value);
        if (emo__parse_double(text, length, &back) && (float)back == value)
            break;
    }
    return length;
}
