/* SPDX-License-Identifier: Apache-2.0 */
/* Generation: several items at once in a session, greedily. */
#include <emo/session.h>
#include <string.h>

#include "base/status.h"
#include "eval/run.h"
#include "text/encode.h"

typedef struct writing {
    emo__task_run *run;
    const emo__task *task;
    emo__cell *cell;
    emo_session *session;
    int32_t lanes;
    emo__buf *texts; /* [lanes] */
} writing;

static emo_status create(writing *w, const emo_mask *mask, emo_error *err) {
    const emo__task_spec *spec = w->task->spec;
    emo__task_run *run = w->run;
    const emo__mem *mem = &run->model->rt->mem;
    emo__scorer_options size = {mask, run->seq_len, run->options->sequences, 0, NULL};
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    w->lanes = emo__scorer_lanes(run->model, &size, w->task->n_data);
    w->texts = emo__calloc(mem, (size_t)w->lanes, sizeof *w->texts);
    if (w->texts == NULL)
        return emo__fail_memory(err, (size_t)w->lanes * sizeof *w->texts);
    for (int32_t i = 0; i < w->lanes; i++)
        emo__buf_init(&w->texts[i], mem);
    if (spec->max_tokens >= run->seq_len)
        return emo__fail(err, EMO_E_LIMIT, "%s: max_tokens is %d; the window of %lld tokens must hold a prompt too",
                         spec->where, (int)spec->max_tokens, (long long)run->seq_len);
    o.sequences = w->lanes;
    o.capacity = (int32_t)run->seq_len;
    o.max_tokens = spec->max_tokens;
    o.mask = mask;
    o.stop = (const char *const *)spec->stop;
    o.n_stop = spec->n_stop;
    o.progress = run->inner;
    return emo_session_create(run->model, &o, &w->session, err);
}

/* Appends eos and the prompt's tokens to a sequence; what leaves no room for the answer goes in front. */
static emo_status append(writing *w, size_t index, int32_t lane, emo_error *err) {
    const emo__mem *mem = &w->run->model->rt->mem;
    const emo__task_item *item = emo__task_item_at(w->task, index);
    int32_t *ids = NULL;
    emo__pair all = {0};
    size_t n = 0;
    emo__buf prompt;
    emo__buf_init(&prompt, mem);
    size_t room = (size_t)(w->run->seq_len - w->task->spec->max_tokens);
    emo_status status;
    EMO_TRY(status = emo__task_prompt(w->task, item, index, 0, &prompt, err));
    EMO_TRY(status = emo__encode_text(mem, w->run->model->tokenizer, prompt.data, prompt.size, &w->run->inner, &ids, &n,
                                      err));
    EMO_TRY(status = emo__pair_join(w->run, ids, n, NULL, 0, &all, err));
    if (all.count == 0) {
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)item->line, "%s:%llu: the prompt is empty",
                              item->file, (unsigned long long)item->line);
        goto done;
    }
    size_t gone = all.count > room ? all.count - room : 0;
    w->cell->items[index].truncated = gone > 0 ? 1 : 0;
    status = emo_session_append_tokens(w->session, lane, all.tokens + gone, all.count - gone, err);
done:
    emo__pair_free(w->run, &all);
    emo__free(mem, ids);
    emo__buf_free(&prompt);
    return status;
}

/* Items [first, first + n) to the end of their texts. */
static emo_status write_some(writing *w, size_t first, int32_t n, emo_error *err) {
    emo_state state = EMO_STATE_PENDING;
    emo_status status;
    EMO_TRY(status = emo_session_reset(w->session, err));
    for (int32_t i = 0; i < n; i++) {
        w->texts[i].size = 0;
        EMO_TRY(status = append(w, first + (size_t)i, i, err));
    }
    while (state != EMO_STATE_DONE) {
        EMO_TRY(status = emo_session_advance(w->session, NULL, &state, err));
        for (int32_t i = 0; i < n; i++) {
            const char *text = emo_session_text_of(w->session, i);
            EMO_TRY(status = emo__buf_append(&w->texts[i], text, strlen(text), err));
        }
    }
done:
    return status;
}

/* ---- metrics ---- */

static emo_status measure(const emo__mem *mem, emo__metric metric, const char *got, const char *want, double *out,
                          emo_error *err) {
    if (metric == EMO__METRIC_F1)
        return emo__answer_f1(mem, got, want, out, err);
    *out = metric == EMO__METRIC_EXACT ? emo__answer_exact(got, want) : emo__answer_prefix(got, want);
    return EMO_OK;
}

/* The best over the right answers. */
static emo_status judge(writing *w, size_t index, const char *text, emo_error *err) {
    const emo__task_spec *spec = w->task->spec;
    const emo__task_item *item = emo__task_item_at(w->task, index);
    const emo__mem *mem = &w->run->model->rt->mem;
    double *values = &w->cell->values[index * (size_t)spec->n_metrics];
    emo__buf got;
    emo__buf want;
    emo__buf_init(&got, mem);
    emo__buf_init(&want, mem);
    for (int32_t m = 0; m < spec->n_metrics; m++)
        values[m] = 0.0;
    emo_status status = emo__answer_normal(&spec->rule, text, &got, err);
    for (size_t a = 0; status == EMO_OK && a < item->n_answers; a++) {
        want.size = 0;
        status = emo__answer_normal(&spec->rule, item->answers[a], &want, err);
        for (int32_t m = 0; status == EMO_OK && m < spec->n_metrics; m++) {
            double value = 0.0;
            status = measure(mem, spec->metrics[m], got.data, want.data, &value, err);
            values[m] = value > values[m] ? value : values[m];
        }
    }
    emo__buf_free(&got);
    emo__buf_free(&want);
    return status;
}

static emo_status judge_some(writing *w, size_t first, int32_t n, emo_error *err) {
    const emo__mem *mem = &w->run->model->rt->mem;
    emo_status status = EMO_OK;
    for (int32_t i = 0; status == EMO_OK && i < n; i++) {
        size_t index = first + (size_t)i;
        emo__item_result *result = &w->cell->items[index];
        result->text = emo__strndup(mem, w->texts[i].size > 0 ? w->texts[i].data : "", w->texts[i].size);
        if (result->text == NULL)
            return emo__fail_memory(err, w->texts[i].size + 1);
        status = judge(w, index, result->text, err);
        w->run->phase.done++;
    }
    return status;
}

emo_status emo__run_generation(emo__task_run *run, const emo__task *task, const emo_mask *mask, emo__cell *cell,
                               emo_error *err) {
    writing w = {run, task, cell, NULL, 0, NULL};
    emo_status status = create(&w, mask, err);
    for (size_t first = 0; status == EMO_OK && first < task->n_data;) {
        size_t left = task->n_data - first;
        int32_t n = left < (size_t)w.lanes ? (int32_t)left : w.lanes;
        status = write_some(&w, first, n, err);
        if (status == EMO_OK)
            status = judge_some(&w, first, n, err);
        first += (size_t)n;
    }
    emo_session_release(w.session);
    for (int32_t i = 0; w.texts != NULL && i < w.lanes; i++)
        emo__buf_free(&w.texts[i]);
    emo__free(&run->model->rt->mem, w.texts);
    return status;
}
