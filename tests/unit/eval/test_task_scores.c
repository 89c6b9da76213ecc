/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of tasks against sums over the logits of whole texts, other calls of the library, and arithmetic by hand. */
#include <emo/emo.h>
#include <math.h>

#include "eval/scorer.h"
#include "support/folder.h"

#define VOCAB 300
static const char config[] =
    "{\"vocab_size\":300,\"hidden_size\":32,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"max_position_embeddings\":256,\"num_experts_per_tok\":3,\"num_experts\":9,\"num_shared_experts\":1,"
    "\"eos_token_id\":299,\"initializer_range\":0.3}";
#define TOL 1e-4 /* f32 losses of some tens of tokens, through a cache or not */

static const char *const words[] = {"the cat sat on the mat and the rat sat on the cat", "two and two are four",
                                    "what is the rate of the mat at that", "the answer is the cat, the rat or the bat"};

static int32_t next_text(void *ctx, const char **text, size_t *length) {
    size_t *at = ctx;
    if (*at >= sizeof words / sizeof words[0])
        return 0;
    *text = words[*at];
    *length = strlen(words[(*at)++]);
    return 1;
}

/* A tokenizer with merges, so that tokens reach across borders. */
static emo_model *make(emo_runtime *rt) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    emo_tokenizer *tok = NULL;
    size_t at = 0;
    emo_text_reader reader = {&at, next_text};
    emo_tokenizer_train_options train = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    train.vocab_size = VOCAB;
    train.min_frequency = 1;
    EXPECT_OK(emo_tokenizer_train(rt, &train, &reader, &tok, &err));
    assert_true(emo_tokenizer_vocab_size(tok) > 270 && emo_tokenizer_vocab_size(tok) <= VOCAB);
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), NULL, &model, &err));
    EXPECT_OK(emo_model_set_tokenizer(model, tok, &err));
    emo_tokenizer_release(tok);
    return model;
}

static emo_runtime *rt;
static emo_model *model;

#define CHOICES                                                                                                        \
    "{\"id\": \"1\", \"context\": \"the cat sat\", \"choices\": [\" on the mat\", \" at four\", \"ted rat\"], "        \
    "\"answer\": "                                                                                                     \
    "0, \"d\": \"x\"}\n"                                                                                               \
    "{\"id\": \"2\", \"context\": \"two and two a\", \"choices\": [\"re four\", \"t\", \"nd that is what\", \" "       \
    "rat\"], "                                                                                                         \
    "\"answer\": 1, \"d\": \"y\"}\n"                                                                                   \
    "{\"id\": \"3\", \"context\": \"what is \", \"choices\": [\"the rate\", \" the\"], \"answer\": 1, \"d\": \"x\"}\n" \
    "{\"id\": \"4\", \"context\": \"th\", \"choices\": [\"e\", \"at \\u00e9t\\u00e9\"], \"answer\": 0, \"d\": "        \
    "\"y\"}\n"                                                                                                         \
    "{\"id\": \"5\", \"context\": \"\", \"choices\": [\"the\", \"cat\"], \"answer\": 0, \"d\": \"x\"}\n"
#define N_CHOICES 5

static void put(const char *name, const char *text) { (void)test_write(name, text, strlen(text)); }

static int setup(void **state) {
    (void)state;
    (void)test_folder();
    rt = test_runtime(2, EMO_ISA_AUTO);
    model = make(rt);
    put("choices.jsonl", CHOICES);
    put("valid.jsonl", "{\"context\": \"the rat\", \"choices\": [\" sat\", \" is\"], \"answer\": 0, \"d\": \"x\"}\n"
                       "{\"context\": \"the bat\", \"choices\": [\" sat\", \" is\"], \"answer\": 1, \"d\": \"x\"}\n"
                       "{\"context\": \"four\", \"choices\": [\" cat\", \" mat\"], \"answer\": 1, \"d\": \"y\"}\n");
    return 0;
}
static int teardown(void **state) {
    (void)state;
    emo_model_release(model);
    emo_runtime_release(rt);
    test_folder_remove();
    return 0;
}

static emo_task_set *open_set(const char *tasks) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = NULL;
    put("tasks.json", tasks);
    EXPECT_OK(emo_task_set_open(rt, test_path("tasks.json"), NULL, &set, &err));
    return set;
}

