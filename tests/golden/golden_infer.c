/* SPDX-License-Identifier: Apache-2.0 */
/* Infer cases: logits, router logits and losses of two batches (the second with padding), and greedy generation. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "golden/golden.h"
#include "model/pass.h"

/* Several times the float32 error of the reference, far below the effect of a wrong formula. */
#define TOL_LOGITS 1e-4
#define TOL_ROUTER 3e-5
#define TOL_CE 2e-5
#define TOL_LB 3e-6

#define MAX_LAYERS 64

/* One of the two passes: rows of S tokens, of which the first length[row] are real. */
typedef struct batch_case {
    const golden_case *c;
    golden_result *r;
    emo_model *model;
    char which;
    int64_t rows, seq;
    const int64_t *ids, *labels, *mask; /* [rows, seq]; mask NULL: all real */
    int64_t lengths[16];
    int64_t tokens;            /* real ones */
    float *router[MAX_LAYERS]; /* [tokens, E] as the library computed them; NULL: a dense layer */
} batch_case;

static int64_t place(const batch_case *b, int64_t row, int64_t t) { return row * b->seq + t; }

/* Runs the real tokens of every row as a document of its own and compares logits and cross-entropy. */
static double run_pass(batch_case *b) {
    const emo__config *config = &b->model->config;
    size_t n = (size_t)b->tokens;
    size_t vocab = (size_t)config->vocab;
    int32_t *ids = calloc(4 * n, sizeof *ids);
    int32_t *positions = ids + n;
    int32_t *labels = ids + 2 * n;
    int32_t *rows = ids + 3 * n;
    float *logits = calloc(n * vocab, sizeof *logits);
    float *loss = calloc(n, sizeof *loss);
    int32_t begin[17] = {0};
    emo_attention_segment attention[16];
    emo_error err = EMO_ERROR_INIT;
    double ce = 0.0;
    int64_t labelled = 0;
    int64_t at = 0;
    for (int64_t row = 0; row < b->rows; row++) {
        attention[row] = (emo_attention_segment){at, b->lengths[row], at, b->lengths[row]};
        for (int64_t t = 0; t < b->lengths[row]; t++, at++) {
            ids[at] = (int32_t)b->ids[place(b, row, t)];
            positions[at] = (int32_t)t;
            labels[at] = t + 1 < b->seq ? (int32_t)b->labels[place(b, row, t + 1)] : -100;
            rows[at] = (int32_t)at;
            labelled += labels[at] != -100;
        }
        begin[row + 1] = (int32_t)at;
    }
    emo__pass_config shape = {0};
    shape.max_tokens = b->tokens;
    shape.max_documents = b->rows;
    shape.max_logits = b->tokens;
    shape.all_logits = true;
    shape.token_loss = true;
    shape.shared_mode = -1;
    emo__batch batch = {0};
    batch.tokens = b->tokens;
    batch.ids = ids;
    batch.positions = positions;
    batch.labels = labels;
    batch.n_attention = b->rows;
    batch.attention = attention;
    batch.n_documents = b->rows;
    batch.document_begin = begin;
    batch.n_logits = b->tokens;
    batch.logit_rows = rows;
    emo__pass *pass = NULL;
    emo_status status = emo__pass_create(b->model, &shape, &pass, &err);
    if (status == EMO_OK)
        status = emo__pass_begin(pass, &batch, &err);
    bool done = false;
    for (int32_t l = 0; status == EMO_OK && l < config->layers; l++) {
        if (config->layer[l].experts == 0)
            continue;
        emo__limit limit = {0};
        limit.stop_layer = l;
        limit.stop_stage = EMO__STAGE_EXPERTS;
        size_t count = n * (size_t)config->layer[l].experts;
        b->router[l] = calloc(count, sizeof(float));
        status = emo__pass_advance(pass, &limit, &done, &err);
        if (status == EMO_OK)
            status =
                emo__pass_download(pass, b->router[l], emo__pass_route(pass, l)->logits, count * sizeof(float), &err);
    }
    if (status == EMO_OK)
        status = emo__pass_advance(pass, NULL, &done, &err);
    if (status == EMO_OK)
        status = emo__pass_download(pass, logits, emo__pass_logits(pass), n * vocab * sizeof(float), &err);
    if (status == EMO_OK)
        status = emo__pass_download(pass, loss, emo__pass_token_loss(pass), n * sizeof(float), &err);
    if (golden_call(b->r, status, &err, "the forward pass") == 0) {
        const float *want = golden_need(b->c, b->r, "F32", b->rows * b->seq * (int64_t)vocab, "%c.logits", b->which);
        for (int64_t row = 0; want != NULL && row < b->rows; row++)
            golden_close(b->r, "logits", logits + (size_t)begin[row] * vocab, want + (size_t)(row * b->seq) * vocab,
                         b->lengths[row] * (int64_t)vocab, TOL_LOGITS);
        for (size_t t = 0; t < n; t++)
            ce += (double)loss[t];
    }
    emo__pass_destroy(pass);
    free(ids);
    free(logits);
    free(loss);
    return ce / (double)labelled;
}

