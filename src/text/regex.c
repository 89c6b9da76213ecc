/* SPDX-License-Identifier: Apache-2.0 */
#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/status.h"
#include "text/dialect.h"
#include "text/unicode.h"

/* Since this version a plain \p{Han} means script extensions. */
#define SCRIPT_PREFIX (PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40)

#define MAX_PATTERN 65536u
#define MATCH_LIMIT 20000000u  /* PCRE2's steps of backtracking in one match */
#define HEAP_LIMIT_KIB 262144u /* a long word backtracks far; its frames lie on the heap */

struct emo__regex {
    const emo__mem *mem;
    pcre2_general_context *general;
    pcre2_match_context *match;
    pcre2_code *code;
};

static void *pcre_alloc(size_t size, void *ctx) { return emo__alloc(ctx, size); }
static void pcre_free(void *ptr, void *ctx) { emo__free(ctx, ptr); }

void emo__regex_destroy(emo__regex *regex) {
    if (regex == NULL)
        return;
    pcre2_code_free(regex->code);
    pcre2_match_context_free(regex->match);
    pcre2_general_context_free(regex->general);
    emo__free(regex->mem, regex);
}

static emo_status compile(emo__regex *regex, const emo__buf *pattern, bool literal, emo_error *err) {
    pcre2_compile_context *ctx = pcre2_compile_context_create(regex->general);
    if (ctx == NULL)
        return emo__fail_memory(err, sizeof(void *));
    int code = 0;
    PCRE2_SIZE offset = 0;
    uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK;
    options |= literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_DUPNAMES;
    (void)pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    regex->code = pcre2_compile((PCRE2_SPTR)pattern->data, pattern->size, options, &code, &offset, ctx);
    pcre2_compile_context_free(ctx);
    if (regex->code != NULL)
        return EMO_OK;
    if (code == PCRE2_ERROR_HEAP_FAILED)
        return emo__fail_memory(err, pattern->size);
    char message[160] = "";
    (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)offset,
                        "the regular expression '%.160s' does not compile: %s at byte %zu", pattern->data, message,
                        (size_t)offset);
}

emo_status emo__regex_create(const emo__mem *mem, const char *pattern, size_t length, bool literal, emo__regex **out,
                             emo_error *err) {
    *out = NULL;
    if (length == 0 || length > MAX_PATTERN)
        return emo__fail(err, EMO_E_FORMAT, "the split pattern has %zu bytes; it must have 1 to %u", length,
                         MAX_PATTERN);
    if (!emo__utf8_valid(pattern, length))
        return emo__fail(err, EMO_E_FORMAT, "the split pattern is not valid UTF-8");
    emo__regex *regex = emo__calloc(mem, 1, sizeof *regex);
    if (regex == NULL)
        return emo__fail_memory(err, sizeof *regex);
    regex->mem = mem;
    emo__buf translated;
    emo__buf_init(&translated, mem);
    emo_status status = literal ? emo__buf_append(&translated, pattern, length, err)
                                : emo__dialect_translate(&translated, pattern, length, SCRIPT_PREFIX, err);
    if (status == EMO_OK) {
        /* PCRE2 wants a mutable ctx; the allocation functions only read it */
        regex->general = pcre2_general_context_create(pcre_alloc, pcre_free, (void *)(uintptr_t)mem);
        if (regex->general != NULL)
            regex->match = pcre2_match_context_create(regex->general);
        if (regex->match == NULL)
            status = emo__fail_memory(err, sizeof(void *));
    }
    if (status == EMO_OK) {
        (void)pcre2_set_match_limit(regex->match, MATCH_LIMIT);
        (void)pcre2_set_heap_limit(regex->match, HEAP_LIMIT_KIB);
        status = compile(regex, &translated, literal, err);
    }
    emo__buf_free(&translated);
    if (status != EMO_OK) {
        emo__regex_destroy(regex);
        return status;
    }
    *out = regex;
    return EMO_OK;
}

void emo__regex_scratch_free(emo__regex_scratch *scratch) { pcre2_match_data_free((pcre2_match_data *)scratch); }

emo_status emo__regex_next(const emo__regex *regex, emo__regex_scratch **scratch, const char *text, size_t length,
                           size_t from, bool *found, size_t *begin, size_t *end, emo_error *err) {
    *found = false;
    if (*scratch == NULL) {
        *scratch = (emo__regex_scratch *)pcre2_match_data_create(1, regex->general);
        if (*scratch == NULL)
            return emo__fail_memory(err, sizeof(void *));
    }
    pcre2_match_data *data = (pcre2_match_data *)*scratch;
    int rc = pcre2_match(regex->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK, data, regex->match);
    if (rc == PCRE2_ERROR_NOMATCH)
        return EMO_OK;
    if (rc == PCRE2_ERROR_NOMEMORY)
        return emo__fail_memory(err, length);
    if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT)
        return emo__fail(err, EMO_E_LIMIT, "the split pattern takes too long at byte %zu of the text", from);
    if (rc < 0)
        return emo__fail_at(err, EMO_E_INTERNAL, EMO_DOMAIN_NONE, rc, "the split pattern failed with code %d", rc);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(data);
    /* \K can put the start behind the end */
    if (span[0] > span[1] || span[0] < from)
        return emo__fail(err, EMO_E_UNSUPPORTED, "the split pattern uses \\K");
    *found = true;
    *begin = span[0];
    *end = span[1];
    return EMO_OK;
}
