/* SPDX-License-Identifier: Apache-2.0 */
/* Calls in any order on tiny objects. */
#include "fuzz/fuzz.h"

/* ---- calls ---- */

enum { SLOTS = 3 };

typedef struct world {
    const uint8_t *at;
    const uint8_t *end;
    emo_model *models[SLOTS];
    emo_dataset *data[SLOTS];
    emo_mask *masks[SLOTS];
    emo_pool_policy *pools[SLOTS];
    emo_session *sessions[SLOTS];
    emo_trainer *trainers[SLOTS];
    emo_stats *stats[SLOTS];
} world;

static int32_t byte(world *w) { return w->at < w->end ? *w->at++ : 0; }
static size_t slot(world *w) { return (size_t)byte(w) % SLOTS; }
/* Mostly sensible, at times far outside. */
static int32_t number(world *w, int32_t usual) {
    static const int32_t odd[] = {-1, INT32_MAX, INT32_MIN, 0, 65537, -2};
    int32_t b = byte(w);
    return b < 240 ? b % usual : odd[b % 6];
}
static float fraction(world *w) {
    int32_t b = byte(w);
    return b == 255 ? -1.0f : b == 254 ? 1e30f : (float)b / 200.0f;
}

/* Puts a new object in the place of an old one. */
#define PUT(field, release, made)                                                                                      \
    do {                                                                                                               \
        size_t put_at = slot(w);                                                                                       \
        release(w->field[put_at]);                                                                                     \
        w->field[put_at] = (made);                                                                                     \
    } while (0)

static void call_models(world *w, int32_t op) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = w->models[slot(w)];
    emo_model *made = NULL;
    emo_mask *mask = NULL;
    emo_dataset *part = NULL;
    switch (op) {
    case 0:
        PUT(models, emo_model_release, fuzz_model((uint64_t)byte(w)));
        break;
    case 1:
        (void)FUZZ_CALL(emo_model_prune(model, w->masks[slot(w)], NULL, &made, &err));
        PUT(models, emo_model_release, made);
        break;
    case 2: {
        emo_merge_options o = EMO_MERGE_OPTIONS_INIT;
        o.router = number(w, 2);
        o.shared = number(w, 2);
        o.rest = number(w, 2);
        o.average = fraction(w);
        (void)FUZZ_CALL(emo_model_merge(model, w->models[slot(w)], &o, &made, &err));
        PUT(models, emo_model_release, made);
        break;
    }
    case 3: {
        float logits[64];
        int32_t tokens[4];
        emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
        for (int i = 0; i < 4; i++)
            tokens[i] = number(w, 16);
        o.mask = w->masks[slot(w)];
        o.pool = w->pools[slot(w)];
        (void)FUZZ_CALL(emo_eval_logits(model, tokens, (size_t)number(w, 5) & 7, &o, logits, 64, &err));
        break;
    }
    case 4: {
        emo_eval_result total;
        emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
        o.mask = w->masks[slot(w)];
        o.pool = w->pools[slot(w)];
        o.seq_len = number(w, 16);
        o.batch_tokens = number(w, 16);
        (void)FUZZ_CALL(emo_eval_documents(model, w->data[slot(w)], &o, &total, NULL, NULL, &err));
        break;
    }
    case 5: {
        emo_select_options o = EMO_SELECT_OPTIONS_INIT;
        o.method = number(w, 4);
        o.keep = number(w, 6);
        o.keep_shared = number(w, 2);
        (void)FUZZ_CALL(emo_select(model, w->data[slot(w)], &o, &mask, &err));
        PUT(masks, emo_mask_release, mask);
        break;
    }
    case 6:
        PUT(data, emo_dataset_release, fuzz_data());
        break;
    default:
        (void)FUZZ_CALL(emo_dataset_filter(w->data[slot(w)], byte(w) % 3 == 0 ? "a" : NULL, number(w, 4),
                                           (uint64_t)byte(w), &part, &err));
        PUT(data, emo_dataset_release, part);
    }
}

static void call_masks(world *w, int32_t op) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *a = w->masks[slot(w)];
    emo_mask *b = w->masks[slot(w)];
    emo_mask *made = NULL;
    emo_pool_policy *pool = NULL;
    static const int32_t experts[] = {5, 0, 70000};
    switch (op) {
    case 0:
        (void)FUZZ_CALL(emo_model_mask(w->models[slot(w)], &made, &err));
        break;
    case 1:
        (void)FUZZ_CALL(emo_mask_create(fuzz_runtime(), number(w, 4), experts, NULL, number(w, 2), &made, &err));
        break;
    case 2:
        (void)FUZZ_CALL(emo_mask_union(a, b, &made, &err));
        break;
    case 3:
        (void)FUZZ_CALL(emo_mask_subtract(a, b, &made, &err));
        break;
    case 4:
        for (int i = 0; i < 4; i++)
            (void)FUZZ_CALL(emo_mask_set(a, number(w, 2), number(w, 5), number(w, 2), &err));
        return;
    default:
        if (op == 5)
            (void)FUZZ_CALL(emo_pool_policy_create_uniform(fuzz_runtime(), number(w, 6), number(w, 6), &pool, &err));
        else if (op == 6)
            (void)FUZZ_CALL(
                emo_pool_policy_create_mass(fuzz_runtime(), fraction(w), number(w, 4), number(w, 6), &pool, &err));
        else
            (void)FUZZ_CALL(emo_pool_policy_from_prompt(fuzz_runtime(), number(w, 6), &pool, &err));
        if (pool != NULL) {
            (void)FUZZ_CALL(emo_pool_policy_set_forced(pool, number(w, 3), &err));
            (void)FUZZ_CALL(emo_pool_policy_set_eval_pool(pool, number(w, 6), &err));
        }
        PUT(pools, emo_pool_policy_release, pool);
        return;
    }
    PUT(masks, emo_mask_release, made);
}