static void check_router(const batch_case *b) {
    for (int32_t l = 0; l < b->model->config.layers; l++) {
        int64_t experts = b->model->config.layer[l].experts;
        int64_t at = 0;
        if (b->router[l] == NULL)
            continue;
        const float *want =
            golden_need(b->c, b->r, "F32", b->rows * b->seq * experts, "%c.router_logits.%d", b->which, (int)l);
        for (int64_t row = 0; want != NULL && row < b->rows; row++) {
            golden_close(b->r, "router logits", b->router[l] + at * experts, want + row * b->seq * experts,
                         b->lengths[row] * experts, TOL_ROUTER);
            at += b->lengths[row];
        }
    }
}

enum { BY_LABELS, BY_MASK, NEITHER };

/* The load-balancing loss of one layer from its router logits: shared experts take no part, always-active ones are
 * removed after the softmax. */
static double balance_of(const batch_case *b, int32_t l, int32_t shared, const emo__layer_config *always, int how) {
    int32_t experts = b->model->config.layer[l].experts;
    int32_t n = experts - shared;
    int32_t k = b->model->config.top_k - (always->n_always > 0 ? always->n_always : shared);
    double *p = calloc((size_t)n, sizeof *p);
    double *mean = calloc((size_t)n, sizeof *mean);
    double *count = calloc((size_t)n, sizeof *count);
    int64_t used = 0;
    int64_t at = 0;
    for (int64_t row = 0; row < b->rows; row++) {
        for (int64_t t = 0; t < b->lengths[row]; t++, at++) {
            const float *x = b->router[l] + at * experts;
            double total = 0.0;
            if (how == BY_LABELS && b->labels[place(b, row, t)] == -100)
                continue;
            used++;
            for (int32_t e = 0; e < n; e++)
                total += p[e] = exp((double)x[e]);
            for (int32_t e = 0; e < n; e++) {
                p[e] /= total;
                mean[e] += p[e];
            }
            for (int32_t i = 0; i < always->n_always; i++)
                p[always->always[i]] = -1.0;
            for (int32_t j = 0; j < k; j++) {
                int32_t best = 0;
                for (int32_t e = 1; e < n; e++)
                    best = p[e] > p[best] ? e : best;
                count[best] += 1.0;
                p[best] = -1.0;
            }
        }
    }
    for (int32_t i = 0; i < always->n_always; i++)
        mean[always->always[i]] = 0.0;
    double sum = 0.0;
    double m = (double)used;
    for (int32_t e = 0; e < n; e++)
        sum += (how == NEITHER ? count[e] / (m * (double)k) : count[e]) * mean[e] / m;
    free(p);
    free(mean);
    free(count);
    return sum * (double)(n - always->n_always) / (double)k / m;
}

static double balance(const batch_case *b, int how) {
    const emo__config *config = &b->model->config;
    const emo__layer_config *first = NULL;
    bool equal = true;
    int32_t layers = 0;
    double sum = 0.0;
    for (int32_t l = 0; l < config->layers; l++) {
        if (config->layer[l].experts == 0)
            continue;
        first = first == NULL ? &config->layer[l] : first;
        equal = equal && config->layer[l].experts == first->experts;
        layers++;
    }
    for (int32_t l = 0; l < config->layers; l++) {
        const emo__layer_config *as = equal ? first : &config->layer[l];
        if (config->layer[l].experts > 0)
            sum += balance_of(b, l, as->shared, as, how);
    }
    return sum / (double)layers;
}

static double scalar(const batch_case *b, const char *name) {
    const float *value = golden_need(b->c, b->r, "F32", 1, "%c.%s", b->which, name);
    return value != NULL ? (double)*value : NAN;
}

