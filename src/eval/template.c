/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/template.h"

#include <string.h>

#include "base/parse.h"
#include "base/status.h"

enum { FILTER_STRIP, FILTER_LOWER, FILTER_SPACES, FILTER_UNBRACKET, FILTER_BEFORE, FILTER_AFTER, FILTERS };
static const char *const filter_names[FILTERS] = {"strip", "lower", "spaces", "unbracket", "before", "after"};
#define FILTER_LIST "strip, lower, spaces, unbracket, before X, after X"

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* ---- parsing ---- */

static void trim(const char **text, size_t *length) {
    while (*length > 0 && is_space(**text)) {
        (*text)++;
        (*length)--;
    }
    while (*length > 0 && is_space((*text)[*length - 1]))
        (*length)--;
}

static bool same(const char *text, size_t length, const char *word) {
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static emo_status add_piece(emo__template *t, emo__piece_kind kind, const char *text, size_t length, emo_error *err) {
    emo_status status = emo__grow(t->mem, (void **)&t->pieces, &t->capacity, t->count + 1, sizeof *t->pieces, err);
    if (status != EMO_OK)
        return status;
    emo__piece *piece = &t->pieces[t->count++];
    memset(piece, 0, sizeof *piece);
    piece->kind = kind;
    if (text != NULL && (piece->text = emo__strndup(t->mem, text, length)) == NULL)
        return emo__fail_memory(err, length + 1);
    return EMO_OK;
}

static emo_status add_filter(emo__template *t, const char *text, size_t length, const char *where, emo_error *err) {
    emo__piece *piece = &t->pieces[t->count - 1];
    const char *whole = text;
    size_t whole_length = length;
    trim(&whole, &whole_length);
    size_t word = 0;
    while (word < whole_length && !is_space(whole[word]))
        word++;
    int kind = 0;
    while (kind < FILTERS && !same(whole, word, filter_names[kind]))
        kind++;
    if (kind == FILTERS)
        return emo__fail(err, EMO_E_FORMAT, "%s: there is no filter \"%.*s\"; there are " FILTER_LIST, where,
                         (int)(word < 60 ? word : 60), whole);
    bool wants = kind >= FILTER_BEFORE;
    const char *argument = whole + word;
    size_t length_left = whole_length - word;
    trim(&argument, &length_left);
    if (wants != (length_left > 0))
        return emo__fail(err, EMO_E_FORMAT, "%s: the filter \"%s\" takes %s", where, filter_names[kind],
                         wants ? "the text to look for, as in {sentence|before _}" : "no argument");
    if (piece->n_filters == EMO__FILTERS)
        return emo__fail(err, EMO_E_FORMAT, "%s: more than %d filters on one field", where, EMO__FILTERS);
    emo__filter *filter = &piece->filters[piece->n_filters++];
    filter->kind = kind;
    if (wants && (filter->argument = emo__strndup(t->mem, argument, length_left)) == NULL)
        return emo__fail_memory(err, length_left + 1);
    return EMO_OK;
}

static emo__piece_kind kind_of(const char *name, size_t length, int names) {
    if ((names & EMO__NAMES_CHOICES) != 0 && same(name, length, "choices"))
        return EMO__PIECE_CHOICES;
    if ((names & EMO__NAMES_CHOICE) != 0 && same(name, length, "choice"))
        return EMO__PIECE_CHOICE;
    if ((names & EMO__NAMES_CHOICE) != 0 && same(name, length, "letter"))
        return EMO__PIECE_LETTER;
    if ((names & EMO__NAMES_ANSWER) != 0 && same(name, length, "answer"))
        return EMO__PIECE_ANSWER;
    return EMO__PIECE_FIELD;
}

/* What stands between the braces. */
static emo_status add_field(emo__template *t, const char *text, size_t length, int names, const char *where,
                            emo_error *err) {
    const char *bar = memchr(text, '|', length);
    const char *name = text;
    size_t name_length = bar != NULL ? (size_t)(bar - text) : length;
    trim(&name, &name_length);
    if (name_length == 0 || memchr(name, '{', name_length) != NULL)
        return emo__fail(err, EMO_E_FORMAT,
                         "%s: \"{%.*s}\" names no field; write {name}, and {{ or }} for a brace itself", where,
                         (int)(length < 60 ? length : 60), text);
    emo__piece_kind kind = kind_of(name, name_length, names);
    emo_status status = add_piece(t, kind, kind == EMO__PIECE_FIELD ? name : NULL, name_length, err);
    while (status == EMO_OK && bar != NULL) {
        const char *begin = bar + 1;
        size_t left = (size_t)(text + length - begin);
        bar = memchr(begin, '|', left);
        status = add_filter(t, begin, bar != NULL ? (size_t)(bar - begin) : left, where, err);
    }
    return status;
}

/* Plain text up to the next single brace; doubled braces become one. Advances *at. */
static emo_status add_text(emo__template *t, const char *text, size_t *at, emo_error *err) {
    emo__buf plain;
    emo__buf_init(&plain, t->mem);
    emo_status status = EMO_OK;
    while (status == EMO_OK && text[*at] != '\0') {
        char c = text[*at];
        if ((c == '{' || c == '}') && text[*at + 1] != c)
            break;
        status = emo__buf_append(&plain, &c, 1, err);
        *at += c == '{' || c == '}' ? 2 : 1;
    }
    if (status == EMO_OK && plain.size > 0)
        status = add_piece(t, EMO__PIECE_TEXT, plain.data, plain.size, err);
    emo__buf_free(&plain);
    return status;
}

emo_status emo__template_parse(const emo__mem *mem, const char *text, int names, const char *where, emo__template *out,
                               emo_error *err) {
    memset(out, 0, sizeof *out);
    out->mem = mem;
    if (strlen(text) > EMO__TEMPLATE_MAX)
        return emo__fail(err, EMO_E_LIMIT, "%s: %zu bytes; at most %zu are possible", where, strlen(text),
                         EMO__TEMPLATE_MAX);
    emo_status status = EMO_OK;
    for (size_t at = 0; status == EMO_OK && text[at] != '\0';) {
        status = add_text(out, text, &at, err);
        if (status != EMO_OK || text[at] == '\0')
            break;
        const char *end = text[at] == '{' ? strchr(text + at, '}') : NULL;
        if (end == NULL) {
            status =
                emo__fail(err, EMO_E_FORMAT, "%s: the '%c' at byte %zu has no partner; write %c%c for the sign itself",
                          where, text[at], at, text[at], text[at]);
            break;
        }
        const char *begin = text + at + 1;
        status = add_field(out, begin, (size_t)(end - begin), names, where, err);
        at = (size_t)(end - text) + 1;
    }
    return status;
}

void emo__template_free(emo__template *t) {
    for (size_t i = 0; i < t->count; i++) {
        emo__free(t->mem, t->pieces[i].text);
        for (int f = 0; f < t->pieces[i].n_filters; f++)
            emo__free(t->mem, t->pieces[i].filters[f].argument);
    }
    if (t->mem != NULL)
        emo__free(t->mem, t->pieces);
    memset(t, 0, sizeof *t);
}

bool emo__template_uses(const emo__template *t, emo__piece_kind kind) {
    for (size_t i = 0; i < t->count; i++) {
        if (t->pieces[i].kind == kind)
            return true;
    }
    return false;
}

/* ---- fields ---- */

static bool to_index(const char *text, size_t length, size_t *out) {
    int64_t value = 0;
    if (!emo__parse_i64(text, length, &value) || value < 0)
        return false;
    *out = (size_t)value;
    return true;
}

const emo__json *emo__field(const emo__json *item, const char *path) {
    const emo__json *whole = emo__json_get(item, path);
    if (whole != NULL || strchr(path, '.') == NULL)
        return whole;
    const emo__json *node = item;
    char key[256];
    for (const char *at = path; node != NULL;) {
        const char *dot = strchr(at, '.');
        size_t length = dot != NULL ? (size_t)(dot - at) : strlen(at);
        size_t index = 0;
        if (length >= sizeof key)
            return NULL;
        memcpy(key, at, length);
        key[length] = '\0';
        if (emo__json_typeof(node) == EMO__JSON_ARRAY)
            node = to_index(key, length, &index) ? emo__json_at(node, index) : NULL;
        else
            node = emo__json_get(node, key);
        if (dot == NULL)
            break;
        at = dot + 1;
    }
    return node;
}

bool emo__field_text(const emo__json *node, emo__buf *out, emo_status *status, emo_error *err) {
    char number[EMO__NUMBER_TEXT];
    int64_t integer = 0;
    double real = 0.0;
    bool truth = false;
    size_t length = 0;
    const char *text = emo__json_string(node, &length);
    *status = EMO_OK;
    if (text != NULL) {
        if (memchr(text, 0, length) != NULL)
            return false;
        *status = emo__buf_append(out, text, length, err);
    } else if (emo__json_bool(node, &truth))
        *status = emo__buf_printf(out, err, "%s", truth ? "true" : "false");
    else if (emo__json_typeof(node) == EMO__JSON_INTEGER && emo__json_i64(node, &integer))
        *status = emo__buf_printf(out, err, "%lld", (long long)integer);
    else if (emo__json_f64(node, &real))
        *status = emo__buf_append(out, number, emo__format_f64(number, real), err);
    else
        return false;
    return true;
}

/* ---- filters: each makes a text shorter or leaves it as long ---- */

static void keep(emo__buf *text, size_t begin, size_t size) {
    memmove(text->data, text->data + begin, size);
    text->size = size;
    text->data[size] = '\0';
}

static void strip(emo__buf *text) {
    const char *begin = text->data;
    size_t size = text->size;
    trim(&begin, &size);
    keep(text, (size_t)(begin - text->data), size);
}

/* Marks such as "[header]" go, " [title]" becomes ". ", and two spaces one: how-to articles as HellaSwag has them. */
static void unbracket(emo__buf *text) {
    static const char title[] = " [title]";
    size_t to = 0;
    strip(text);
    char *s = text->data;
    for (size_t i = 0; i < text->size;) {
        const char *end = s[i] == '[' ? memchr(s + i, ']', text->size - i) : NULL;
        if (text->size - i >= sizeof title - 1 && memcmp(s + i, title, sizeof title - 1) == 0) {
            s[to++] = '.';
            s[to++] = ' ';
            i += sizeof title - 1;
        } else if (end != NULL) {
            i = (size_t)(end - s) + 1;
        } else {
            s[to++] = s[i++];
        }
    }
    text->size = to;
    to = 0;
    for (size_t i = 0; i < text->size; i++) {
        s[to++] = s[i];
        if (s[i] == ' ' && i + 1 < text->size && s[i + 1] == ' ')
            i++;
    }
    keep(text, 0, to);
}

static const char *find(const emo__buf *text, const char *what) {
    size_t length = strlen(what);
    for (size_t i = 0; i + length <= text->size; i++) {
        if (memcmp(text->data + i, what, length) == 0)
            return text->data + i;
    }
    return NULL;
}

static emo_status apply(const emo__filter *filter, const emo__piece *piece, const emo__values *v, emo__buf *text,
                        emo_error *err) {
    if (text->size == 0)
        return EMO_OK;
    const char *found = filter->argument != NULL ? find(text, filter->argument) : NULL;
    switch (filter->kind) {
    case FILTER_STRIP:
        strip(text);
        break;
    case FILTER_LOWER:
        for (size_t i = 0; i < text->size; i++)
            text->data[i] = (char)(text->data[i] >= 'A' && text->data[i] <= 'Z' ? text->data[i] + 32 : text->data[i]);
        break;
    case FILTER_SPACES:
        for (size_t i = 0; i < text->size; i++)
            text->data[i] = text->data[i] == '_' ? ' ' : text->data[i];
        break;
    case FILTER_UNBRACKET:
        unbracket(text);
        break;
    default: /* before, after */
        if (found == NULL)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%.80s\" has no \"%.40s\" in it", v->where,
                                piece->text != NULL ? piece->text : "the text", filter->argument);
        if (filter->kind == FILTER_BEFORE)
            keep(text, 0, (size_t)(found - text->data));
        else
            keep(text, (size_t)(found - text->data) + strlen(filter->argument),
                 text->size - (size_t)(found - text->data) - strlen(filter->argument));
        break;
    }
    return EMO_OK;
}

