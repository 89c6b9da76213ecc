/* SPDX-License-Identifier: Apache-2.0 */
/* Pool policies as text: FORM[,forced:N][,eval:N][,scope:document|row|prompt], the form as in emo/pool.h. */
#include <string.h>

#include "base/parse.h"
#include "base/status.h"
#include "moe/pool.h"

#define FORMS                                                                                                          \
    "none, fixed:P, uniform:MIN:MAX, mass:M:MIN:MAX, scheduled:MIN:STEPS, prompt:P or table:LAYERS:DOCUMENTS:SIZES, "  \
    "then ,forced:N ,eval:N ,scope:document|row|prompt"

static const char *const scopes[] = {"document", "row", "prompt"};

/* A piece of the text. */
typedef struct piece {
    const char *text;
    size_t length;
} piece;

/* Takes what stands before the next `mark` (or all) off the front; false when nothing is left. */
static bool next(piece *from, char mark, piece *out) {
    if (from->text == NULL)
        return false;
    const char *end = memchr(from->text, mark, from->length);
    out->text = from->text;
    out->length = end != NULL ? (size_t)(end - from->text) : from->length;
    from->length -= out->length + (end != NULL ? 1 : 0);
    from->text = end != NULL ? end + 1 : NULL;
    return true;
}

static bool is(piece p, const char *word) { return p.length == strlen(word) && memcmp(p.text, word, p.length) == 0; }

/* Numbers have no sign. */
static bool whole_number(piece p, int64_t *value) {
    return p.length > 0 && p.text[0] != '-' && p.text[0] != '+' && emo__parse_i64(p.text, p.length, value);
}

static int32_t small(int64_t value) { return value > INT32_MAX ? INT32_MAX : (int32_t)value; }

/* Exactly `count` whole numbers. */
static bool numbers(piece rest, int64_t *values, int count) {
    piece p;
    int n = 0;
    while (next(&rest, ':', &p)) {
        if (n == count || !whole_number(p, &values[n++]))
            return false;
    }
    return n == count;
}

/* LAYERS:DOCUMENTS:SIZE:SIZE... *fits: the text is of this form. */
static emo_status read_table(emo_runtime *rt, piece rest, bool *fits, emo_pool_policy **out, emo_error *err) {
    int64_t layers = 0;
    int64_t documents = 0;
    int64_t size = 0;
    size_t count = 0;
    piece p;
    *fits = next(&rest, ':', &p) && whole_number(p, &layers) && next(&rest, ':', &p) && whole_number(p, &documents) &&
            layers > 0 && documents > 0 && rest.text != NULL;
    size_t most = *fits ? rest.length / 2 + 1 : 0; /* a digit and a colon each */
    *fits = *fits && (uint64_t)layers <= most && (uint64_t)documents <= most;
    if (!*fits)
        return EMO_OK;
    int32_t *sizes = emo__malloc_array(&rt->mem, most, sizeof *sizes);
    if (sizes == NULL)
        return emo__fail_memory(err, most * sizeof *sizes);
    while (*fits && next(&rest, ':', &p)) {
        *fits = count < most && whole_number(p, &size);
        if (*fits)
            sizes[count++] = small(size);
    }
    *fits = *fits && count / (size_t)documents == (size_t)layers && count % (size_t)documents == 0;
    emo_status status = *fits ? emo_pool_policy_create_table(rt, (int32_t)layers, documents, sizes, out, err) : EMO_OK;
    emo__free(&rt->mem, sizes);
    return status;
}

static emo_status read_form(emo_runtime *rt, piece form, bool *fits, emo_pool_policy **out, emo_error *err) {
    piece name;
    piece first;
    int64_t v[2] = {0, 0};
    double mass = 0.0;
    *fits = true;
    (void)next(&form, ':', &name);
    if (is(name, "none") && form.text == NULL)
        return emo_pool_policy_create_none(rt, out, err);
    if (is(name, "fixed") && numbers(form, v, 1))
        return emo_pool_policy_create_fixed(rt, small(v[0]), out, err);
    if (is(name, "uniform") && numbers(form, v, 2))
        return emo_pool_policy_create_uniform(rt, small(v[0]), small(v[1]), out, err);
    if (is(name, "scheduled") && numbers(form, v, 2))
        return emo_pool_policy_create_scheduled(rt, small(v[0]), v[1], out, err);
    if (is(name, "prompt") && numbers(form, v, 1))
        return emo_pool_policy_from_prompt(rt, small(v[0]), out, err);
    if (is(name, "mass") && next(&form, ':', &first) && first.length > 0 && first.text[0] != '-' &&
        first.text[0] != '+' && emo__parse_double(first.text, first.length, &mass) && numbers(form, v, 2))
        return emo_pool_policy_create_mass(rt, (float)mass, small(v[0]), small(v[1]), out, err);
    if (is(name, "table"))
        return read_table(rt, form, fits, out, err);
    *fits = false;
    return EMO_OK;
}

/* NAME:VALUE behind the form; each once. */
static emo_status read_option(emo_pool_policy *policy, piece option, bool given[3], bool *fits, emo_error *err) {
    static const char *const names[3] = {"forced", "eval", "scope"};
    piece name;
    int64_t value = 0;
    int which = 0;
    (void)next(&option, ':', &name);
    while (which < 3 && !is(name, names[which]))
        which++;
    *fits = which < 3 && !given[which] && option.text != NULL;
    if (!*fits)
        return EMO_OK;
    given[which] = true;
    if (which == 2) {
        int32_t scope = 0;
        while (scope < 3 && !is(option, scopes[scope]))
            scope++;
        *fits = scope < 3;
        return *fits ? emo_pool_policy_set_scope(policy, scope, err) : EMO_OK;
    }
    *fits = whole_number(option, &value);
    if (!*fits)
        return EMO_OK;
    return which == 0 ? emo_pool_policy_set_forced(policy, small(value), err)
                      : emo_pool_policy_set_eval_pool(policy, small(value), err);
}