static void check_pass(const golden_case *c, golden_result *r, emo_model *model, char which) {
    batch_case b = {0};
    const golden_tensor *ids = golden_find(&c->file, "%c.input_ids", which);
    if (ids == NULL || ids->shape[0] > 16 || model->config.layers > MAX_LAYERS) {
        golden_fail(r, "no input_ids of pass %c, or too many rows", which);
        return;
    }
    b.c = c;
    b.r = r;
    b.model = model;
    b.which = which;
    b.rows = ids->shape[0];
    b.seq = ids->shape[1];
    b.ids = golden_need(c, r, "I64", ids->count, "%c.input_ids", which);
    b.labels = golden_need(c, r, "I64", ids->count, "%c.labels", which);
    b.mask = which == 'B' ? golden_need(c, r, "I64", ids->count, "B.attention_mask") : NULL;
    if (r->failed)
        return;
    for (int64_t row = 0; row < b.rows; row++) {
        b.lengths[row] = b.seq;
        for (int64_t t = 0; b.mask != NULL && t < b.seq; t++)
            b.lengths[row] -= b.mask[place(&b, row, t)] == 0;
        b.tokens += b.lengths[row];
    }
    double ce = run_pass(&b);
    if (!r->failed) {
        check_router(&b);
        double lb = balance(&b, BY_LABELS);
        golden_close_1(r, "ce_loss", ce, scalar(&b, "ce_loss"), TOL_CE);
        golden_close_1(r, "lb_loss", lb, scalar(&b, "lb_loss"), TOL_LB);
        golden_close_1(r, "loss", ce + model->config.aux_coef * lb, scalar(&b, "loss"), TOL_CE);
        if (which == 'A')
            golden_close_1(r, "lb_loss (neither)", balance(&b, NEITHER), scalar(&b, "lb_loss_no_labels_no_mask"),
                           TOL_LB);
        else
            golden_close_1(r, "lb_loss (mask)", balance(&b, BY_MASK), scalar(&b, "lb_loss_mask_only"), TOL_LB);
    }
    for (int32_t l = 0; l < model->config.layers; l++)
        free(b.router[l]);
}

/* Greedy continuation, with a cache, of the first n prompts as sequences of one session. */
static void check_generation(const golden_case *c, golden_result *r, emo_model *model, int n, const char *output,
                             int ignore_eos) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *session = NULL;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.sequences = n;
    options.ignore_eos = ignore_eos;
    const golden_tensor *want = golden_find(&c->file, "gen.%s.0", output);
    if (want == NULL) {
        golden_fail(r, "no gen.%s.0", output);
        return;
    }
    options.max_tokens = ignore_eos != 0 ? (int32_t)want->count : 0;
    if (golden_call(r, emo_session_create(model, &options, &session, &err), &err, "emo_session_create") != 0)
        return;
    for (int i = 0; i < n && !r->failed; i++) {
        const golden_tensor *prompt = golden_find(&c->file, "gen.prompt.%d", i);
        for (int64_t t = 0; prompt != NULL && t < prompt->count && !r->failed; t++) {
            int32_t id = (int32_t)((const int64_t *)prompt->data)[t];
            (void)golden_call(r, emo_session_append_tokens(session, i, &id, 1, &err), &err,
                              "emo_session_append_tokens");
        }
    }
    emo_state state = EMO_STATE_PENDING;
    while (state != EMO_STATE_DONE && !r->failed)
        (void)golden_call(r, emo_session_advance(session, NULL, &state, &err), &err, "emo_session_advance");
    for (int i = 0; i < n && !r->failed; i++) {
        const int32_t *ids = NULL;
        size_t count = emo_session_generated(session, i, &ids, NULL);
        want = golden_find(&c->file, "gen.%s.%d", output, i);
        if (want == NULL || count != (size_t)want->count)
            golden_fail(r, "gen.%s.%d: %zu tokens, want %lld", output, i, count,
                        want != NULL ? (long long)want->count : -1);
        else
            golden_same_i32(r, "generated tokens", ids, want->data, want->count);
    }
    emo_session_release(session);
}

void golden_infer(const golden_case *c, golden_result *r) {
    emo_model *model = NULL;
    if (golden_model(c, r, &model) != 0)
        return;
    check_pass(c, r, model, 'A');
    if (!r->failed)
        check_pass(c, r, model, 'B');
    if (!r->failed)
        check_generation(c, r, model, 3, "output", 1);
    if (!r->failed) {
        model->config.eos = (int32_t)golden_int(c, r, "gen_eos_token_for_eos_output_0");
        check_generation(c, r, model, 1, "eos_output", 0);
    }
    emo_model_release(model);
}
