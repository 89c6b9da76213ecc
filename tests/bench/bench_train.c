/* SPDX-License-Identifier: Apache-2.0 */
/* Training speed: bench_train [corpus|large|HIDDEN,LAYERS,HEADS,EXPERTS,INNER,VOCAB,ROWS,SEQ] [threads] [steps]
 * [f32|bf16]. One of the experts is shared, tokens choose four in all, pools are uniform, the first step is not
 * counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <emo/emo.h>

typedef struct shape {
    int hidden, layers, heads, experts, inner, vocab, rows, seq;
} shape;

static int read_shape(const char *text, shape *s) {
    if (strcmp(text, "corpus") == 0)
        *s = (shape){128, 4, 4, 33, 64, 2048, 12, 256};
    else if (strcmp(text, "large") == 0)
        *s = (shape){256, 6, 8, 33, 128, 8192, 8, 512};
    else
        return sscanf(text, "%d,%d,%d,%d,%d,%d,%d,%d", &s->hidden, &s->layers, &s->heads, &s->experts, &s->inner,
                      &s->vocab, &s->rows, &s->seq) == 8;
    return 1;
}

/* Documents of 40 to 800 tokens, frequent ids more often. */
static emo_status make_data(emo_runtime *rt, const shape *s, emo_dataset **out, emo_error *err) {
    enum { DOCS = 400, MOST = 800 };
    int32_t *tokens = malloc(DOCS * MOST * sizeof *tokens);
    size_t lengths[DOCS];
    size_t at = 0;
    uint32_t x = 12345;
    emo_status status = EMO_E_OUT_OF_MEMORY;
    for (size_t d = 0; tokens != NULL && d < DOCS; d++) {
        lengths[d] = 40 + d * 97 % (MOST - 40);
        for (size_t i = 0; i < lengths[d]; i++) {
            x = x * 1664525u + 1013904223u;
            double u = (double)x / 4294967296.0;
            tokens[at++] = (int32_t)(2 + u * u * (s->vocab - 2));
        }
    }
    if (tokens != NULL)
        status = emo_dataset_from_tokens(rt, tokens, lengths, NULL, DOCS, 1, out, err);
    free(tokens);
    return status;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

static emo_status measure(emo_trainer *trainer, int steps, const shape *s, int threads, emo_error *err) {
    double *seconds = calloc((size_t)steps + 1, sizeof *seconds);
    emo_status status = seconds != NULL ? EMO_OK : EMO_E_OUT_OF_MEMORY;
    emo_step_metrics m = {0};
    m.struct_size = sizeof m;
    clock_t cpu = 0;
    for (int i = 0; status == EMO_OK && i <= steps; i++) {
        if (i == 1)
            cpu = clock();
        status = emo_trainer_step(trainer, &m, err);
        if (status == EMO_OK)
            seconds[i] = m.seconds;
    }
    if (status == EMO_OK) {
        qsort(seconds + 1, (size_t)steps, sizeof *seconds, ascending);
        double tokens = (double)s->rows * s->seq;
        double used = (double)(clock() - cpu) / CLOCKS_PER_SEC / steps; /* says more on a busy machine */
        (void)printf("%d threads: %.0f tokens/s (best %.0f), %.1f ms a step, %.1f ms of CPU time, loss %.4f\n", threads,
                     tokens / seconds[1 + steps / 2], tokens / seconds[1], seconds[1 + steps / 2] * 1e3, used * 1e3,
                     m.loss);
    }
    free(seconds);
    return status;
}

int main(int argc, char **argv) {
    shape s;
    int threads = argc > 2 ? atoi(argv[2]) : 2;
    int steps = argc > 3 ? atoi(argv[3]) : 10;
    char config[1024];
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options ro = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_pool_policy *pool = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    if (!read_shape(argc > 1 ? argv[1] : "corpus", &s) || threads < 1 || steps < 1) {
        (void)fprintf(stderr, "usage: %s [corpus|large|H,L,HEADS,E,INNER,V,ROWS,SEQ] [threads] [steps] [f32|bf16]\n",
                      argv[0]);
        return 2;
    }
    (void)snprintf(config, sizeof config,
                   "{\"model_type\":\"emo\",\"vocab_size\":%d,\"hidden_size\":%d,\"intermediate_size\":%d,"
                   "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_experts\":%d,\"num_shared_experts\":1,"
                   "\"num_experts_per_tok\":4,\"max_position_embeddings\":%d,\"eos_token_id\":1}",
                   s.vocab, s.hidden, s.inner, s.layers, s.heads, s.experts, s.seq);
    ro.threads = threads;
    o.batch_rows = s.rows;
    o.seq_len = s.seq;
    o.max_steps = 1000;
    EMO_TRY(emo_runtime_create(&ro, &rt, &err));
    emo_model_create_options create = EMO_MODEL_CREATE_OPTIONS_INIT;
    create.compute = argc > 4 && strcmp(argv[4], "bf16") == 0 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
    EMO_TRY(emo_model_create_json(rt, config, strlen(config), &create, &model, &err));
    EMO_TRY(make_data(rt, &s, &data, &err));
    EMO_TRY(emo_pool_policy_create_uniform(rt, 4, s.experts - 1, &pool, &err));
    o.pool = pool;
    EMO_TRY(emo_trainer_create(model, data, &o, &trainer, &err));
    EMO_TRY(measure(trainer, steps, &s, threads, &err));
done:
    if (err.code != EMO_OK)
        (void)fprintf(stderr, "%s\n", err.message);
    emo_trainer_release(trainer);
    emo_pool_policy_release(pool);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    return err.code != EMO_OK;
}