emo_status emo_pool_policy_parse(emo_runtime *runtime, const char *text, emo_pool_policy **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (runtime == NULL || text == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "text");
    piece rest = {text, strlen(text)};
    piece p;
    bool given[3] = {false, false, false};
    bool fits = false;
    emo_pool_policy *policy = NULL;
    (void)next(&rest, ',', &p);
    emo_status status = read_form(runtime, p, &fits, &policy, err);
    while (status == EMO_OK && fits && next(&rest, ',', &p))
        status = read_option(policy, p, given, &fits, err);
    if (status == EMO_OK && fits) {
        *out = policy;
        return EMO_OK;
    }
    emo_pool_policy_release(policy);
    return status != EMO_OK
               ? status
               : emo__fail(err, EMO_E_INVALID_ARGUMENT, "pool policy \"%.80s\"; it is one of " FORMS, text);
}

/* ---- writing ---- */

static emo_status put_table(const emo_pool_policy *policy, emo__buf *out, emo_error *err) {
    int64_t count = policy->table_layers * policy->table_documents;
    emo_status status =
        emo__buf_printf(out, err, "table:%d:%lld", (int)policy->table_layers, (long long)policy->table_documents);
    for (int64_t i = 0; status == EMO_OK && i < count; i++)
        status = emo__buf_printf(out, err, ":%d", (int)policy->table[i]);
    return status;
}

static emo_status put_form(const emo_pool_policy *policy, emo__buf *out, emo_error *err) {
    char mass[EMO__NUMBER_TEXT];
    switch (policy->kind) {
    case EMO_POOL_FIXED:
        return emo__buf_printf(out, err, "%s:%d", policy->scope == EMO_POOL_SCOPE_PROMPT ? "prompt" : "fixed",
                               (int)policy->min);
    case EMO_POOL_UNIFORM:
        return emo__buf_printf(out, err, "uniform:%d:%d", (int)policy->min, (int)policy->max);
    case EMO_POOL_MASS:
        (void)emo__format_f32(mass, policy->mass);
        return emo__buf_printf(out, err, "mass:%s:%d:%d", mass, (int)policy->min, (int)policy->max);
    case EMO_POOL_SCHEDULED:
        return emo__buf_printf(out, err, "scheduled:%d:%lld", (int)policy->min, (long long)policy->decay_steps);
    case EMO_POOL_TABLE:
        return put_table(policy, out, err);
    default:
        return emo__buf_printf(out, err, "none");
    }
}

/* With the final NUL. */
static emo_status describe(const emo_pool_policy *policy, emo__buf *out, emo_error *err) {
    bool said = policy->kind == EMO_POOL_FIXED && policy->scope == EMO_POOL_SCOPE_PROMPT; /* by the form */
    emo_status status = put_form(policy, out, err);
    if (status == EMO_OK && policy->forced > 0)
        status = emo__buf_printf(out, err, ",forced:%d", (int)policy->forced);
    if (status == EMO_OK && policy->eval_pool > 0)
        status = emo__buf_printf(out, err, ",eval:%d", (int)policy->eval_pool);
    if (status == EMO_OK && policy->scope != EMO_POOL_SCOPE_DOCUMENT && !said)
        status = emo__buf_printf(out, err, ",scope:%s", scopes[policy->scope]);
    return status == EMO_OK ? emo__buf_append(out, "", 1, err) : status;
}

emo_status emo__pool_describe(const emo_pool_policy *policy, emo__buf *out, emo_error *err) {
    emo__guard *guard = (emo__guard *)(uintptr_t)&policy->guard;
    if (!emo__guard_try_read(guard))
        return emo__fail(err, EMO_E_BUSY, "the pool policy is being changed by another thread");
    emo_status status = describe(policy, out, err);
    emo__guard_end_read(guard);
    return status;
}

bool emo__pool_trains_alike(const emo_pool_policy *a, const emo_pool_policy *b) {
    if (a->kind != b->kind || a->min != b->min || a->max != b->max || a->decay_steps != b->decay_steps ||
        a->mass < b->mass || a->mass > b->mass || a->table_layers != b->table_layers ||
        a->table_documents != b->table_documents)
        return false;
    size_t count = (size_t)a->table_layers * (size_t)a->table_documents;
    return count == 0 || memcmp(a->table, b->table, count * sizeof *a->table) == 0;
}

emo_status emo_pool_policy_describe(const emo_pool_policy *policy, char *buffer, size_t capacity, size_t *size,
                                    emo_error *err) {
    emo__error_clear(err);
    if (size != NULL)
        *size = 0;
    if (policy == NULL || size == NULL || (capacity > 0 && buffer == NULL))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL",
                         policy == NULL ? "policy"
                         : size == NULL ? "size"
                                        : "buffer");
    emo__buf text;
    emo__buf_init(&text, &policy->rt->mem);
    emo_status status = emo__pool_describe(policy, &text, err);
    if (status == EMO_OK) {
        *size = text.size;
        if (capacity >= text.size)
            memcpy(buffer, text.data, text.size);
        else if (capacity > 0)
            status =
                emo__fail(err, EMO_E_LIMIT, "the description needs %zu bytes; there is room for %zu", *size, capacity);
    }
    emo__buf_free(&text);
    return status;
}
