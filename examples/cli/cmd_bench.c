/* SPDX-License-Identifier: Apache-2.0 */
/* emo bench: how fast this machine is with a model, or with one of its shape. */
#include "bench_shape.h"
#include "bench_work.h"
#include "train_report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const command_text text = {
    "emo bench", "[--shape NAME | --config FILE | --model PATH] [--what WORD...]",
    "Times operators, a layer, a prompt, generation and training steps, by turns over some rounds, and says how near "
    "each\n"
    "is to what the machine can do: the time that its operations or its bytes need at the speed of the library's own\n"
    "innermost loops and of reading memory, both measured before and after it.",
    "--what takes operators, backward (their backward passes), layer, prefill, decode, train. Left out, it is all of "
    "them\n"
    "but backward; train is left out too where weights are not f32 or the shape is a large one.\n"
    "Shapes: tiny, small (25M parameters, hidden 256, 6 layers of 32 + 1 experts of 128), released-2-layers (hidden "
    "2048,\n"
    "127 + 1 experts of 1024, vocabulary 100352). Weights are random; a quantised model passes through a file in "
    "TMPDIR.",
    0};

enum { OPERATORS = 1, BACKWARD = 2, LAYER = 4, PREFILL = 8, DECODE = 16, TRAIN = 32 };

static int what_of(cli *c, const string_list *words) {
    static const char *const names[] = {"operators", "backward", "layer", "prefill", "decode", "train"};
    int all = 0;
    for (size_t i = 0; i < words->count; i++) {
        int found = 0;
        for (int k = 0; k < 6; k++)
            found |= strcmp(names[k], words->items[i]) == 0 ? 1 << k : 0;
        if (found == 0) {
            cli_usage(c, "--what takes operators, backward, layer, prefill, decode and train, not '%s'.",
                      words->items[i]);
            return -1;
        }
        all |= found;
    }
    return all;
}

/* The model's, or where none is made, the shape's. */
static emo_status describe(cli *c, const bench_shape *shape, bench_model *m) {
    if (m->model == NULL) {
        m->info.hidden = shape->hidden;
        m->info.layers = shape->layers;
        m->info.heads = m->info.kv_heads = shape->heads;
        m->info.head_dim = shape->hidden / shape->heads;
        m->info.vocab = shape->vocab;
        m->info.expert_inner = shape->inner;
        m->info.top_k = shape->top_k;
        m->info.max_positions = shape->positions;
        m->experts = shape->experts;
        m->shared = 1;
        return EMO_OK;
    }
    emo_status status = emo_model_get_info(m->model, &m->info, &c->err);
    for (int32_t l = 0; status == EMO_OK && l < m->info.layers; l++) {
        if (emo_model_experts(m->model, l) > m->experts) {
            m->experts = emo_model_experts(m->model, l);
            m->shared = emo_model_shared(m->model, l);
        }
    }
    m->weights = m->info.dtype;
    return status;
}

static void json_settings_of(cli *c, json_writer *json, const char *name, const bench_model *m) {
    json_string(json, "model", name);
    json_string(json, "weights", emo_dtype_name(m->weights));
    json_string(json, "compute", emo_dtype_name(cli_compute(c)));
    json_string(json, "isa", emo_isa_name(emo_runtime_isa(c->rt)));
    json_integer(json, "threads", emo_runtime_threads(c->rt));
    json_integer(json, "hidden", m->info.hidden);
    json_integer(json, "layers", m->info.layers);
    json_integer(json, "experts", m->experts);
    json_integer(json, "top_k", m->info.top_k);
    json_integer(json, "parameters", m->info.parameters);
    json_integer(json, "active", m->info.active);
}

static void print_result(cli *c, const char *name, const bench_model *m, bench_table *table,
                         const bench_training *training) {
    struct rusage used;
    int64_t peak = getrusage(RUSAGE_SELF, &used) == 0 ? (int64_t)used.ru_maxrss * 1024 - table->own : 0;
    char memory[32];
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_settings_of(c, &json, name, m);
        bench_json(table, &json);
        if (training != NULL)
            json_profile(&json, bench_trainer(training));
        json_integer(&json, "peak_memory", peak);
        json_close(&json);
        return;
    }
    printf("%s, %s weights, products in %s, %s, %d threads, medians of %d rounds, peak memory %s\n", name,
           emo_dtype_name(m->weights), emo_dtype_name(cli_compute(c)), emo_isa_name(emo_runtime_isa(c->rt)),
           (int)emo_runtime_threads(c->rt), (int)table->rounds, human_bytes((double)peak, memory));
    bench_print(table);
    if (training != NULL)
        print_profile(bench_trainer(training));
}

static emo_status make_model(cli *c, const char *path, const char *config, const bench_shape *shape, emo_dtype weights,
                             emo_model **out) {
    char *words = NULL;
    size_t length = 0;
    if (path != NULL)
        return cli_load_model(c, path, NULL, out);
    if (config == NULL)
        return bench_model_of_shape(c, shape, weights, out);
    emo_status status = cli_read_file(c, config, &words, &length);
    if (status == EMO_OK)
        status = bench_model_of_config(c, words, length, weights, out);
    free(words);
    return status;
}

