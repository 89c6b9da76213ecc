/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves requests as they come: some at a time, grouped so that a step reads few experts.
 *     serve_many MODEL_FOLDER PROMPT...
 * Each request has options of its own, may be cancelled, and makes room when it is done.
 */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>

enum { AT_ONCE = 4 };

/* What a server knows of a request. */
typedef struct request {
    const char *prompt;
    int32_t sequence; /* -1: not begun */
    int done;
} request;

static emo_status begin(emo_session *session, request *r, int number, emo_error *err) {
    emo_sequence_options options = EMO_SEQUENCE_OPTIONS_INIT;
    options.max_tokens = 20 + number;
    options.temperature = 0.8f;
    options.seed = (uint64_t)number; /* the same text for the same seed, whoever is served beside it */
    emo_status status = emo_session_add(session, &options, &r->sequence, err);
    if (status == EMO_OK)
        status = emo_session_append_text_to(session, r->sequence, r->prompt, err);
    return status;
}

/* Prints what is new; a request that has stopped and said everything is over. */
static emo_status collect(emo_session *session, request *r, int number, int stopped, emo_error *err) {
    const char *text = emo_session_text_of(session, r->sequence);
    if (text[0] != '\0')
        printf("%d: %s\n", number, text);
    if (!stopped)
        return EMO_OK;
    printf("%d: [%zu tokens]\n", number, emo_session_generated(session, r->sequence, NULL, NULL));
    r->done = 1;
    return emo_session_remove(session, r->sequence, err);
}

/* One round of a server's loop. *left: requests that are not over. */
static emo_status serve(emo_session *session, request *requests, int n, int *left, emo_error *err) {
    int stopped[64] = {0};
    emo_session_statistics now = EMO_SESSION_STATISTICS_INIT;
    emo_budget budget = emo_budget_ms(20); /* come back in time for requests that arrive meanwhile */
    emo_state state;
    emo_status status;
    EMO_TRY(status = emo_session_get_statistics(session, &now, err));
    for (int i = 0; i < n; i++) {
        if (requests[i].sequence < 0 && now.sequences < AT_ONCE) {
            EMO_TRY(status = begin(session, &requests[i], i, err));
            now.sequences++;
        }
        if (requests[i].sequence >= 0 && !requests[i].done)
            stopped[i] = emo_session_stop_reason(session, requests[i].sequence) != EMO_STOP_NONE;
    }
    EMO_TRY(status = emo_session_advance(session, &budget, &state, err));
    *left = 0;
    for (int i = 0; i < n; i++) {
        if (requests[i].sequence >= 0 && !requests[i].done)
            EMO_TRY(status = collect(session, &requests[i], i, stopped[i], err));
        *left += !requests[i].done;
    }
done:
    return status;
}

static emo_status run(emo_runtime *rt, const char *folder, request *requests, int n, emo_error *err) {
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_pool_policy *pool = NULL;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_session_statistics did = EMO_SESSION_STATISTICS_INIT;
    EMO_TRY(emo_model_load_path(rt, folder, NULL, &model, err));
    EMO_TRY(emo_pool_policy_parse(rt, "prompt:4", &pool, err)); /* each prompt chooses 4 experts a layer */
    options.pool = pool;
    options.sequences = AT_ONCE;
    options.batch_sequences = 2;             /* in a step of the model */
    options.batching = EMO_BATCHING_POOL;    /* those together that use the same experts */
    options.max_wait = 8;                    /* and nobody is left out more than eight times in a row */
    options.cache_bytes = UINT64_C(4) << 20; /* of keys and values; sequences wait for room */
    options.count_experts = 1;
    EMO_TRY(emo_session_create(model, &options, &session, err));
    for (int left = n; left > 0;)
        EMO_TRY(serve(session, requests, n, &left, err));
    EMO_TRY(emo_session_get_statistics(session, &did, err));
    printf("%llu batches of %.1f sequences and %.1f experts; nobody waited more than %d\n",
           (unsigned long long)did.batches, (double)did.batch_sequences / (double)did.batches,
           (double)did.batch_experts / (double)did.batches, (int)did.longest_wait);
done:
    emo_session_release(session);
    emo_pool_policy_release(pool);
    emo_model_release(model);
    return err->code;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 66) {
        fprintf(stderr, "usage: %s MODEL_FOLDER PROMPT... (at most 64)\n", argv[0]);
        return 2;
    }
    request requests[64];
    for (int i = 2; i < argc; i++)
        requests[i - 2] = (request){argv[i], -1, 0};
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, argv[1], requests, argc - 2, &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
