/* SPDX-License-Identifier: Apache-2.0 */
/* JSON text to nodes, strictly after RFC 8259: UTF-8 is validated, keys of an object differ, nothing follows the value.
 *
 * Values wait on a stack until their container closes; then they move behind each other into the array of nodes, so
 * that the children of a node always lie in a row. Containers that are open are kept in a frame each: nothing recurses.
 */
#include <string.h>

#include "base/parse.h"
#include "base/status.h"
#include "base/utf8.h"
#include "io/json_node.h"
#include "io/names.h"

typedef struct frame {
    bool object;
    size_t first;    /* of its values on the stack */
    const char *key; /* its own, in the object around it */
    uint32_t key_length;
} frame;

typedef struct parser {
    const emo__mem *mem;
    const char *where;
    emo_error *err;
    const char *text;
    const char *at;
    const char *end;
    char *strings; /* decoded; never more than the text is long, so this never moves */
    char *free_string;
    emo__json *stack;
    size_t stacked, stack_room;
    emo__json *nodes;
    size_t count, node_room;
    frame frames[EMO__JSON_MAX_DEPTH];
    unsigned depth;
    const char *key; /* of the value that comes next */
    uint32_t key_length;
} parser;

static emo_status wrong(const parser *p, const char *at, const char *what) {
    long long line = 1;
    const char *begin = p->text;
    for (const char *c = p->text; c < at; c++) {
        if (*c == '\n') {
            line++;
            begin = c + 1;
        }
    }
    return emo__fail_at(p->err, EMO_E_FORMAT, EMO_DOMAIN_FILE, line, "%s: invalid JSON, line %lld column %lld: %s",
                        p->where, line, (long long)(at - begin) + 1, what);
}

static void skip_space(parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\r' || *p->at == '\t'))
        p->at++;
}

/* ---- strings ---- */

/* Four hexadecimal digits; false when they are not there. */
static bool hex4(const char *at, const char *end, uint32_t *out) {
    uint32_t value = 0;
    if (end - at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint32_t)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t)(c - 'A') + 10;
        else
            return false;
        value = value << 4 | digit;
    }
    *out = value;
    return true;
}

/* p->at is behind a backslash. */
static emo_status escape(parser *p, char **to) {
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    const char *begin = p->at - 1;
    const char *found = p->at < p->end && *p->at != '\0' ? strchr(names, *p->at) : NULL;
    uint32_t code = 0;
    uint32_t low = 0;
    if (found != NULL) {
        *(*to)++ = values[found - names];
        p->at++;
        return EMO_OK;
    }
    if (p->at == p->end || *p->at != 'u' || !hex4(p->at + 1, p->end, &code))
        return wrong(p, begin, "an escape that JSON does not have");
    p->at += 5;
    if (code >= 0xd800 && code < 0xe000) {
        if (code >= 0xdc00 || p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u' ||
            !hex4(p->at + 2, p->end, &low) || low < 0xdc00 || low > 0xdfff)
            return wrong(p, begin, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        p->at += 6;
    }
    *to += emo__utf8_write(code, (unsigned char *)*to);
    return EMO_OK;
}

/* p->at is on the opening quote; afterwards behind the closing one. The text gets a NUL behind it. */
static emo_status string(parser *p, const char **text, uint32_t *length) {
    const char *begin = p->at++;
    char *to = p->free_string;
    *text = to;
    for (;;) {
        const char *plain = p->at;
        while (p->at < p->end && *p->at != '"' && *p->at != '\\' && (unsigned char)*p->at >= 0x20 &&
               (unsigned char)*p->at < 0x80)
            p->at++;
        memcpy(to, plain, (size_t)(p->at - plain));
        to += p->at - plain;
        if (p->at == p->end)
            return wrong(p, begin, "a string without its closing quote");
        if (*p->at == '"')
            break;
        if (*p->at == '\\') {
            p->at++;
            emo_status status = escape(p, &to);
            if (status != EMO_OK)
                return status;
            continue;
        }
        if ((unsigned char)*p->at < 0x20)
            return wrong(p, p->at, "a control character in a string; it must be escaped");
        int n = emo__utf8_check((const unsigned char *)p->at, (size_t)(p->end - p->at));
        if (n <= 0)
            return wrong(p, p->at, "a string that is not valid UTF-8");
        memcpy(to, p->at, (size_t)n);
        to += n;
        p->at += n;
    }
    p->at++;
    *length = (uint32_t)(to - p->free_string);
    *to++ = '\0';
    p->free_string = to;
    return EMO_OK;
}

/* ---- numbers and words ---- */

static bool digit(const parser *p) { return p->at < p->end && *p->at >= '0' && *p->at <= '9'; }

static void digits(parser *p) {
    while (digit(p))
        p->at++;
}

static emo_status number(parser *p, emo__json *out) {
    const char *begin = p->at;
    if (*p->at == '-')
        p->at++;
    if (!digit(p))
        return wrong(p, begin, "a minus sign without a number");
    if (*p->at == '0')
        p->at++;
    else
        digits(p);
    bool whole = true;
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        whole = false;
        if (!digit(p))
            return wrong(p, begin, "a number without digits behind its point");
        digits(p);
    }
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        p->at++;
        whole = false;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-'))
            p->at++;
        if (!digit(p))
            return wrong(p, begin, "a number without digits in its exponent");
        digits(p);
    }
    if (digit(p))
        return wrong(p, begin, "a number that begins with 0");
    size_t length = (size_t)(p->at - begin);
    out->type = whole ? EMO__JSON_INTEGER : EMO__JSON_REAL;
    if (whole ? !emo__parse_i64(begin, length, &out->u.integer) : !emo__parse_double(begin, length, &out->u.real))
        return wrong(p, begin, whole ? "an integer that needs more than 64 bits" : "a number too large for a double");
    return EMO_OK;
}