int cmd_bench(int argc, char **argv) {
    const char *path = NULL, *config = NULL, *name = "small", *weights = "f32", *save = NULL;
    string_list words = {0}, only = {0};
    bench_shape shape;
    bench_model m = {.info = EMO_MODEL_INFO_INIT, .prompt = 512, .generated = 16, .calls = 1};
    int32_t rounds = 5, layers = 0, experts = 0, rows = 0, length = 0;
    option table[] = {
        {"shape", OPTION_CHOICE, &name, BENCH_SHAPES, "a model of this shape", "small", 0, 0, 0, 0},
        {"config", OPTION_STRING, &config, "FILE", "a model of this config.json instead", NULL, 0, 0, 0, 0},
        {"model", OPTION_STRING, &path, "PATH", "this model instead", NULL, 0, 0, 0, 0},
        {"weights", OPTION_CHOICE, &weights, "f32|bf16|f16|q8_0|q4_0|q4_k", "type of a shape's or config's weights",
         "f32", 0, 0, 0, 0},
        {"layers", OPTION_INT32, &layers, "N", "of --shape, another number of layers", NULL, 1, 1024, 0, 0},
        {"experts", OPTION_INT32, &experts, "N", "of --shape, another number of experts, with the shared one", NULL, 2,
         4096, 0, 0},
        {"what", OPTION_LIST, &words, "WORD", "what is timed", "see below", 0, 0, 0, 0},
        {"only", OPTION_LIST, &only, "WORD", "operators whose name has one of these words", NULL, 0, 0, 0, 0},
        {"prompt", OPTION_INT32, &m.prompt, "N", "tokens of a prompt", "512", 2, 1 << 20, 0, 0},
        {"tokens", OPTION_INT32, &m.generated, "N", "tokens generated in a round", "16", 1, 1 << 20, 0, 0},
        {"batch", OPTION_INT32, &rows, "N", "rows of a training step", "8", 1, 1 << 20, 0, 0},
        {"seq-len", OPTION_INT32, &length, "N", "tokens of a row", "512", 1, 1 << 20, 0, 0},
        {"steps", OPTION_INT32, &m.calls, "N", "training steps in a round", "1", 1, 1 << 20, 0, 0},
        {"rounds", OPTION_INT32, &rounds, "N", "how often everything is timed", "5", 1, 10000, 0, 0},
        {"save", OPTION_STRING, &save, "DIR", "write the model of a shape or config there", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    bench_table lines = {0};
    bench_operators operators[2] = {{{0}, 0}, {{0}, 0}};
    bench_sessions *sessions = NULL;
    bench_training *training = NULL;
    int what = what_of(&c, &words), kinds = cli_given(&c, "shape") + cli_given(&c, "config") + cli_given(&c, "model");
    if (what < 0)
        goto done;
    if (kinds > 1 || ((layers > 0 || experts > 0) && (path != NULL || config != NULL)) ||
        (path != NULL && (cli_given(&c, "weights") || save != NULL))) {
        cli_usage(&c,
                  "choose one of --shape, --config and --model; --layers and --experts go with --shape, --weights and "
                  "--save not with --model.");
        goto done;
    }
    if (only.count > 0 && what == 0)
        what = OPERATORS;
    shape = *bench_shape_named(name);
    shape.layers = layers > 0 ? layers : shape.layers;
    shape.experts = experts > 0 ? experts : shape.experts;
    m.weights = dtype_by_name(weights);
    m.rows = rows > 0 ? rows : shape.rows > 0 ? shape.rows : 8;
    m.length = length > 0 ? length : shape.length > 0 ? shape.length : 512;
    if (path != NULL || config != NULL || save != NULL || (what & (OPERATORS | BACKWARD)) == 0 ||
        (what & ~(OPERATORS | BACKWARD)) != 0)
        EMO_TRY(make_model(&c, path, config, &shape, m.weights, &m.model));
    EMO_TRY(describe(&c, &shape, &m));
    if (what == 0) {
        what = OPERATORS | LAYER | PREFILL | DECODE;
        what |= m.weights == EMO_DTYPE_F32 && (path != NULL || config != NULL || shape.rows > 0) ? TRAIN : 0;
    }
    if (length == 0 && m.length > m.info.max_positions)
        m.length = m.info.max_positions;
    if (m.prompt + m.generated + 1 > m.info.max_positions) {
        cli_usage(&c, "--prompt and --tokens are more than the model's %d positions.", (int)m.info.max_positions);
        goto done;
    }
    if (save != NULL) {
        emo_model_save_options options = EMO_MODEL_SAVE_OPTIONS_INIT;
        options.progress = cli_progress(&c);
        EMO_TRY(emo_model_save(m.model, save, &options, &c.err));
    }
    EMO_TRY(bench_begin(&c, &lines, rounds, bench_weight_bytes(m.weights, 1) < 2));
    for (int backward = 0; backward < 2; backward++) {
        if ((what & (backward ? BACKWARD : OPERATORS)) != 0)
            EMO_TRY(bench_add_operators(&c, &lines, &m, backward, &only, &operators[backward]));
    }
    if ((what & (LAYER | PREFILL | DECODE)) != 0)
        EMO_TRY(bench_add_inference(&c, &lines, &m, what & LAYER, what & PREFILL, what & DECODE, &sessions));
    EMO_TRY(bench_measure(&c, &lines, 0));
    bench_sessions_free(sessions); /* sessions and a trainer do not share a model */
    sessions = NULL;
    if ((what & TRAIN) != 0) {
        size_t first = lines.count;
        EMO_TRY(bench_add_training(&c, &lines, &m, &training));
        EMO_TRY(bench_measure(&c, &lines, first));
    }
    print_result(&c, path != NULL ? path : config != NULL ? config : name, &m, &lines, training);
done:
    bench_training_free(training);
    bench_sessions_free(sessions);
    bench_operators_free(&operators[0]);
    bench_operators_free(&operators[1]);
    bench_end(&lines);
    emo_model_release(m.model);
    return cli_end(&c);
}