static emo_task_results *run(const emo_task_set *set, const emo_task_run_options *options) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_results *results = NULL;
    EXPECT_OK(emo_task_run(model, set, options, &results, &err));
    return results;
}

static emo_task_item item_of(const emo_task_results *results, int32_t task, int32_t column, int64_t index) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_item item;
    EXPECT_OK(emo_task_results_item(results, task, column, index, &item, &err));
    return item;
}

static emo_task_score score_of(const emo_task_results *results, int32_t task, int32_t column, int32_t metric) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_score score;
    EXPECT_OK(emo_task_results_score(results, task, column, metric, &score, &err));
    return score;
}

/* ---- the straightforward way ---- */

static size_t encode(const char *text, int32_t *ids) {
    emo_error err = EMO_ERROR_INIT;
    size_t n = 0;
    EXPECT_OK(emo_tokenizer_encode(emo_model_tokenizer(model), text, strlen(text), ids, 250, &n, &err));
    return n;
}

static double loss_of(const int32_t *ids, size_t n, size_t from, const emo_mask *mask) {
    emo_error err = EMO_ERROR_INIT;
    static float logits[256 * VOCAB];
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    options.mask = mask;
    double sum = 0.0;
    EXPECT_OK(emo_eval_logits(model, ids, n - 1, &options, logits, sizeof logits / sizeof logits[0], &err));
    for (size_t t = from; t < n; t++) {
        const float *row = logits + (t - 1) * VOCAB;
        double total = 0.0;
        for (size_t v = 0; v < VOCAB; v++)
            total += exp((double)row[v]);
        sum += log(total) - (double)row[ids[t]];
    }
    return sum;
}

typedef struct expected {
    double logprob;
    size_t tokens;
} expected;

/* eos + prompt + continuation encoded at once; scored from `border` on. */
static void texts_of(const emo_task_set *set, int32_t task, int64_t item, int32_t choice, char *prompt, char *both) {
    emo_error err = EMO_ERROR_INIT;
    size_t size = 0;
    EXPECT_OK(emo_task_set_prompt(set, task, item, choice, prompt, 1024, &size, &err));
    (void)strcpy(both, prompt);
    EXPECT_OK(emo_task_set_continuation(set, task, item, choice, both + strlen(both), 1024, &size, &err));
}

static size_t common(const int32_t *a, size_t n, const int32_t *b, size_t m) {
    size_t i = 0;
    while (i < n && i < m && a[i] == b[i])
        i++;
    return i;
}

static void expect_item(const emo_task_set *set, int32_t task, int64_t item, int32_t n, const emo_mask *mask,
                        expected *out) {
    int32_t prompt_ids[256];
    int32_t ids[257] = {299};
    char prompt[1024];
    char both[2048];
    size_t border = SIZE_MAX;
    for (int32_t c = 0; c < n; c++) { /* all choices from one place */
        texts_of(set, task, item, c, prompt, both);
        size_t k = common(prompt_ids, encode(prompt, prompt_ids), ids + 1, encode(both, ids + 1));
        border = k < border ? k : border;
    }
    for (int32_t c = 0; c < n; c++) {
        texts_of(set, task, item, c, prompt, both);
        size_t count = encode(both, ids + 1) + 1;
        out[c].tokens = count - border - 1;
        out[c].logprob = -loss_of(ids, count, border + 1, mask);
    }
}

/* ---- multiple choice ---- */

static const char few_shot[] =
    "{\"tasks\": [{\"name\": \"c\", \"type\": \"multiple_choice\", \"data\": \"choices.jsonl\", \"prompt\": "
    "\"Q: {context}\", \"continuation\": \"{choice}\", \"normalisation\": [\"none\", \"token\", \"byte\", "
    "\"character\", \"unconditional\"], \"unconditional_prompt\": \"th\","
    "\"examples\": {\"count\": 2, \"data\": \"valid.jsonl\", \"draw\": \"item\"}}]}";

static int32_t best_of(const double *scores, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        best = scores[i] > scores[best] ? i : best;
    return best;
}

