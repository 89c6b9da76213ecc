/* SPDX-License-Identifier: Apache-2.0 */
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/status.h"
#include "text/classes.h"

#define O EMO__CLASS_OTHER
#define L EMO__CLASS_LETTER
#define N EMO__CLASS_NUMBER
#define S EMO__CLASS_SPACE
const uint8_t emo__ascii_class[128] = {
    O, O, O, O, O, O, O, O, O, S, S, S, S, S, O, O, /* 00: \t \n \v \f \r */
    O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /* 10 */
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /* 20: the space */
    N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O, /* 30: digits */
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /* 40 */
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 50 */
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /* 60 */
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 70 */
};
#undef O
#undef L
#undef N
#undef S

int emo__char_class(uint32_t c) {
    if (c < 128)
        return emo__ascii_class[c];
    /* the last run that begins at c or before */
    size_t low = emo__class_pages[256], high = EMO__CLASS_RUNS - 1;
    if (c < 0x10000) {
        low = emo__class_pages[c >> 8];
        high = emo__class_pages[(c >> 8) + 1];
    }
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (emo__class_runs[middle] >> 2 <= c)
            low = middle;
        else
            high = middle - 1;
    }
    return (int)(emo__class_runs[low] & 3);
}

bool emo__is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* joiners, and the symbols that count as alphabetic */
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
               (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
    }
}

emo_status emo__utf8_clean(emo__buf *out, const char *text, size_t n, bool stream, size_t *left, emo_error *err) {
    size_t at = 0;
    *left = 0;
    while (at < n) {
        size_t valid = emo__utf8_valid_prefix(text + at, n - at);
        if (valid > 0) {
            emo_status status = emo__buf_append(out, text + at, valid, err);
            if (status != EMO_OK)
                return status;
            at += valid;
        }
        if (at == n)
            break;
        int bad = emo__utf8_check((const unsigned char *)text + at, n - at);
        if (bad == 0 && stream) {
            *left = n - at;
            break;
        }
        emo_status status = emo__buf_append(out, "\xEF\xBF\xBD", 3, err);
        if (status != EMO_OK)
            return status;
        at += bad == 0 ? n - at : (size_t)-bad;
    }
    return EMO_OK;
}

bool emo__utf8_surely_normal(emo__form form, const char *text, size_t n) {
    /* The first lead byte of characters that the form may change: U+0300, U+00C0, and all but ASCII. Below them there
     * are only starters. */
    static const unsigned char first[] = {[EMO__NFC] = 0xCC, [EMO__NFD] = 0xC3, [EMO__NFKC] = 0x80, [EMO__NFKD] = 0x80};
    unsigned char bound = first[form];
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] >= bound && ((unsigned char)text[i] & 0xC0) != 0x80)
            return false;
    }
    return true;
}

/* A stable order of combining marks by class: the low bits keep the place. */
static int compare_marks(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int combining_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

/* Canonical order of points[0..n); `marks` has room for n. utf8proc's own sort is quadratic in the length of a run,
 * which a hostile text would use. */
static void order_marks(int32_t *points, size_t n, uint64_t *marks, int32_t *copy) {
    size_t i = 0;
    while (i < n) {
        if (combining_class(points[i]) == 0) {
            i++;
            continue;
        }
        size_t begin = i, count = 0;
        for (; i < n; i++) {
            int ccc = combining_class(points[i]);
            if (ccc == 0)
                break;
            marks[count] = (uint64_t)(unsigned)ccc << 40 | count;
            copy[count] = points[i];
            count++;
        }
        if (count < 2)
            continue;
        qsort(marks, count, sizeof *marks, compare_marks);
        for (size_t k = 0; k < count; k++)
            points[begin + k] = copy[marks[k] & (((uint64_t)1 << 40) - 1)];
    }
}

emo_status emo__utf8_normalize(emo__form form, emo__buf *out, const char *text, size_t n, emo_error *err) {
    const emo__mem *mem = out->mem;
    emo_status status = EMO_OK;
    int32_t *points = NULL, *copy = NULL;
    uint64_t *marks = NULL;
    size_t capacity = 0, count = 0;
    const unsigned char *p = (const unsigned char *)text;
    bool compose = form == EMO__NFC || form == EMO__NFKC;
    utf8proc_option_t options =
        form == EMO__NFKC || form == EMO__NFKD ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += emo__utf8_read(p + i, &c);
        if (count + 32 > capacity) { /* the longest decomposition is 18 */
            status = emo__grow(mem, (void **)&points, &capacity, count + 32, sizeof *points, err);
            if (status != EMO_OK)
                goto done;
        }
        int boundary = 0;
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)c, points + count,
                                                     (utf8proc_ssize_t)(capacity - count), options, &boundary);
        if (k < 0 || (size_t)k > capacity - count) {
            status = emo__fail(err, EMO_E_INTERNAL, "U+%04X does not decompose", (unsigned)c);
            goto done;
        }
        count += (size_t)k;
    }
    if (count == 0)
        goto done;
    marks = emo__malloc_array(mem, count, sizeof *marks);
    copy = emo__malloc_array(mem, count, sizeof *copy);
    if (marks == NULL || copy == NULL) {
        status = emo__fail_memory(err, count * sizeof *marks);
        goto done;
    }
    order_marks(points, count, marks, copy);
    utf8proc_ssize_t composed = (utf8proc_ssize_t)count;
    if (compose)
        composed = utf8proc_normalize_utf32(points, composed, (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (composed < 0) {
        status = emo__fail(err, EMO_E_INTERNAL, "normalisation failed");
        goto done;
    }
    if ((status = emo__buf_reserve(out, 4 * (size_t)composed + 1, err)) != EMO_OK)
        goto done;
    for (size_t i = 0; i < (size_t)composed; i++)
        out->size += emo__utf8_write((uint32_t)points[i], (unsigned char *)out->data + out->size);
    out->data[out->size] = 0;
done:
    emo__free(mem, points);
    emo__free(mem, marks);
    emo__free(mem, copy);
    return status;
}
