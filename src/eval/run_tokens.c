/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/status.h"
#include "eval/run.h"
#include "text/encode.h"

void emo__pair_free(const emo__task_run *run, emo__pair *pair) {
    emo__free(&run->model->rt->mem, pair->tokens);
    pair->tokens = NULL;
}

emo_status emo__pair_join(const emo__task_run *run, const int32_t *a, size_t n_a, const int32_t *b, size_t n_b,
                          emo__pair *out, emo_error *err) {
    size_t lead = run->model->config.eos >= 0 ? 1 : 0;
    out->tokens = emo__malloc_array(&run->model->rt->mem, lead + n_a + n_b + 1, sizeof *out->tokens);
    if (out->tokens == NULL)
        return emo__fail_memory(err, (lead + n_a + n_b + 1) * sizeof *out->tokens);
    if (lead > 0)
        out->tokens[0] = run->model->config.eos;
    if (n_a > 0)
        memcpy(out->tokens + lead, a, n_a * sizeof *a);
    if (n_b > 0)
        memcpy(out->tokens + lead + n_a, b, n_b * sizeof *b);
    out->count = lead + n_a + n_b;
    return EMO_OK;
}

emo_status emo__pair_make(const emo__task_run *run, const emo__task_spec *spec, const char *prompt,
                          const char *continuation, emo__pair *out, emo_error *err) {
    const emo__mem *mem = &run->model->rt->mem;
    const emo_tokenizer *tokenizer = run->model->tokenizer;
    int32_t *a = NULL;
    int32_t *b = NULL;
    size_t n_a = 0;
    size_t n_b = 0;
    size_t common = 0;
    emo__buf text;
    emo__buf_init(&text, mem);
    *out = (emo__pair){0};
    emo_status status;
    EMO_TRY(status = emo__encode_text(mem, tokenizer, prompt, strlen(prompt), &run->inner, &a, &n_a, err));
    if (spec->apart) {
        EMO_TRY(status =
                    emo__encode_text(mem, tokenizer, continuation, strlen(continuation), &run->inner, &b, &n_b, err));
        EMO_TRY(status = emo__pair_join(run, a, n_a, b, n_b, out, err));
        common = n_a;
    } else {
        EMO_TRY(status = emo__buf_append(&text, prompt, strlen(prompt), err));
        EMO_TRY(status = emo__buf_append(&text, continuation, strlen(continuation), err));
        EMO_TRY(status = emo__encode_text(mem, tokenizer, text.data, text.size, &run->inner, &b, &n_b, err));
        while (common < n_a && common < n_b && a[common] == b[common])
            common++;
        EMO_TRY(status = emo__pair_join(run, NULL, 0, b, n_b, out, err));
    }
    out->from = common + (run->model->config.eos >= 0 ? 1 : 0);
    if (out->from >= out->count && out->count > 0) /* a tokenizer to which the continuation says nothing */
        out->from = out->count - 1;
    if (out->from == 0) /* without eos nothing foretells the first token */
        out->from = 1;
done:
    emo__free(mem, a);
    emo__free(mem, b);
    emo__buf_free(&text);
    return status;
}
