/* SPDX-License-Identifier: Apache-2.0 */
#include "text/dialect.h"

#include <string.h>

#include "base/status.h"

#define MAX_GROUPS 64

/* Sets that mean the same in every Unicode version that is about, and what lies between the members. */
#define SPACE                                                                                                          \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NO_SPACE                                                                                                       \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
/* Alphabetic characters, marks, digits and connectors. Outside of a class the other numbers of Latin-1 count too. */
#define WORD                                                                                                           \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{"    \
    "1f189}"
#define ALONE "[" WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}]"
#define NOT_ALONE "[^" WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}]"

typedef struct translator {
    const char *p;
    size_t n, at; /* p[at] is read next */
    emo__buf *out;
    size_t atom; /* where in out the last atom begins: what a quantifier takes */
    size_t groups[MAX_GROUPS];
    size_t depth;
    bool script_prefix;
    emo_error *err;
} translator;

static emo_status lacking(const translator *t, const char *what) {
    return emo__fail_at(t->err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, (int64_t)t->at,
                        "the regular expression '%.160s' uses %s at byte %zu, which is not supported", t->p, what,
                        t->at);
}

static emo_status put(const translator *t, const char *text) {
    return emo__buf_append(t->out, text, strlen(text), t->err);
}

/* Copies bytes of the pattern and goes on behind them. */
static emo_status copy(translator *t, size_t n) {
    emo_status status = emo__buf_append(t->out, t->p + t->at, n, t->err);
    t->at += n;
    return status;
}

static int peek(const translator *t, size_t ahead) {
    return t->at + ahead < t->n ? (unsigned char)t->p[t->at + ahead] : -1;
}

static bool is_digit(int c) { return c >= '0' && c <= '9'; }
static bool is_letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_hex(int c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/* Property names are compared without case, spaces, '_' and '-'. `known` is written so already. */
static bool same_name(const char *name, size_t n, const char *known) {
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        if (c == '_' || c == '-' || c == ' ')
            continue;
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c != *known || c == '\0')
            return false;
        known++;
    }
    return *known == '\0';
}

/* \p{...} and \P{...}; t->at is at the backslash. */
static emo_status property(translator *t) {
    static const struct {
        const char *name, *category;
    } categories[] = {
        {"letter", "L"},
        {"uppercaseletter", "Lu"},
        {"lowercaseletter", "Ll"},
        {"titlecaseletter", "Lt"},
        {"modifierletter", "Lm"},
        {"otherletter", "Lo"},
        {"mark", "M"},
        {"nonspacingmark", "Mn"},
        {"spacingmark", "Mc"},
        {"enclosingmark", "Me"},
        {"number", "N"},
        {"decimalnumber", "Nd"},
        {"letternumber", "Nl"},
        {"othernumber", "No"},
        {"punctuation", "P"},
        {"symbol", "S"},
        {"mathsymbol", "Sm"},
        {"currencysymbol", "Sc"},
        {"separator", "Z"},
        {"spaceseparator", "Zs"},
        {"connectorpunctuation", "Pc"},
        {"other", "C"},
        {"control", "Cc"},
        {"any", "Any"},
    };
    const char *name = t->p + t->at + 3;
    const char *end = peek(t, 2) == '{' ? memchr(name, '}', t->n - t->at - 3) : NULL;
    if (end == NULL)
        return lacking(t, "\\p without {name}");
    bool negated = t->p[t->at + 1] == 'P';
    if (name < end && *name == '^') {
        negated = !negated;
        name++;
    }
    size_t length = (size_t)(end - name);
    if (length == 0 || length > 40)
        return lacking(t, "a property without a name");
    emo_status status = put(t, negated ? "\\P{" : "\\p{");
    const char *category = NULL;
    for (size_t i = 0; i < sizeof categories / sizeof categories[0]; i++) {
        if (same_name(name, length, categories[i].name))
            category = categories[i].category;
    }
    if (status == EMO_OK && category != NULL)
        status = put(t, category);
    else if (status == EMO_OK && length > 2 && t->script_prefix)
        status = put(t, "sc:");
    if (status == EMO_OK && category == NULL)
        status = emo__buf_append(t->out, name, length, t->err);
    t->at = (size_t)(end - t->p) + 1;
    return status == EMO_OK ? put(t, "}") : status;
}

/* A backslash and what belongs to it. */
static emo_status escape(translator *t, bool in_class) {
    int c = peek(t, 1);
    if (c < 0)
        return copy(t, 1); /* the compiler says what is wrong */
    if (!is_letter(c) && c < 0x80)
        return copy(t, 2);
    const char *text = NULL;
    switch (c) {
    case 's':
        text = in_class ? SPACE : "[" SPACE "]";
        break;
    case 'S':
        text = in_class ? NO_SPACE : "[^" SPACE "]";
        break;
    case 'h':
        text = in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
        break;
    case 'w':
        text = in_class ? WORD : ALONE;
        break;
    case 'H':
    case 'W':
        if (in_class)
            return lacking(t, c == 'H' ? "\\H in a class" : "\\W in a class");
        text = c == 'H' ? "[^0-9a-fA-F]" : NOT_ALONE;
        break;
    case 'b':
        text = in_class ? "\\x{8}" : "(?:(?<=" ALONE ")(?!" ALONE ")|(?<!" ALONE ")(?=" ALONE "))";
        break;
    case 'B':
        text = "(?:(?<=" ALONE ")(?=" ALONE ")|(?<!" ALONE ")(?!" ALONE "))";
        break;
    case 'v':
        text = "\\x{b}";
        break;
    case 'p':
    case 'P':
        return property(t);
    case 'u':
        if (!is_hex(peek(t, 2)) || !is_hex(peek(t, 3)) || !is_hex(peek(t, 4)) || !is_hex(peek(t, 5)))
            return lacking(t, "\\u without four digits");
        {
            char code[16] = "\\x{";
            memcpy(code + 3, t->p + t->at + 2, 4);
            code[7] = '}';
            t->at += 6;
            return put(t, code);
        }
    case 'x':
        /* two digits are a byte there and a character here: the same below 0x80 only */
        if (peek(t, 2) != '{' && is_hex(peek(t, 2)) && is_hex(peek(t, 3)) && peek(t, 2) > '7')
            return lacking(t, "a byte of a character");
        return copy(t, 2);
    case 'd':
    case 'D':
    case 'A':
    case 'z':
    case 'Z':
    case 'G':
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
    case 'R':
    case 'X':
        return copy(t, 2);
    default: {
        char what[3] = {'\\', (char)c, 0};
        return lacking(t, c < 0x80 ? what : "a backslash in front of a letter");
    }
    }
    t->at += 2;
    return put(t, text);
}