static emo_status word(parser *p, emo__json *out) {
    static const struct {
        const char *text;
        size_t length;
        uint8_t type;
        int64_t value;
    } words[] = {{"true", 4, EMO__JSON_BOOL, 1}, {"false", 5, EMO__JSON_BOOL, 0}, {"null", 4, EMO__JSON_NULL, 0}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if ((size_t)(p->end - p->at) >= words[i].length && memcmp(p->at, words[i].text, words[i].length) == 0) {
            p->at += words[i].length;
            out->type = words[i].type;
            out->u.integer = words[i].value;
            return EMO_OK;
        }
    }
    return wrong(p, p->at, p->at == p->end ? "the text ends where a value is expected" : "no value");
}

/* ---- containers ---- */

static emo_status push(parser *p, const emo__json *value) {
    emo_status status = emo__grow(p->mem, (void **)&p->stack, &p->stack_room, p->stacked + 1, sizeof *p->stack, p->err);
    if (status == EMO_OK)
        p->stack[p->stacked++] = *value;
    return status;
}

static emo_status duplicate(const parser *p, const emo__json *member) {
    return emo__fail_at(p->err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: invalid JSON: duplicate key \"%.200s\"",
                        p->where, member->key);
}

/* A table of the members, for objects where looking at each would take long. The place of a key follows from a hash
 * that anyone can compute; a file made of keys that collide is refused before it costs more than it should. */
static emo_status index_members(const parser *p, const emo__json *members, uint32_t count, emo__json *index) {
    uint32_t capacity = 32;
    while (capacity < 2 * (uint64_t)count && capacity < UINT32_C(1) << 31)
        capacity *= 2;
    uint32_t *slots = emo__calloc(p->mem, capacity, sizeof *slots);
    if (slots == NULL)
        return emo__fail_memory(p->err, capacity * sizeof *slots);
    index->u.slots = slots;
    index->count = capacity;
    uint64_t budget = (uint64_t)count * 32 + 4096;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = emo__json_slot(members[i].key, members[i].key_length, capacity);
        for (; slots[at] != 0; at = (at + 1) & (capacity - 1)) {
            const emo__json *other = &members[slots[at] - 1];
            if (other->key_length == members[i].key_length &&
                memcmp(other->key, members[i].key, other->key_length) == 0)
                return duplicate(p, &members[i]);
            if (budget-- == 0)
                return emo__fail_at(p->err, EMO_E_LIMIT, EMO_DOMAIN_FILE, 0,
                                    "%s: an object of %u keys that were made to collide", p->where, (unsigned)count);
        }
        slots[at] = i + 1;
    }
    return EMO_OK;
}

