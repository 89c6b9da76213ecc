/* SPDX-License-Identifier: Apache-2.0 */
/* What one line of a JSON Lines file says. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "data/ingest.h"

void emo__document_where(const emo__data_file *file, uint64_t line, char where[EMO__WHERE]) {
    size_t length = strlen(file->path);
    size_t shown = EMO__WHERE - 112;
    const char *path = file->path + (length > shown ? length - shown : 0);
    if (line > 0)
        (void)snprintf(where, EMO__WHERE, "%s:%llu", path, (unsigned long long)line);
    else
        (void)snprintf(where, EMO__WHERE, "%s", path);
}

emo_status emo__document_read(const emo__json *root, const emo__data_file *file, uint64_t line, const char *wanted,
                              const char *where, emo__document_text *out, emo_error *err) {
    memset(out, 0, sizeof *out);
    if (emo__json_typeof(root) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)line, "%s: must be a JSON object", where);
    emo_status status = emo__json_opt_string(root, "domain", where, file->domain, &out->domain, err);
    if (status != EMO_OK || (wanted != NULL && strcmp(wanted, out->domain) != 0))
        return status;
    const emo__json *text = emo__json_get(root, "text");
    const emo__json *prompt = NULL;
    if (text == NULL) {
        prompt = emo__json_get(root, "prompt");
        text = emo__json_get(root, "completion");
    }
    out->text = emo__json_string(text, &out->text_bytes);
    out->prompt = emo__json_string(prompt, &out->prompt_bytes);
    if (out->text == NULL || (prompt != NULL && out->prompt == NULL))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)line,
                            "%s: needs a string \"text\", or strings \"prompt\" and \"completion\"", where);
    return EMO_OK;
}

bool emo__document_blank(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r' && text[i] != '\n')
            return false;
    }
    return true;
}