static emo_status class(translator *t) {
    t->atom = t->out->size;
    emo_status status = copy(t, 1);
    if (status == EMO_OK && peek(t, 0) == '^')
        status = copy(t, 1);
    if (status == EMO_OK && peek(t, 0) == ']')
        status = copy(t, 1);
    while (status == EMO_OK && t->at < t->n) {
        int c = peek(t, 0);
        if (c == ']')
            return copy(t, 1);
        if (c == '\\')
            status = escape(t, true);
        else if (c == '[')
            return lacking(t, peek(t, 1) == ':' ? "a POSIX class" : "a class in a class");
        else if (c == '&' && peek(t, 1) == '&')
            return lacking(t, "an intersection of classes (&&)");
        else
            status = copy(t, 1);
    }
    return status;
}

/* An opening parenthesis with what says its kind. */
static emo_status open_group(translator *t) {
    if (t->depth == MAX_GROUPS)
        return lacking(t, "groups nested too deep");
    if (peek(t, 1) == '*')
        return lacking(t, "(*");
    size_t begin = t->out->size;
    if (peek(t, 1) != '?') {
        t->groups[t->depth++] = begin;
        return copy(t, 1);
    }
    int c = peek(t, 2);
    if (c == '#') { /* a comment */
        const char *end = memchr(t->p + t->at, ')', t->n - t->at);
        t->at = end != NULL ? (size_t)(end - t->p) + 1 : t->n;
        return EMO_OK;
    }
    if (c == ':' || c == '=' || c == '!' || c == '>' || c == '<') {
        t->groups[t->depth++] = begin;
        return copy(t, 3);
    }
    /* options: m lets the dot take line ends, which is s here */
    size_t k = 2;
    for (; (c = peek(t, k)) == 'i' || c == 'm' || c == 'x' || c == '-'; k++)
        ;
    if (c != ':' && c != ')')
        return lacking(t, "a group of this kind");
    emo_status status = put(t, "(?");
    for (size_t i = 2; i <= k && status == EMO_OK; i++) {
        char option[2] = {t->p[t->at + i] == 'm' ? 's' : t->p[t->at + i], 0};
        status = put(t, option);
    }
    t->at += k + 1;
    if (c == ':')
        t->groups[t->depth++] = begin;
    return status;
}

/* {n,m} and its relatives; anything else in braces is plain text in both. A + behind it repeats the whole there and
 * would mean "possessive" here. */
static emo_status interval(translator *t) {
    size_t k = 1, low, high = 0;
    while (is_digit(peek(t, k)))
        k++;
    low = k - 1;
    bool comma = peek(t, k) == ',';
    if (comma) {
        k++;
        while (is_digit(peek(t, k + high)))
            high++;
        k += high;
    }
    if (peek(t, k) != '}' || (low == 0 && high == 0)) {
        t->atom = t->out->size;
        return copy(t, 1);
    }
    k++;
    emo_status status = EMO_OK;
    if (low == 0) {
        status = put(t, "{0");
        t->at++;
        k--;
    }
    if (status == EMO_OK)
        status = copy(t, k);
    if (status != EMO_OK || peek(t, 0) != '+')
        return status;
    status = put(t, "(?:)"); /* room */
    if (status != EMO_OK)
        return status;
    char *at = t->out->data + t->atom;
    memmove(at + 3, at, t->out->size - 4 - t->atom);
    memcpy(at, "(?:", 3);
    t->out->data[t->out->size - 1] = ')';
    return copy(t, 1);
}

emo_status emo__dialect_translate(emo__buf *out, const char *pattern, size_t length, bool script_prefix,
                                  emo_error *err) {
    translator t = {.p = pattern, .n = length, .out = out, .script_prefix = script_prefix, .err = err};
    emo_status status = EMO_OK;
    while (t.at < t.n && status == EMO_OK) {
        switch (t.p[t.at]) {
        case '\\':
            t.atom = out->size;
            status = escape(&t, false);
            break;
        case '[':
            status = class(&t);
            break;
        case '(':
            status = open_group(&t);
            break;
        case ')':
            if (t.depth > 0)
                t.atom = t.groups[--t.depth];
            status = copy(&t, 1);
            break;
        case '{':
            status = interval(&t);
            break;
        case '*':
        case '+':
        case '?':
            status = copy(&t, 1);
            break;
        default:
            if (((unsigned char)t.p[t.at] & 0xC0) != 0x80)
                t.atom = out->size;
            status = copy(&t, 1);
        }
    }
    return status;
}