static emo_status few_differ(const parser *p, const emo__json *members, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (members[i].key_length == members[j].key_length &&
                memcmp(members[i].key, members[j].key, members[i].key_length) == 0)
                return duplicate(p, &members[i]);
        }
    }
    return EMO_OK;
}

/* Moves n nodes from the top of the stack to the end of the nodes; the distances to their children change with them. */
static void settle(parser *p, size_t n) {
    if (n == 0)
        return; /* there may be no stack yet */
    const emo__json *from = p->stack + (p->stacked - n);
    for (size_t i = 0; i < n; i++) {
        emo__json *to = &p->nodes[p->count];
        *to = from[i];
        if (to->type == EMO__JSON_ARRAY || to->type == EMO__JSON_OBJECT)
            to->u.children = (int64_t)p->count - to->u.children;
        p->count++;
    }
    p->stacked -= n;
}

/* The innermost container is complete: its values settle, and it becomes a value itself. On the stack u.children is the
 * place of the first child, among the nodes the distance back to it. */
static emo_status close_container(parser *p) {
    const frame *f = &p->frames[p->depth - 1];
    size_t n = p->stacked - f->first;
    bool indexed = f->object && n > EMO__JSON_FEW;
    emo__json value = {0};
    emo_status status =
        emo__grow(p->mem, (void **)&p->nodes, &p->node_room, p->count + n + 1, sizeof *p->nodes, p->err);
    if (status == EMO_OK && f->object && n > 0 && !indexed)
        status = few_differ(p, p->stack + f->first, (uint32_t)n);
    if (status == EMO_OK && indexed) {
        emo__json *index = &p->nodes[p->count++];
        *index = (emo__json){0};
        index->type = EMO__JSON_INDEX; /* from here on it is freed with the nodes */
        status = index_members(p, p->stack + f->first, (uint32_t)n, index);
    }
    if (status != EMO_OK)
        return status;
    value.type = f->object ? EMO__JSON_OBJECT : EMO__JSON_ARRAY;
    value.count = (uint32_t)n;
    value.key = f->key;
    value.key_length = f->key_length;
    value.u.children = (int64_t)p->count;
    settle(p, n);
    p->depth--;
    return push(p, &value);
}

/* A key and its colon; p->at is where the key must begin. */
static emo_status key(parser *p) {
    skip_space(p);
    if (p->at == p->end || *p->at != '"')
        return wrong(p, p->at, "a key in quotes is expected");
    const char *begin = p->at;
    emo_status status = string(p, &p->key, &p->key_length);
    if (status != EMO_OK)
        return status;
    if (strlen(p->key) != p->key_length)
        return wrong(p, begin, "a key with a NUL character");
    skip_space(p);
    if (p->at == p->end || *p->at != ':')
        return wrong(p, p->at, "':' is expected behind a key");
    p->at++;
    return EMO_OK;
}

/* Opens a container; *empty when it is closed at once, otherwise its first value comes next. */
static emo_status open_container(parser *p, bool *empty) {
    bool object = *p->at == '{';
    if (p->depth == EMO__JSON_MAX_DEPTH)
        return emo__fail_at(p->err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: JSON nested deeper than %u levels", p->where,
                            EMO__JSON_MAX_DEPTH);
    p->frames[p->depth++] = (frame){object, p->stacked, p->key, p->key_length};
    p->key = NULL;
    p->key_length = 0;
    p->at++;
    skip_space(p);
    *empty = p->at < p->end && *p->at == (object ? '}' : ']');
    if (*empty)
        p->at++;
    return !*empty && object ? key(p) : EMO_OK;
}