static void call_sessions(world *w, int32_t op) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *s = w->sessions[slot(w)];
    emo_session *made = NULL;
    emo_mask *mask = NULL;
    float logits[16];
    int32_t tokens[3];
    emo_state at = EMO_STATE_PENDING;
    switch (op) {
    case 0: {
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        o.sequences = number(w, 3);
        o.capacity = number(w, 33);
        o.max_tokens = number(w, 6);
        o.mask = w->masks[slot(w)];
        o.pool = w->pools[slot(w)];
        o.temperature = fraction(w);
        o.top_k = number(w, 16);
        o.top_p = fraction(w);
        o.min_p = fraction(w);
        o.repetition_penalty = fraction(w);
        o.ignore_eos = number(w, 2);
        (void)FUZZ_CALL(emo_session_create(w->models[slot(w)], &o, &made, &err));
        PUT(sessions, emo_session_release, made);
        break;
    }
    case 1:
    case 2:
        for (int i = 0; i < 3; i++)
            tokens[i] = number(w, 16);
        (void)FUZZ_CALL(emo_session_append_tokens(s, number(w, 2), tokens, 3, &err));
        break;
    case 3:
        (void)FUZZ_CALL(emo_session_append_text(s, "a", &err));
        break;
    case 4: {
        emo_budget budget = emo_budget_unlimited();
        budget.steps = number(w, 8);
        budget.tokens = number(w, 8);
        for (int i = 0; i < 4 && s != NULL; i++) {
            if (!FUZZ_CALL(emo_session_advance(s, i < 3 ? &budget : NULL, &at, &err)))
                break;
        }
        break;
    }
    case 5:
        (void)FUZZ_CALL(emo_session_logits(s, number(w, 2), logits, (size_t)number(w, 17) & 31, &err));
        (void)emo_session_generated(s, number(w, 2), NULL, NULL);
        (void)emo_session_text_of(s, number(w, 2));
        break;
    case 6:
        (void)FUZZ_CALL(emo_session_pool(s, number(w, 2), &mask, &err));
        PUT(masks, emo_mask_release, mask);
        break;
    default:
        (void)FUZZ_CALL(emo_session_reset(s, &err));
    }
}

static void call_trainers(world *w, int32_t op) {
    emo_error err = EMO_ERROR_INIT;
    emo_trainer *made = NULL;
    emo_stats *stats = NULL;
    emo_mask *mask = NULL;
    switch (op) {
    case 0: {
        emo_train_options o = fuzz_train_options();
        o.pool = w->pools[slot(w)];
        o.mask = w->masks[slot(w)];
        o.balance_scope = number(w, 4);
        o.balance_window = number(w, 4);
        o.schedule = number(w, 4);
        o.batch_rows = byte(w) % 6 - 1; /* a sensible size, or a wrong one: never one that takes minutes */
        o.accumulate = byte(w) % 4 - 1;
        o.seq_len = number(w, 33);
        o.train_only = number(w, 2);
        o.max_steps = byte(w) % 5 - 1;
        o.lr = fraction(w) * 0.01f;
        (void)FUZZ_CALL(emo_trainer_create(w->models[slot(w)], w->data[slot(w)], &o, &made, &err));
        PUT(trainers, emo_trainer_release, made);
        break;
    }
    case 1:
    case 2:
        (void)FUZZ_CALL(emo_trainer_step(w->trainers[slot(w)], NULL, &err));
        break;
    case 3:
        (void)FUZZ_CALL(emo_trainer_run(w->trainers[slot(w)], &err));
        break;
    case 4:
        (void)FUZZ_CALL(emo_trainer_checkpoint(w->trainers[slot(w)], &err));
        break;
    case 5: {
        emo_stats_options o = EMO_STATS_OPTIONS_INIT;
        o.easy_ep = number(w, 2);
        o.mask = w->masks[slot(w)];
        o.seq_len = number(w, 16);
        (void)FUZZ_CALL(emo_stats_collect(w->models[slot(w)], w->data[slot(w)], &o, &stats, &err));
        PUT(stats, emo_stats_release, stats);
        break;
    }
    case 6:
        (void)FUZZ_CALL(emo_stats_merge(w->stats[slot(w)], w->stats[slot(w)], &stats, &err));
        PUT(stats, emo_stats_release, stats);
        break;
    default: {
        emo_select_options o = EMO_SELECT_OPTIONS_INIT;
        o.keep = number(w, 6);
        (void)FUZZ_CALL(emo_select_from_stats(w->models[slot(w)], w->stats[slot(w)], &o, &mask, &err));
        PUT(masks, emo_mask_release, mask);
    }
    }
}

void fuzz_api(const uint8_t *data, size_t size) {
    world all;
    world *w = &all;
    memset(w, 0, sizeof *w);
    w->at = data;
    w->end = data + (size < 512 ? size : 512);
    w->models[0] = fuzz_model(1);
    w->data[0] = fuzz_data();
    while (w->at < w->end) {
        int32_t op = byte(w);
        static void (*const groups[])(world *, int32_t) = {call_models, call_masks, call_sessions, call_trainers};
        groups[op / 8 % 4](w, op % 8);
    }
    /* parents first, so that their children keep them alive */
    for (size_t i = 0; i < SLOTS; i++) {
        emo_model_release(w->models[i]);
        emo_dataset_release(w->data[i]);
        emo_pool_policy_release(w->pools[i]);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        emo_mask_release(w->masks[i]);
        emo_stats_release(w->stats[i]);
        emo_session_release(w->sessions[i]);
        emo_trainer_release(w->trainers[i]);
    }
}