static double letters(const char *text) {
    double n = 0.0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void choices_are_those_of_logits(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = open_set(few_shot);
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    for (int32_t e = 0; e < 5; e++)
        EXPECT_OK(emo_mask_set(mask, e % 2, e, 0, &err));
    const emo_mask *const masks[] = {mask};
    const int32_t keep[] = {0};
    emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
    options.keep = keep;
    options.n_keep = 1;
    options.masks = masks;
    options.n_masks = 1;
    emo_task_results *results = run(set, &options);
    assert_int_equal(emo_task_results_columns(results), 2);
    int straddled = 0;
    double differ = 0.0;
    for (int32_t column = 0; column < 2; column++) {
        int32_t correct[5] = {0};
        for (int64_t i = 0; i < N_CHOICES; i++) {
            expected want[8];
            double scores[5][8];
            emo_task_item got = item_of(results, 0, column, i);
            int32_t n = got.choices;
            expect_item(set, 0, i, n, column == 1 ? mask : NULL, want);
            for (int32_t c = 0; c < n; c++) {
                char text[1024];
                char whole[1100];
                int32_t ids[256] = {299};
                int32_t prompt_ids[8];
                size_t size = 0;
                EXPECT_OK(emo_task_set_continuation(set, 0, i, c, text, sizeof text, &size, &err));
                assert_int_equal(got.tokens[c], want[c].tokens);
                if (fabs(got.logprobs[c] - want[c].logprob) > TOL)
                    fail_msg("item %d choice %d: %.7f, want %.7f", (int)i, (int)c, got.logprobs[c], want[c].logprob);
                straddled += want[c].tokens != encode(text, ids + 1);
                /* after the unconditional prompt, each choice by itself: borders differ */
                (void)snprintf(whole, sizeof whole, "th%s", text);
                size_t count = encode(whole, ids + 1) + 1;
                size_t n_prompt = encode("th", prompt_ids);
                size_t from = common(prompt_ids, n_prompt, ids + 1, count - 1);
                for (int32_t o = 0; o < n; o++) { /* but all from one place */
                    int32_t other[256];
                    char other_text[1100] = "th";
                    EXPECT_OK(emo_task_set_continuation(set, 0, i, o, other_text + 2, 1024, &size, &err));
                    size_t k = common(prompt_ids, n_prompt, other, encode(other_text, other));
                    from = k < from ? k : from;
                }
                double alone = -loss_of(ids, count, from + 1, column == 1 ? mask : NULL);
                assert_true(fabs(got.unconditional[c] - alone) < TOL);
                scores[0][c] = want[c].logprob;
                scores[1][c] = want[c].logprob / (double)want[c].tokens;
                scores[2][c] = want[c].logprob / (double)strlen(text);
                scores[3][c] = want[c].logprob / letters(text);
                scores[4][c] = want[c].logprob - alone;
                differ += column == 1 ? fabs(want[c].logprob - item_of(results, 0, 0, i).logprobs[c]) : 0.0;
            }
            for (int m = 0; m < 5; m++)
                correct[m] += best_of(scores[m], n) == got.answer;
            assert_int_equal(got.chosen, best_of(scores[0], n));
            assert_string_equal(got.source, "choices.jsonl");
            assert_int_equal(got.line, i + 1);
        }
        for (int32_t m = 0; m < 5; m++) {
            emo_task_score score = score_of(results, 0, column, m);
            double p = (double)correct[m] / N_CHOICES;
            assert_true(fabs(score.value - p) < 1e-12);
            /* standard error of a share: sqrt(p (1 - p) / (n - 1)) */
            assert_true(fabs(score.error - sqrt(p * (1.0 - p) / (N_CHOICES - 1))) < 1e-12);
            assert_int_equal(score.items, N_CHOICES);
            assert_int_equal(score.truncated, 0);
        }
    }
    assert_true(straddled > 0); /* else the borders were not tried */
    assert_true(differ > 0.01); /* and the mask had an effect */
    emo_task_results_release(results);
    emo_task_set_release(set);
    emo_mask_release(mask);
}

/* Neither threads nor how the work is cut change a bit. */
static void results_do_not_depend_on_the_cut(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = open_set(few_shot);
    static const int32_t cuts[][3] = {{0, 0, 2}, {1, 0, 1}, {1, 1, 2}, {2, 7, 3}, {3, 16, 1}, {1024, 3, 2}};
    double want[N_CHOICES][4];
    emo_model *own = model;
    for (size_t k = 0; k < sizeof cuts / sizeof cuts[0]; k++) {
        emo_runtime *threads = test_runtime(cuts[k][2], EMO_ISA_AUTO);
        emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
        options.sequences = cuts[k][0];
        options.batch_tokens = cuts[k][1];
        model = make(threads);
        emo_task_results *results = run(set, &options);
        for (int64_t i = 0; i < N_CHOICES; i++) {
            emo_task_item item = item_of(results, 0, 0, i);
            for (int32_t c = 0; c < item.choices; c++) {
                if (k == 0)
                    want[i][c] = item.logprobs[c];
                else if (want[i][c] != item.logprobs[c])
                    fail_msg("cut %zu, item %d: %.17g, not %.17g", k, (int)i, item.logprobs[c], want[i][c]);
            }
        }
        emo_model_release(model);
        emo_task_results_release(results);
        emo_runtime_release(threads);
    }
    model = own;
    (void)err;
    emo_task_set_release(set);
}

/* Encoded apart and measured per byte, a task is what emo_eval_choices() does. */
static void apart_is_as_eval_choices(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set =
        open_set("{\"tasks\": [{\"name\": \"c\", \"type\": \"multiple_choice\", \"data\": \"choices.jsonl\","
                 "\"prompt\": \"{context}\", \"continuation\": \"{choice}\", \"encode\": \"apart\","
                 "\"normalisation\": \"byte\"}]}");
    emo_choices *items = NULL;
    emo_eval_result total;
    int32_t answers[N_CHOICES];
    double sum = 0.0;
    EXPECT_OK(emo_choices_open(rt, test_path("choices.jsonl"), &items, &err));
    EXPECT_OK(emo_eval_choices(model, items, NULL, &total, answers, &err));
    emo_task_results *results = run(set, NULL);
    for (int64_t i = 0; i < N_CHOICES; i++) {
        emo_task_item item = item_of(results, 0, 0, i);
        assert_int_equal(item.chosen, answers[i]);
        for (int32_t c = 0; c < item.choices; c++)
            sum -= item.logprobs[c];
    }
    assert_true(fabs(sum - total.loss_sum) < TOL * N_CHOICES);
    assert_true(fabs(score_of(results, 0, 0, 0).value - (double)total.correct / N_CHOICES) < 1e-12);
    emo_task_results_release(results);
    emo_choices_release(items);
    emo_task_set_release(set);
}

static void long_prompts_lose_their_beginning(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = open_set(few_shot);
    emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
    options.seq_len = 14;
    emo_task_results *results = run(set, &options);
    assert_int_equal(score_of(results, 0, 0, 0).truncated, N_CHOICES);
    for (int64_t i = 0; i < N_CHOICES; i++) {
        emo_task_item item = item_of(results, 0, 0, i);
        int32_t prompt_ids[256];
        int32_t ids[4][257];
        size_t count[4];
        size_t border = SIZE_MAX;
        size_t longest = 0;
        char prompt[1024];
        char both[2048];
        assert_int_equal(item.truncated, 1);
        for (int32_t c = 0; c < item.choices; c++) {
            ids[c][0] = 299;
            texts_of(set, 0, i, c, prompt, both);
            count[c] = encode(both, ids[c] + 1) + 1;
            size_t k = common(prompt_ids, encode(prompt, prompt_ids), ids[c] + 1, count[c] - 1);
            border = k < border ? k : border;
            longest = count[c] > longest ? count[c] : longest;
        }
        size_t cut = longest - 15; /* 14 inputs and a last label */
        for (int32_t c = 0; c < item.choices; c++) {
            double want = -loss_of(ids[c] + cut, count[c] - cut, border + 1 - cut, NULL);
            assert_true(fabs(item.logprobs[c] - want) < TOL);
        }
    }
    emo_task_results_release(results);
    results = NULL;
    options.seq_len = 2;
    EXPECT_STATUS(emo_task_run(model, set, &options, &results, &err), EMO_E_LIMIT, "choices.jsonl:");
    assert_null(results);
    emo_task_set_release(set);
}

/* What texts have in common is computed once. */
typedef struct plan {
    int64_t shared; /* tokens all items begin with */
    int64_t context;
    int64_t choice;
} plan;

static emo_status make_item(void *ctx, size_t index, emo__likelihoods *out, emo_error *e) {
    const plan *p = ctx;
    emo_error err = EMO_ERROR_INIT;
    int64_t count = p->shared + p->context + p->choice;
    (void)e;
    for (int32_t c = 0; c < 3; c++) {
        EXPECT_OK(emo__grow(out->mem, (void **)&out->tokens, &out->cap_tokens, out->n_tokens + (size_t)count,
                            sizeof *out->tokens, &err));
        EXPECT_OK(emo__grow(out->mem, (void **)&out->items, &out->capacity, out->count + 1, sizeof *out->items, &err));
        out->items[out->count++] = (emo__likelihood){out->n_tokens, count, p->shared + p->context, 0.0};
        for (int64_t i = 0; i < count; i++) { /* ids say what a token belongs to: nothing else is equal by chance */
            int32_t own = i < p->shared + p->context ? 50 + (int32_t)index : 200 + (int32_t)index * 3 + c;
            out->tokens[out->n_tokens++] = i < p->shared ? (int32_t)i : own;
        }
    }
    return EMO_OK;
}

static emo_status item_done(void *ctx, size_t index, const emo__likelihoods *item, emo_error *err) {
    (void)ctx;
    (void)err;
    assert_true(index < 6 && item->count == 3);
    return EMO_OK;
}

static void contexts_are_computed_once(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    plan p = {40, 6, 4};
    emo__score_hooks hooks = {&p, make_item, item_done};
    for (int32_t lanes = 1; lanes <= 3; lanes++) {
        uint64_t computed = 0;
        emo__scorer_options options = {NULL, 64, lanes, 0, NULL};
        EXPECT_OK(emo__score_items(model, 6, &hooks, &options, &computed, &err));
        /* Shared tokens once for a lane; of each item its context once, and of each choice the input before it (which
         * foretells its first token) and all of its tokens but the last. The first choice comes right behind the
         * context, so its input before is the context's last. */
        uint64_t want = 40u * (uint64_t)lanes + 6u * (6 + 3 * 3 + 2 * 1);
        assert_int_equal(computed, want);
    }
}

/* ---- perplexity ---- */

static void texts_are_as_eval_documents(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    put("pairs.jsonl", "{\"prompt\": \"two and\", \"completion\": \" two are four and the rate is that\"}\n"
                       "{\"prompt\": \"\", \"completion\": \"the cat sat on the mat\"}\n"
                       "{\"prompt\": \"what\", \"completion\": \"?\"}\n");
    emo_task_set *set =
        open_set("{\"tasks\": [{\"name\": \"p\", \"type\": \"perplexity\", \"data\": \"pairs.jsonl\", \"prompt\": "
                 "\"{prompt}\", \"continuation\": \"{completion}\", \"encode\": \"apart\","
                 "\"metrics\": [\"loss\", \"bits_per_byte\", \"perplexity\"]}]}");
    const char *paths[] = {test_path("pairs.jsonl")};
    emo_dataset *data = NULL;
    EXPECT_OK(emo_dataset_open(rt, paths, 1, emo_model_tokenizer(model), NULL, &data, &err));
    for (int32_t window = 8; window <= 64; window += 56) {
        emo_eval_result total;
        emo_eval_result each[3];
        emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
        emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
        eval.seq_len = window;
        options.seq_len = window;
        EXPECT_OK(emo_eval_documents(model, data, &eval, &total, NULL, each, &err));
        emo_task_results *results = run(set, &options);
        double loss = total.loss_sum / (double)total.tokens;
        assert_true(fabs(score_of(results, 0, 0, 0).value - loss) < 1e-9);
        assert_true(fabs(score_of(results, 0, 0, 1).value - total.loss_sum / log(2.0) / (double)total.bytes) < 1e-9);
        assert_true(fabs(score_of(results, 0, 0, 2).value - exp(loss)) < 1e-9 * exp(loss));
        for (int64_t i = 0; i < 3; i++) {
            emo_task_item item = item_of(results, 0, 0, i);
            assert_int_equal(item.choices, 1);
            assert_int_equal(item.tokens[0], each[i].tokens);
            assert_true(fabs(item.logprobs[0] + each[i].loss_sum) < 1e-9);
            assert_true(fabs(item.value - each[i].loss_sum / (double)each[i].tokens) < 1e-9);
        }
        emo_task_results_release(results);
    }
    emo_dataset_release(data);
    emo_task_set_release(set);
}

/* ---- subsets ---- */

static void subsets_are_those_of_select(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = open_set(
        "{\"tasks\": [{\"name\": \"c\", \"type\": \"multiple_choice\", \"data\": \"choices.jsonl\", \"validation\": "
        "\"valid.jsonl\", \"by\": \"d\", \"prompt\": \"{context}\", \"continuation\": \"{choice}\"}],"
        "\"groups\": [{\"name\": \"all\", \"tasks\": [\"c\"], \"average\": \"items\"}]}");
    static const char *const texts[][2] = {{"the rat sat", "the bat is"}, {"four mat", NULL}};
    static const emo_select_method methods[] = {EMO_SELECT_USAGE, EMO_SELECT_LAYERWISE, EMO_SELECT_EASY_EP};
    static const int32_t keep[] = {0, 5, 3};
    for (size_t m = 0; m < 3; m++) {
        emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
        options.method = methods[m];
        options.keep = keep;
        options.n_keep = 3;
        options.random = 2;
        options.seed = 7;
        emo_task_results *results = run(set, &options);
        assert_int_equal(emo_task_results_columns(results), 5);
        for (int32_t column = 0; column < 5; column++) {
            static const emo_task_column_kind kinds[] = {EMO_TASK_COLUMN_ALL, EMO_TASK_COLUMN_SUBSET,
                                                         EMO_TASK_COLUMN_RANDOM, EMO_TASK_COLUMN_SUBSET,
                                                         EMO_TASK_COLUMN_RANDOM};
            emo_task_column what;
            EXPECT_OK(emo_task_results_column(results, column, &what, &err));
            assert_int_equal(what.kind, kinds[column]);
            assert_int_equal(what.keep, column == 0 ? 0 : column < 3 ? 5 : 3);
            assert_int_equal(what.draws, what.kind == EMO_TASK_COLUMN_RANDOM ? 2 : 1);
            assert_true(fabs(what.share - (column == 0 ? 1.0 : column < 3 ? 0.5 : 0.25)) < 1e-12);
            for (int32_t task = 0; task < 2; task++) {
                emo_mask *got = NULL;
                emo_mask *want = NULL;
                emo_dataset *documents = NULL;
                EXPECT_OK(emo_task_results_mask(results, task, column, &got, &err));
                assert_int_equal(got == NULL, column == 0);
                if (got == NULL)
                    continue;
                emo_select_options select = EMO_SELECT_OPTIONS_INIT;
                select.keep = what.keep;
                select.seed = 7;
                select.method = what.kind == EMO_TASK_COLUMN_RANDOM ? EMO_SELECT_RANDOM : methods[m];
                EXPECT_OK(emo_dataset_from_text(rt, emo_model_tokenizer(model), texts[task], NULL, task == 0 ? 2 : 1,
                                                &documents, &err));
                EXPECT_OK(emo_select(model, documents, &select, &want, &err));
                assert_int_equal(emo_mask_equal(got, want), 1);
                /* The column's items are those of a run with the mask. */
                const emo_mask *const masks[] = {want};
                emo_task_run_options given = EMO_TASK_RUN_OPTIONS_INIT;
                given.masks = masks;
                given.n_masks = 1;
                emo_task_results *same = run(set, &given);
                for (int64_t i = 0; i < (task == 0 ? 3 : 2); i++) {
                    emo_task_item a = item_of(results, task, column, i);
                    emo_task_item b = item_of(same, task, 0, i);
                    assert_memory_equal(a.logprobs, b.logprobs, (size_t)a.choices * sizeof(double));
                }
                emo_task_results_release(same);
                emo_dataset_release(documents);
                emo_mask_release(got);
                emo_mask_release(want);
            }
            /* Groups: tasks of 3 and 2 items. */
            emo_task_score x = score_of(results, 0, column, 0);
            emo_task_score y = score_of(results, 1, column, 0);
            emo_task_score group;
            assert_int_equal(x.items, 3 * what.draws);
            EXPECT_OK(emo_task_results_group(results, 0, column, &group, &err));
            assert_true(fabs(group.value - (x.value + y.value) / 2.0) < 1e-12);
            assert_true(fabs(group.error - sqrt(x.error * x.error + y.error * y.error) / 2.0) < 1e-12);
            assert_int_equal(group.items, 5 * what.draws);
            /* the group of one group: its value, whatever the weights */
            emo_task_score outer;
            EXPECT_OK(emo_task_results_group(results, 1, column, &outer, &err));
            assert_true(fabs(outer.value - group.value) < 1e-12);
        }
        emo_task_results_release(results);
    }
    /* Few examples are drawn as emo_dataset_filter() does. */
    emo_task_set *one = open_set("{\"tasks\": [{\"name\": \"c\", \"type\": \"multiple_choice\", \"data\": "
                                 "\"choices.jsonl\", \"validation\": \"valid.jsonl\", \"prompt\": \"{context}\", "
                                 "\"continuation\": \"{choice}\"}]}");
    static const char *const all[] = {"the rat sat", "the bat is", "four mat"};
    for (uint64_t seed = 0; seed < 4; seed++) {
        emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
        emo_select_options select = EMO_SELECT_OPTIONS_INIT;
        emo_dataset *documents = NULL;
        emo_dataset *drawn = NULL;
        emo_mask *want = NULL;
        emo_mask *got = NULL;
        options.keep = keep + 2;
        options.n_keep = 1;
        options.examples = 1;
        options.seed = seed;
        select.keep = 3;
        emo_task_results *results = run(one, &options);
        EXPECT_OK(emo_dataset_from_text(rt, emo_model_tokenizer(model), all, NULL, 3, &documents, &err));
        EXPECT_OK(emo_dataset_filter(documents, NULL, 1, seed, &drawn, &err));
        EXPECT_OK(emo_select(model, drawn, &select, &want, &err));
        EXPECT_OK(emo_task_results_mask(results, 0, 0, &got, &err));
        assert_int_equal(emo_mask_equal(got, want), 1);
        emo_mask_release(got);
        emo_mask_release(want);
        emo_dataset_release(drawn);
        emo_dataset_release(documents);
        emo_task_results_release(results);
    }
    emo_task_set_release(one);
    emo_task_set_release(set);
}

static void wrong_options_are_named(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = open_set(few_shot); /* no validation */
    emo_task_results *results = NULL;
    static const int32_t five[] = {5};
    static const int32_t many[] = {10};
    static const int32_t none[] = {-1};
    emo_task_run_options o = EMO_TASK_RUN_OPTIONS_INIT;
#define WRONG(field, value, status, words)                                                                             \
    do {                                                                                                               \
        emo_task_run_options wrong_ = o;                                                                               \
        wrong_.field = (value);                                                                                        \
        EXPECT_STATUS(emo_task_run(model, set, &wrong_, &results, &err), status, words);                               \
        assert_null(results);                                                                                          \
    } while (0)
    WRONG(method, 4, EMO_E_RANGE, "method is 4");
    WRONG(random, -1, EMO_E_RANGE, "random");
    WRONG(seq_len, 257, EMO_E_RANGE, "seq_len");
    WRONG(seq_len, 1, EMO_E_RANGE, "at least 2");
    WRONG(examples, -1, EMO_E_RANGE, "examples");
    WRONG(sequences, 1025, EMO_E_RANGE, "sequences");
    WRONG(batch_tokens, -1, EMO_E_RANGE, "batch_tokens");
    WRONG(n_keep, 1, EMO_E_INVALID_ARGUMENT, "keep is NULL");
    WRONG(n_masks, 1, EMO_E_INVALID_ARGUMENT, "masks is NULL");
    WRONG(n_keep, SIZE_MAX, EMO_E_RANGE, "n_keep");
    o.n_keep = 1;
    o.keep = five;
    EXPECT_STATUS(emo_task_run(model, set, &o, &results, &err), EMO_E_INVALID_ARGUMENT, "no \"validation\" items");
    o.keep = many;
    EXPECT_STATUS(emo_task_run(model, set, &o, &results, &err), EMO_E_RANGE, "keep");
    o.keep = none;
    EXPECT_STATUS(emo_task_run(model, set, &o, &results, &err), EMO_E_RANGE, "keep is -1");
    o.keep = five;
    o.method = EMO_SELECT_RANDOM; /* needs no validation */
    EXPECT_OK(emo_task_run(model, set, &o, &results, &err));
    emo_task_results_release(results);
    emo_model *bare = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), NULL, &bare, &err));
    EXPECT_STATUS(emo_task_run(bare, set, NULL, &results, &err), EMO_E_INVALID_ARGUMENT, "no tokenizer");
    emo_model_release(bare);
    emo_task_set_release(set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_are_those_of_logits), cmocka_unit_test(results_do_not_depend_on_the_cut),
        cmocka_unit_test(apart_is_as_eval_choices),    cmocka_unit_test(long_prompts_lose_their_beginning),
        cmocka_unit_test(contexts_are_computed_once),  cmocka_unit_test(texts_are_as_eval_documents),
        cmocka_unit_test(subsets_are_those_of_select), cmocka_unit_test(wrong_options_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