static emo_status scalar(parser *p) {
    emo__json value = {0};
    emo_status status;
    value.key = p->key;
    value.key_length = p->key_length;
    if (p->at < p->end && *p->at == '"') {
        value.type = EMO__JSON_STRING;
        status = string(p, &value.u.text, &value.count);
    } else if (p->at < p->end && (*p->at == '-' || (*p->at >= '0' && *p->at <= '9'))) {
        status = number(p, &value);
    } else {
        status = word(p, &value);
    }
    return status == EMO_OK ? push(p, &value) : status;
}

/* Behind a value: closes what closes here. *more when another value comes. */
static emo_status after_value(parser *p, bool *more) {
    *more = false;
    while (p->depth > 0) {
        bool object = p->frames[p->depth - 1].object;
        skip_space(p);
        char c = p->at < p->end ? *p->at : '\0';
        if (c == ',') {
            p->at++;
            *more = true;
            return object ? key(p) : EMO_OK;
        }
        if (c != (object ? '}' : ']'))
            return wrong(p, p->at,
                         p->at == p->end ? "the text ends inside an object or a list"
                         : object        ? "',' or '}' is expected"
                                         : "',' or ']' is expected");
        p->at++;
        emo_status status = close_container(p);
        if (status != EMO_OK)
            return status;
    }
    return EMO_OK;
}

static emo_status values(parser *p) {
    for (bool more = true; more;) {
        emo_status status;
        bool empty = true;
        skip_space(p);
        if (p->at < p->end && (*p->at == '{' || *p->at == '[')) {
            status = open_container(p, &empty);
            if (status == EMO_OK && empty)
                status = close_container(p);
        } else {
            status = scalar(p);
        }
        if (status == EMO_OK && empty) { /* a value is complete */
            p->key = NULL;
            p->key_length = 0;
            status = after_value(p, &more);
        }
        if (status != EMO_OK)
            return status;
    }
    skip_space(p);
    return p->at == p->end ? EMO_OK : wrong(p, p->at, "something follows the value");
}

/* The root settles last; behind it comes what the document owns. */
static emo_status finish(parser *p, emo__json **root) {
    emo_status status = emo__grow(p->mem, (void **)&p->nodes, &p->node_room, p->count + 2, sizeof *p->nodes, p->err);
    if (status != EMO_OK)
        return status;
    settle(p, 1);
    emo__json *owner = &p->nodes[p->count];
    *owner = (emo__json){0};
    owner->type = EMO__JSON_OWNER;
    owner->key = p->strings;
    owner->u.mem = p->mem;
    *root = &p->nodes[p->count - 1];
    (*root)->first = p->nodes;
    return EMO_OK;
}

emo_status emo__json_parse(const emo__mem *mem, const char *text, size_t size, const char *where, emo__json **root,
                           emo_error *err) {
    parser p;
    memset(&p, 0, sizeof p);
    *root = NULL;
    p.mem = mem;
    p.where = where;
    p.err = err;
    p.text = size > 0 ? text : "";
    p.at = p.text;
    p.end = p.text + size;
    if (size > UINT32_MAX - 16)
        return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, 0, "%s: JSON of %zu bytes; at most 4 GiB can be read",
                            where, size);
    p.strings = emo__alloc(mem, size + 1);
    if (p.strings == NULL)
        return emo__fail_memory(err, size + 1);
    p.free_string = p.strings;
    emo_status status = values(&p);
    if (status == EMO_OK)
        status = finish(&p, root);
    emo__free(mem, p.stack);
    if (status != EMO_OK) {
        for (size_t i = 0; i < p.count; i++) {
            if (p.nodes[i].type == EMO__JSON_INDEX)
                emo__free(mem, p.nodes[i].u.slots);
        }
        emo__free(mem, p.nodes);
        emo__free(mem, p.strings);
    }
    return status;
}

void emo__json_free(emo__json *root) {
    if (root == NULL)
        return;
    const emo__json *owner = root + 1;
    const emo__mem *mem = owner->u.mem;
    emo__json *nodes = root->first;
    for (emo__json *n = nodes; n < root; n++) {
        if (n->type == EMO__JSON_INDEX)
            emo__free(mem, n->u.slots);
    }
    emo__free(mem, (void *)(uintptr_t)owner->key);
    emo__free(mem, nodes);
}
