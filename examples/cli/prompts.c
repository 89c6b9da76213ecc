/* SPDX-License-Identifier: Apache-2.0 */
#include "prompts.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_AT_ONCE = 1024 };

/* A prompt on its way through a sequence. */
typedef struct job {
    int busy;
    int64_t index;
    int32_t sequence;
    char *prompt;
    growing_text text;
} job;

typedef struct crowd {
    cli *c;
    emo_session *session;
    emo_texts *texts;
    emo_session_options options;
    job *jobs; /* [options.sequences] */
    int64_t begun;
    int64_t done;
    int exhausted;
} crowd;

const char *stop_name(emo_stop_reason reason) {
    switch (reason) {
    case EMO_STOP_EOS:
        return "eos";
    case EMO_STOP_LENGTH:
        return "length";
    case EMO_STOP_STRING:
        return "string";
    case EMO_STOP_CANCELLED:
        return "cancelled";
    default:
        return "none";
    }
}

emo_status text_add(cli *c, growing_text *text, const char *more) {
    size_t n = strlen(more);
    char *grown = realloc(text->data, text->length + n + 1);
    if (grown == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the text");
    memcpy(grown + text->length, more, n + 1);
    text->data = grown;
    text->length += n;
    return EMO_OK;
}

static void forget(job *j) {
    free(j->prompt);
    free(j->text.data);
    memset(j, 0, sizeof *j);
}

/* Gives a free job the next prompt. */
static emo_status begin(crowd *w, job *j) {
    emo_error *err = &w->c->err;
    emo_text_document document;
    emo_sequence_options own = EMO_SEQUENCE_OPTIONS_INIT;
    emo_status status = emo_texts_next(w->texts, &document, err);
    if (status != EMO_OK)
        return status;
    if (document.text == NULL) {
        w->exhausted = 1;
        return EMO_OK;
    }
    size_t length = document.prompt_bytes > 0 ? document.prompt_bytes : document.length;
    j->index = w->begun++;
    j->prompt = malloc(length + 1);
    if (j->prompt == NULL)
        return cli_fail(w->c, EMO_E_OUT_OF_MEMORY, "no memory for a prompt");
    memcpy(j->prompt, document.text, length);
    j->prompt[length] = '\0';
    if (strlen(j->prompt) != length)
        return cli_fail(w->c, EMO_E_FORMAT, "prompt %lld holds a NUL and is not a text", (long long)j->index);
    own.max_tokens = w->options.max_tokens;
    own.temperature = w->options.temperature;
    own.top_k = w->options.top_k;
    own.top_p = w->options.top_p;
    own.min_p = w->options.min_p;
    own.repetition_penalty = w->options.repetition_penalty;
    own.seed = w->options.seed + (uint64_t)j->index;
    own.ignore_eos = w->options.ignore_eos;
    EMO_TRY(status = emo_session_add(w->session, &own, &j->sequence, err));
    j->busy = 1;
    EMO_TRY(status = emo_session_append_text_to(w->session, j->sequence, j->prompt, err));
done:
    return status;
}

static void print_result(const crowd *w, const job *j) {
    json_writer json = {stdout, 0, {0}};
    json_open(&json, NULL);
    json_integer(&json, "index", j->index);
    json_string(&json, "prompt", j->prompt);
    json_string(&json, "text", j->text.data);
    json_integer(&json, "tokens", (int64_t)emo_session_generated(w->session, j->sequence, NULL, NULL));
    json_string(&json, "stop", stop_name(emo_session_stop_reason(w->session, j->sequence)));
    json_close(&json);
    fflush(stdout);
}

/* Takes the new text of every job; those that had stopped before this call have given all of it. */
static emo_status look(crowd *w, const int *stopped) {
    emo_status status = EMO_OK;
    for (int32_t i = 0; status == EMO_OK && i < w->options.sequences; i++) {
        job *j = &w->jobs[i];
        if (!j->busy)
            continue;
        status = text_add(w->c, &j->text, emo_session_text_of(w->session, j->sequence));
        if (status != EMO_OK || !stopped[i])
            continue;
        progress_clear(&w->c->line);
        print_result(w, j);
        status = emo_session_remove(w->session, j->sequence, &w->c->err);
        forget(j);
        w->done++;
    }
    return status;
}

static emo_status run(crowd *w) {
    int stopped[MOST_AT_ONCE] = {0};
    emo_status status = EMO_OK;
    for (int busy = 1; status == EMO_OK && busy > 0;) {
        emo_state state;
        emo_budget budget = emo_budget_ms(50); /* short slices, so that an interruption is noticed at once */
        busy = 0;
        for (int32_t i = 0; status == EMO_OK && i < w->options.sequences; i++) {
            job *j = &w->jobs[i];
            if (!j->busy && !w->exhausted)
                status = begin(w, j);
            stopped[i] = j->busy && emo_session_stop_reason(w->session, j->sequence) != EMO_STOP_NONE;
            busy += j->busy;
        }
        if (status == EMO_OK && interrupt_seen())
            status = cli_fail(w->c, EMO_E_CANCELLED, "stopped on request");
        if (status == EMO_OK && busy > 0)
            status = emo_session_advance(w->session, &budget, &state, &w->c->err);
        if (status == EMO_OK)
            status = look(w, stopped);
    }
    return status;
}

static void summary(crowd *w, double seconds) {
    emo_session_statistics did = EMO_SESSION_STATISTICS_INIT;
    if (!w->c->line.visible || emo_session_get_statistics(w->session, &did, NULL) != EMO_OK || did.batches == 0)
        return;
    progress_clear(&w->c->line);
    fprintf(stderr, "[%lld prompts in %.2f s; %llu batches of %.1f sequences, %.1f MB of experts each]\n",
            (long long)w->done, seconds, (unsigned long long)did.batches,
            (double)did.batch_sequences / (double)did.batches,
            (double)did.batch_expert_bytes / (double)did.batches * 1e-6);
}

emo_status generate_many(cli *c, emo_model *model, const emo_session_options *options, const char *path) {
    crowd w = {0};
    emo_status status;
    w.c = c;
    w.options = *options;
    /* some more than a batch takes, so that there is a choice of who goes together */
    w.options.sequences = options->batch_sequences < MOST_AT_ONCE / 4 ? 4 * options->batch_sequences : MOST_AT_ONCE;
    w.options.count_experts = 1;
    w.jobs = calloc((size_t)w.options.sequences, sizeof *w.jobs);
    if (w.jobs == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the prompts");
    double start = seconds_now();
    EMO_TRY(status = emo_texts_open(c->rt, &path, 1, NULL, &w.texts, &c->err));
    EMO_TRY(status = emo_session_create(model, &w.options, &w.session, &c->err));
    EMO_TRY(status = run(&w));
    summary(&w, seconds_now() - start);
done:
    for (int32_t i = 0; i < w.options.sequences; i++)
        forget(&w.jobs[i]);
    free(w.jobs);
    emo_session_release(w.session);
    emo_texts_release(w.texts);
    return status;
}