/* ---- rendering ---- */

static emo_status render_field(const emo__piece *piece, const emo__values *v, emo__buf *out, emo_error *err) {
    emo_status status = EMO_OK;
    const emo__json *node = emo__field(v->item, piece->text);
    if (node == NULL)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: there is no field \"%.80s\", which a template of the task uses", v->where,
                            piece->text);
    if (!emo__field_text(node, out, &status, err))
        return emo__fail_at(
            err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
            "%s: \"%.80s\" must be text (without NULs), a number or a truth value to stand in a template", v->where,
            piece->text);
    return status;
}

static emo_status render_choices(const emo__values *v, emo__buf *out, emo_error *err) {
    emo__values one = *v;
    emo_status status = EMO_OK;
    for (one.choice = 0; status == EMO_OK && one.choice < v->n_choices; one.choice++)
        status = emo__template_render(v->row, &one, out, err);
    return status;
}

static emo_status render_piece(const emo__piece *piece, const emo__values *v, emo__buf *out, emo_error *err) {
    switch (piece->kind) {
    case EMO__PIECE_TEXT:
        return emo__buf_append(out, piece->text, strlen(piece->text), err);
    case EMO__PIECE_FIELD:
        return render_field(piece, v, out, err);
    case EMO__PIECE_CHOICES:
        return render_choices(v, out, err);
    case EMO__PIECE_CHOICE:
        return emo__buf_append(out, v->choices[v->choice], strlen(v->choices[v->choice]), err);
    case EMO__PIECE_LETTER:
        return emo__buf_append(out, &"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[v->choice], 1, err);
    default:
        return emo__buf_append(out, v->answer, strlen(v->answer), err);
    }
}

emo_status emo__template_render(const emo__template *t, const emo__values *v, emo__buf *out, emo_error *err) {
    emo__buf text;
    emo__buf_init(&text, t->mem);
    emo_status status = emo__buf_reserve(out, 1, err); /* text in it, if empty */
    for (size_t i = 0; status == EMO_OK && i < t->count; i++) {
        const emo__piece *piece = &t->pieces[i];
        text.size = 0;
        status = render_piece(piece, v, piece->n_filters > 0 ? &text : out, err);
        for (int f = 0; status == EMO_OK && f < piece->n_filters; f++)
            status = apply(&piece->filters[f], piece, v, &text, err);
        if (status == EMO_OK && piece->n_filters > 0)
            status = emo__buf_append(out, text.data, text.size, err);
        if (status == EMO_OK && out->size > EMO__TEXT_MAX)
            status = emo__fail(err, EMO_E_LIMIT, "%s: a template becomes more than %zu bytes", v->where, EMO__TEXT_MAX);
    }
    emo__buf_free(&text);
    return status;
}
