/* SPDX-License-Identifier: Apache-2.0 */
/* Mix files: lists of the files of a corpus, a `label,path` line each. */
#include <string.h>

#include "base/status.h"
#include "data/ingest.h"

#define LARGEST ((size_t)256 << 20)
#define FIRST_LINE ((size_t)4096) /* a text file of which no line ends here is no mix */

/* The next line that says something, without blanks around it; false at the end. */
static bool next_line(const char **at, const char *end, const char **line, size_t *length, uint64_t *number) {
    while (*at < end) {
        const char *stop = memchr(*at, '\n', (size_t)(end - *at));
        const char *a = *at;
        const char *b = stop != NULL ? stop : end;
        *at = stop != NULL ? stop + 1 : end;
        ++*number;
        while (a < b && (*a == ' ' || *a == '\t' || *a == '\r'))
            a++;
        while (b > a && (b[-1] == ' ' || b[-1] == '\t' || b[-1] == '\r'))
            b--;
        if (a < b && *a != '#') {
            *line = a;
            *length = (size_t)(b - a);
            return true;
        }
    }
    return false;
}

/* The comma of a line with exactly one, something on both sides; NULL otherwise. */
static const char *only_comma(const char *line, size_t length) {
    const char *comma = memchr(line, ',', length);
    if (comma == NULL || comma == line || comma + 1 == line + length)
        return NULL;
    size_t rest = length - (size_t)(comma + 1 - line);
    return memchr(comma + 1, ',', rest) == NULL ? comma : NULL;
}

emo_status emo__mix_is(const emo__mem *mem, const char *path, bool *mix, emo_error *err) {
    size_t n = strlen(path);
    *mix = emo__ends_with(path, n, ".mix");
    if (*mix || (!emo__ends_with(path, n, ".txt") && !emo__ends_with(path, n, ".csv")))
        return EMO_OK;
    emo__buf head;
    emo__buf_init(&head, mem);
    emo_status status = emo__file_head(path, FIRST_LINE, &head, err);
    const char *at = head.data;
    const char *line = NULL;
    size_t length = 0;
    uint64_t number = 0;
    if (status == EMO_OK && head.size > 0 && next_line(&at, head.data + head.size, &line, &length, &number)) {
        const char *comma = only_comma(line, length);
        bool whole = head.size < FIRST_LINE || line + length < head.data + head.size;
        *mix = whole && comma != NULL && emo__ends_with(line, length, ".npy") && memchr(line, ' ', length) == NULL;
    }
    emo__buf_free(&head);
    return status;
}

/* The path of a line: {TOKENIZER} filled in, below the root unless it is absolute. */
static emo_status full_path(emo__buf *out, const char *mix, const emo_dataset_options *opt, const char *name,
                            size_t length, emo_error *err) {
    static const char mark[] = "{TOKENIZER}";
    const char *tokenizer = opt->mix_tokenizer != NULL ? opt->mix_tokenizer : "allenai/dolma2-tokenizer";
    const char *slash = strrchr(mix, '/');
    emo_status status = EMO_OK;
    out->size = 0;
    if (name[0] != '/' && opt->mix_root != NULL) {
        status = emo__buf_append(out, opt->mix_root, strlen(opt->mix_root), err);
        if (status == EMO_OK)
            status = emo__buf_append(out, "/", 1, err);
    } else if (name[0] != '/' && slash != NULL) {
        status = emo__buf_append(out, mix, (size_t)(slash - mix) + 1, err);
    }
    while (status == EMO_OK && length > 0) {
        if (length >= sizeof mark - 1 && memcmp(name, mark, sizeof mark - 1) == 0) {
            status = emo__buf_append(out, tokenizer, strlen(tokenizer), err);
            name += sizeof mark - 1;
            length -= sizeof mark - 1;
        } else {
            status = emo__buf_append(out, name++, 1, err);
            length--;
        }
    }
    return status;
}

emo_status emo__mix_add(const emo__mem *mem, const char *path, const emo_dataset_options *opt, emo__data_files *out,
                        emo_error *err) {
    char *text = NULL;
    size_t size = 0;
    emo_status status = emo__file_read(mem, path, LARGEST, &text, &size, err);
    if (status != EMO_OK)
        return status;
    emo__buf full;
    emo__buf_init(&full, mem);
    const char *at = text;
    const char *line = NULL;
    size_t length = 0;
    size_t before = out->count;
    uint64_t number = 0;
    while (status == EMO_OK && next_line(&at, text + size, &line, &length, &number)) {
        const char *comma = only_comma(line, length);
        if (comma == NULL || memchr(line, '\0', length) != NULL) {
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)number,
                                  "%s:%llu: a line of a mix file is label,path", path, (unsigned long long)number);
            break;
        }
        status = full_path(&full, path, opt, comma + 1, length - (size_t)(comma + 1 - line), err);
        if (status == EMO_OK)
            status = emo__data_files_add(mem, full.data, line, (size_t)(comma - line), out, err);
    }
    if (status == EMO_OK && out->count == before)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the mix names no files", path);
    emo__buf_free(&full);
    emo__free(mem, text);
    return status;
}
